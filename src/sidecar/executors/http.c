/*
 * http.c
 *		Handlers of kind http: "[METHOD ]URL".
 *
 * Success is 2xx; for DELETE also 404 and 410, as what was to be deleted is
 * gone.  The JSON body is made by the database, in the claim query.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exec.h"

/* The methods that there are, so that they need not be copied. */
static const char *const methods[] = {
	"POST", "PUT", "DELETE", "GET", "HEAD", "PATCH", "OPTIONS", NULL
};

/* Take the method from the beginning of a template; *url is the rest. */
static const char *
split_method(const char *template, const char **url)
{
	size_t		len = strspn(template, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
	int			i;

	*url = template;
	if (len == 0 || template[len] != ' ')
		return "POST";
	for (i = 0; methods[i] != NULL; i++)
	{
		if (strlen(methods[i]) == len && strncmp(methods[i], template, len) == 0)
		{
			*url = template + len + strspn(template + len, " ");
			return methods[i];
		}
	}
	return NULL;
}

static bool
http_prepare(Context *context, Call *call)
{
	const char *template;

	call->method = split_method(call->command, &template);
	if (call->method == NULL)
	{
		snprintf(call->error, sizeof(call->error), "the target begins with an unknown method: \"%.100s\"", call->command);
		return false;
	}
	if (!call_expand(call, template, TARGET_URL))
		return false;
	call->url = exec_strdup(call->target.text.data);
	if (transfer_split_url(call))
		return true;
	snprintf(call->error, sizeof(call->error), "the target is no URL of http or https: \"%.100s\"", call->url);
	return false;
}

static bool
http_start(Context *context, Call *call)
{
	call->headers = exec_header(call->headers, "Expect:");
	if (strcmp(call->method, "POST") == 0 || strcmp(call->method, "PUT") == 0)
	{
		call->send = (const uint8_t *) (call->body != NULL ? call->body : "{}");
		call->send_len = strlen((const char *) call->send);
		call->headers = exec_header(call->headers, "Content-Type: application/json");
	}
	return true;
}

static bool
http_judge(Context *context, Call *call, long status)
{
	if (status >= 200 && status < 300)
		return true;
	if (strcmp(call->method, "DELETE") == 0 && (status == 404 || status == 410))
		return true;
	snprintf(call->error, sizeof(call->error), "%s to %.150s port %d: status %ld%s%.200s",
			 call->method, call->host_name, call->port, status,
			 call->answer.len > 0 ? ": " : "", call->answer.len > 0 ? call->answer.data : "");
	return false;
}

const ExecutorOps http_ops = {http_prepare, http_start, http_judge, NULL, NULL};
