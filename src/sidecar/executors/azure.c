/*
 * azure.c
 *		Handlers of kind azure_blob: "azure://container/blob" or a blob's URL,
 *		by DELETE.
 *
 * The account comes from AZURE_STORAGE_CONNECTION_STRING, or from
 * AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN.  Its
 * credentials are only ever sent to its own endpoint; another URL must carry
 * its own.
 */
#include <ctype.h>
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <openssl/evp.h>

#include "executors/calls.h"
#include "executors/context.h"
#include "executors/kinds.h"
#include "executors/target.h"
#include "executors/transfer.h"
#include "executors/util.h"

#define API_VERSION "2020-10-02"
#define KEY_MAX 256

/* What the emulators of the service have built in. */
#define EMULATOR_ACCOUNT "devstoreaccount1"
#define EMULATOR_KEY "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
#define EMULATOR_ENDPOINT "http://127.0.0.1:10000/" EMULATOR_ACCOUNT

typedef struct Account
{
	char	   *name;
	char	   *key;			/* base64 */
	char	   *sas;			/* without the "?" */
	char	   *endpoint;		/* without a "/" at its end */
} Account;

static void
account_free(Account *account)
{
	if (account->key != NULL)
		OPENSSL_cleanse(account->key, strlen(account->key));
	free(account->name);
	free(account->key);
	free(account->sas);
	free(account->endpoint);
}

/* The value of NAME in "NAME=value;NAME=value"; NULL when it is not there. */
static char *
connection_value(const char *text, const char *name)
{
	size_t		name_len = strlen(name);

	while (text != NULL && *text != '\0')
	{
		size_t		len = strcspn(text, ";");

		if (len > name_len && strncasecmp(text, name, name_len) == 0 && text[name_len] == '=')
		{
			char	   *value = exec_alloc(len - name_len);

			memcpy(value, text + name_len + 1, len - name_len - 1);
			return value;
		}
		text += len;
		text += strspn(text, ";");
	}
	return NULL;
}

static char *
copy_environment(const char *name)
{
	const char *value = getenv(name);

	return value != NULL && value[0] != '\0' ? exec_strdup(value) : NULL;
}

static void
read_connection_string(const char *text, Account *account)
{
	char	   *emulator = connection_value(text, "UseDevelopmentStorage");
	char	   *protocol = connection_value(text, "DefaultEndpointsProtocol");
	char	   *suffix = connection_value(text, "EndpointSuffix");

	if (emulator != NULL && strcasecmp(emulator, "true") == 0)
	{
		account->name = exec_strdup(EMULATOR_ACCOUNT);
		account->key = exec_strdup(EMULATOR_KEY);
		account->endpoint = exec_strdup(EMULATOR_ENDPOINT);
	}
	else
	{
		account->name = connection_value(text, "AccountName");
		account->key = connection_value(text, "AccountKey");
		account->sas = connection_value(text, "SharedAccessSignature");
		account->endpoint = connection_value(text, "BlobEndpoint");
	}
	if (account->endpoint == NULL && account->name != NULL)
	{
		Buffer		endpoint = {NULL, 0, 0};

		buffer_printf(&endpoint, "%s://%s.blob.%s", protocol != NULL ? protocol : "https",
					  account->name, suffix != NULL ? suffix : "core.windows.net");
		account->endpoint = endpoint.data;
	}
	free(emulator);
	free(protocol);
	free(suffix);
}

static void
read_account(Account *account)
{
	const char *text = getenv("AZURE_STORAGE_CONNECTION_STRING");
	size_t		len;

	memset(account, 0, sizeof(*account));
	if (text != NULL && text[0] != '\0')
		read_connection_string(text, account);
	else
	{
		account->name = copy_environment("AZURE_STORAGE_ACCOUNT");
		account->key = copy_environment("AZURE_STORAGE_KEY");
		account->sas = copy_environment("AZURE_STORAGE_SAS_TOKEN");
		if (account->name != NULL)
		{
			Buffer		endpoint = {NULL, 0, 0};

			buffer_printf(&endpoint, "https://%s.blob.core.windows.net", account->name);
			account->endpoint = endpoint.data;
		}
	}
	if (account->sas != NULL && account->sas[0] == '?')
		memmove(account->sas, account->sas + 1, strlen(account->sas));
	len = account->endpoint != NULL ? strlen(account->endpoint) : 0;
	if (len > 0 && account->endpoint[len - 1] == '/')
		account->endpoint[len - 1] = '\0';
}

/* Is this URL one of the account's own, however it is spelt? */
static bool
is_own(const Account *account, const char *url)
{
	Url			own;
	Url			other;
	size_t		len;
	bool		same;

	if (account->endpoint == NULL || !url_parse(account->endpoint, &own))
		return false;
	len = strlen(own.path);
	same = url_parse(url, &other);
	if (same)
	{
		same = own.tls == other.tls && own.port == other.port && strcasecmp(own.host, other.host) == 0 &&
			!other.user && strncmp(own.path, other.path, len) == 0 && other.path[len] == '/';
		url_free(&other);
	}
	url_free(&own);
	return same;
}

/* The bytes of the account's key; -1: it is no base64. */
static int
key_bytes(const Account *account, uint8_t *key, size_t size)
{
	size_t		len = strlen(account->key);
	int			count;

	if (len > size || (count = EVP_DecodeBlock(key, (const uint8_t *) account->key, (int) len)) < 0)
		return -1;
	/* the padding counts as bytes there */
	while (len > 0 && account->key[--len] == '=')
		count--;
	return count;
}

/* A URL may carry its own credentials, and a placeholder may become one. */
static bool
azure_lacks(Context *context, const char *command, char *why, size_t why_size)
{
	Account		account;
	uint8_t		key[KEY_MAX];
	bool		known;
	bool		usable;

	if (strncmp(command, "azure://", 8) != 0)
		return false;
	read_account(&account);
	known = account.endpoint != NULL;
	usable = account.sas != NULL || account.key == NULL || key_bytes(&account, key, sizeof(key)) >= 0;
	OPENSSL_cleanse(key, sizeof(key));
	account_free(&account);
	if (!known)
		snprintf(why, why_size, "set AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_ACCOUNT in the sidecar's environment");
	else if (!usable)
		snprintf(why, why_size, "the account's key in the sidecar's environment is no base64");
	return !known || !usable;
}

/* "azure://container/blob" becomes a URL of the account's endpoint. */
static bool
url_of_name(Call *call, const Account *account)
{
	const char *container = call->target.text.data + strlen("azure://");
	const char *blob = strchr(container, '/');
	Buffer		url = {NULL, 0, 0};

	call->target.lease_host = false;	/* the host is the account's */
	if (blob == NULL || blob == container || blob[1] == '\0')
	{
		snprintf(call->error, sizeof(call->error), "the target is no azure://container/blob");
		return false;
	}
	if (account->endpoint == NULL)
	{
		snprintf(call->error, sizeof(call->error), "neither AZURE_STORAGE_CONNECTION_STRING nor AZURE_STORAGE_ACCOUNT is set in the sidecar's environment");
		return false;
	}
	buffer_printf(&url, "%s/", account->endpoint);
	buffer_encoded(&url, container, strlen(container), "/");
	call->url = url.data;
	/* a shared access signature is not bound to the path */
	if (target_climbs(call->url))
	{
		snprintf(call->error, sizeof(call->error), "the blob's name has a \".\" or \"..\" segment");
		return false;
	}
	return true;
}

/* Is the target, before it is filled in, a name and not a URL? */
static bool
is_name_form(Call *call)
{
	bool		is_name;

	if (call->command[0] != '{')
		return strncmp(call->command, "azure://", 8) == 0;
	/* the beginning comes from the lease */
	is_name = call_expand(call, call->command, TARGET_NAME) &&
		strncmp(call->target.text.data, "azure://", 8) == 0;
	target_free(&call->target);
	return is_name;
}

static bool
azure_prepare(Context *context, Call *call)
{
	bool		name_form = is_name_form(call);
	Account		account;
	bool		valid;

	if (!call_expand(call, call->command, name_form ? TARGET_NAME : TARGET_BLOB_URL))
		return false;
	read_account(&account);
	valid = true;
	if (name_form)
		valid = url_of_name(call, &account);
	else
	{
		call->url = exec_strdup(call->target.text.data);
		call->url[strcspn(call->url, "#")] = '\0';	/* never sent, nor what is added behind it */
	}
	account_free(&account);
	call->method = "DELETE";
	if (valid && !transfer_split_url(call))
	{
		snprintf(call->error, sizeof(call->error), "the target is neither azure://container/blob nor a blob's URL");
		valid = false;
	}
	return valid;
}

typedef struct Parameter
{
	char	   *name;			/* decoded, in lower case */
	char	   *value;			/* decoded */
} Parameter;

static int
compare_parameters(const void *a, const void *b)
{
	const Parameter *first = a;
	const Parameter *second = b;
	int			order = strcmp(first->name, second->name);

	return order != 0 ? order : strcmp(first->value, second->value);
}

/* A decoded copy of a part of the query. */
static char *
decoded(const char *text, size_t len)
{
	char	   *plain = len > 0 ? curl_easy_unescape(NULL, text, (int) len, NULL) : NULL;
	char	   *copy = exec_strdup(plain != NULL ? plain : "");

	curl_free(plain);
	return copy;
}

/* "name=value&.." as the service puts it into what is signed: a line for each name, with its values. */
static void
add_canonical_query(Buffer *text, const char *query)
{
	Parameter  *parameters = NULL;
	int			count = 0;
	int			i;

	while (*query != '\0')
	{
		size_t		len = strcspn(query, "&");
		size_t		name_len = strcspn(query, "=&");
		Parameter	parameter;
		char	   *at;

		if (len > 0)
		{
			parameter.name = decoded(query, name_len);
			parameter.value = decoded(query + name_len + (name_len < len), len - name_len - (name_len < len));
			for (at = parameter.name; *at != '\0'; at++)
				*at = (char) tolower((unsigned char) *at);
			parameters = exec_realloc(parameters, ((size_t) count + 1) * sizeof(Parameter));
			parameters[count++] = parameter;
		}
		query += len + (query[len] == '&');
	}
	if (count > 0)
		qsort(parameters, (size_t) count, sizeof(Parameter), compare_parameters);
	for (i = 0; i < count; i++)
	{
		if (i > 0 && strcmp(parameters[i].name, parameters[i - 1].name) == 0)
			buffer_printf(text, ",%s", parameters[i].value);
		else
			buffer_printf(text, "\n%s:%s", parameters[i].name, parameters[i].value);
	}
	for (i = 0; i < count; i++)
	{
		free(parameters[i].name);
		free(parameters[i].value);
	}
	free(parameters);
}

/* Sign with the account's key; the value of the Authorization header.  The path is that of the URL, with its query. */
static bool
shared_key(const Account *account, const char *path, bool snapshots, const char *date, Buffer *header)
{
	size_t		path_len = strcspn(path, "?#");
	Buffer		text = {NULL, 0, 0};
	uint8_t		key[KEY_MAX];
	uint8_t		signature[32];
	uint8_t		base64[64];
	int			key_len = key_bytes(account, key, sizeof(key));
	bool		done;

	if (key_len < 0)
		return false;
	buffer_printf(&text, "DELETE\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:%s\n%sx-ms-version:" API_VERSION "\n/%s%.*s",
				  date, snapshots ? "x-ms-delete-snapshots:include\n" : "", account->name, (int) path_len, path);
	if (path[path_len] == '?')
		add_canonical_query(&text, path + path_len + 1);
	done = exec_hmac(key, (size_t) key_len, text.data, text.len, signature);
	if (done)
	{
		EVP_EncodeBlock(base64, signature, 32);
		buffer_printf(header, "Authorization: SharedKey %s:%s", account->name, (char *) base64);
	}
	OPENSSL_cleanse(key, sizeof(key));
	buffer_free(&text);
	return done;
}

/* Is there such a parameter in the URL's query? */
static bool
has_parameter(const char *url, const char *name)
{
	const char *at = strchr(url, '?');
	size_t		len = strlen(name);

	while (at != NULL)
	{
		at++;
		if (strncasecmp(at, name, len) == 0 && at[len] == '=')
			return true;
		at = strchr(at, '&');
	}
	return false;
}

/* Add what proves that we may: a header, or the SAS in the URL.  A URL that is signed has its own. */
static bool
add_proof(Call *call, const Account *account, bool snapshots, const char *date)
{
	const char *path = strstr(call->url, "://") + 3;
	Buffer		text = {NULL, 0, 0};
	bool		done = true;

	path += strcspn(path, "/");
	if (!is_own(account, call->url) || has_parameter(call->url, "sig"))
		return true;
	if (account->sas != NULL)
	{
		buffer_printf(&text, "%s%c%s", call->url, strchr(call->url, '?') != NULL ? '&' : '?', account->sas);
		free(call->url);
		call->url = text.data;
		return true;
	}
	if (account->key == NULL)
		return true;
	done = shared_key(account, path, snapshots, date, &text);
	if (done)
		call->headers = exec_header(call->headers, text.data);
	buffer_free(&text);
	return done;
}

static bool
azure_start(Context *context, Call *call)
{
	time_t		now = time(NULL);
	struct tm	utc;
	char		date[40];
	char		line[60];
	/* a URL that names one snapshot or version means that one: with the header the service refuses it */
	bool		snapshots = !has_parameter(call->url, "snapshot") && !has_parameter(call->url, "versionid");
	Account		account;
	bool		done;

	gmtime_r(&now, &utc);
	strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S GMT", &utc);
	snprintf(line, sizeof(line), "x-ms-date: %s", date);
	call->headers = exec_header(call->headers, line);
	call->headers = exec_header(call->headers, "x-ms-version: " API_VERSION);
	if (snapshots)
		call->headers = exec_header(call->headers, "x-ms-delete-snapshots: include");
	read_account(&account);
	done = add_proof(call, &account, snapshots, date);
	account_free(&account);
	if (!done)
		snprintf(call->error, sizeof(call->error), "could not sign the request: the account's key is no base64");
	return done;
}

/* Of all that is not found only the blob itself is what was to be deleted. */
static bool
azure_judge(Context *context, Call *call, long status)
{
	const char *code = call->error_code != NULL ? call->error_code : "";

	if ((status >= 200 && status < 300 && code[0] == '\0') || (status == 404 && strcmp(code, "BlobNotFound") == 0))
		return true;
	snprintf(call->error, sizeof(call->error), "DELETE on %.150s port %d: status %ld%s%.60s%s%.150s", call->host_name, call->port,
			 status, code[0] != '\0' ? " " : "", code,
			 call->answer.len > 0 ? ": " : "", call->answer.len > 0 ? call->answer.data : "");
	return false;
}

const ExecutorOps azure_ops = {azure_prepare, azure_start, azure_judge, NULL, azure_lacks, "https://1/1/1"};
