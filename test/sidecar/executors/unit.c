/*
 * unit.c
 *		The executors' functions without I/O: targets, the allow-list,
 *		signatures, redis' replies, files.
 *
 * Prints what differs; exits 1 then.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "executors/allow.h"
#include "executors/calls.h"
#include "executors/check.h"
#include "executors/context.h"
#include "executors/documents.h"
#include "executors/executors.h"
#include "executors/file.h"
#include "executors/hosts.h"
#include "executors/kinds.h"
#include "executors/redis.h"
#include "executors/s3.h"
#include "executors/target.h"
#include "executors/util.h"

static int	checks;
static int	failures;

static void
check(bool good, const char *what)
{
	checks++;
	if (good)
		return;
	failures++;
	printf("not ok: %s\n", what);
}

static void
check_text(const char *got, const char *expected, const char *what)
{
	checks++;
	if (strcmp(got, expected) == 0)
		return;
	failures++;
	printf("not ok: %s: got \"%s\", expected \"%s\"\n", what, got, expected);
}

/* --- targets --- */

static Pair scalars[] = {
	{"url", "http://h.example:81/a?b=c"},
	{"host", "h.example"},
	{"evil_host", "h.example/@other"},
	{"db", "3"},
	{"evil_db", "0/other"},
	{"bytes", "\x01 \"%/?#[]@!$&'()*+,;=\xc3\xa9"},
	{"dots", ".."},
	{"climb", "../../x"},
	{"backslash", "..\\prod"},
	{"tail", "a/.."},
	{"parameter", "..;/prod"},
	{"encoded", "%2e%2e%2Fx"},
	{"space", "http://h.example/ x"},
	{"empty", ""},
	{"bucket", "b-1.x"},
	{"evil_bucket", "b/../c"},
};

static void
expand(const char *template, TargetForm form, const char *expected, bool lease_host)
{
	TargetValues values = {"a/b c", "custom", "11111111-2222-7333-8444-555555555555", "svc/1", scalars,
	sizeof(scalars) / sizeof(scalars[0])};
	Target		target;
	char		error[EXEC_ERROR_SIZE] = "";
	bool		good = target_expand(template, form, &values, &target, error, sizeof(error));

	if (expected == NULL)
	{
		check(!good && error[0] != '\0', template);
	}
	else
	{
		check_text(good ? target.text.data : error, expected, template);
		check(!good || target.lease_host == lease_host, template);
	}
	target_free(&target);
}

static void
head(const char *template, const char *expected)
{
	TargetValues values = {"a/b c", "custom", "11111111-2222-7333-8444-555555555555", "svc/1", scalars,
	sizeof(scalars) / sizeof(scalars[0])};
	Buffer		got = {NULL, 0, 0};

	target_head(template, &values, &got);
	check_text(got.data, expected, template);
	buffer_free(&got);
}

static void
test_targets(void)
{
	head("{payload.url}", "http://h.example:81");
	head("DELETE {payload.url}&id={object_id}", "DELETE http://h.example:81");
	head("https://{payload.host}:8443/{lease_id}", "https://h.example:8443");
	head("https://{payload.host}", "https://h.example");
	head("redis://{payload.host}:6379/{payload.db}/{object_id}", "redis://h.example:6379");
	head("{object_id}/{payload.absent}", "a/b c/");
	head("http://x{object", "http://x");
	expand("http://x/{object_id}/{service_id}?t={object_type}", TARGET_URL, "http://x/a%2Fb%20c/svc%2F1?t=custom", false);
	expand("{payload.url}", TARGET_URL, "http://h.example:81/a?b=c", true);
	expand("{payload.url}&id={object_id}", TARGET_URL, "http://h.example:81/a?b=c&id=a%2Fb%20c", true);
	expand("https://{payload.host}:8443/{lease_id}", TARGET_URL,
		   "https://h.example:8443/11111111-2222-7333-8444-555555555555", true);
	expand("https://{payload.evil_host}/", TARGET_URL, NULL, false);
	expand("http://x/{payload.bytes}", TARGET_URL,
		   "http://x/%01%20%22%25%2F%3F%23%5B%5D%40%21%24%26%27%28%29%2A%2B%2C%3B%3D%C3%A9", false);
	expand("http://x/{payload.dots}", TARGET_URL, NULL, false);
	expand("http://x/.{payload.dots}", TARGET_URL, "http://x/...", false);
	expand("http://x/{payload.climb}", TARGET_URL, NULL, false);
	expand("http://x/a{payload.climb}", TARGET_URL, NULL, false);
	expand("http://x/{payload.backslash}", TARGET_URL, NULL, false);
	expand("http://x/{payload.tail}", TARGET_URL, NULL, false);
	expand("http://x/{payload.parameter}", TARGET_URL, NULL, false);
	expand("http://x/a/.{payload.parameter}", TARGET_URL, "http://x/a/...%3B%2Fprod", false);
	expand("http://x/{payload.tail}x", TARGET_URL, "http://x/a%2F..x", false);
	expand("http://x/{payload.encoded}", TARGET_URL, "http://x/%252e%252e%252Fx", false);
	expand("http://x/?p={payload.climb}", TARGET_URL, "http://x/?p=..%2F..%2Fx", false);
	expand("http://x/a/{payload.climb}", TARGET_BLOB_URL, NULL, false);
	expand("http://x/c/{object_id}", TARGET_BLOB_URL, "http://x/c/a/b%20c", false);
	expand("{payload.space}", TARGET_URL, NULL, false);
	expand("{payload.empty}", TARGET_URL, NULL, false);
	expand("{payload.absent}", TARGET_URL, NULL, false);
	expand("http://x/{object}", TARGET_URL, NULL, false);
	expand("http://x/{payload.}", TARGET_URL, NULL, false);
	expand("http://x/{object_id", TARGET_URL, NULL, false);
	expand("http://x/{{object_id}}", TARGET_URL, NULL, false);
	expand("ht{object_type}://x/", TARGET_URL, NULL, false);
	expand("s3://bucket/x/{object_id}", TARGET_NAME, "s3://bucket/x/a/b c", false);
	expand("s3://{payload.bucket}/k?{payload.bytes}", TARGET_NAME,
		   "s3://b-1.x/k?\x01 \"%/?#[]@!$&'()*+,;=\xc3\xa9", true);
	expand("s3://{payload.evil_bucket}/k", TARGET_NAME, NULL, false);
	expand("redis://h:1/{payload.db}/k:{object_id}", TARGET_REDIS, "redis://h:1/3/k:a/b c", false);
	expand("redis://h:1/{payload.evil_db}/k", TARGET_REDIS, NULL, false);
	expand("redis://{payload.host}/0/k", TARGET_REDIS, "redis://h.example/0/k", true);
	expand("{object_id}/{payload.dots}", TARGET_FILE, "a/b c/..", false);
}

/* --- the allow-list --- */

static void
url(const AllowList *list, const char *text, bool expected)
{
	char		error[EXEC_ERROR_SIZE] = "";

	check(executors_judge_url(EXEC_HTTP, list, text, error, sizeof(error)) == expected, text);
	check(expected || error[0] != '\0', text);
}

static void
address(const AllowList *list, const char *host, const char *ip, bool expected)
{
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	const struct sockaddr *socket_address = (const struct sockaddr *) &v4;
	char		what[200];

	memset(&v4, 0, sizeof(v4));
	memset(&v6, 0, sizeof(v6));
	v4.sin_family = AF_INET;
	v6.sin6_family = AF_INET6;
	if (inet_pton(AF_INET, ip, &v4.sin_addr) != 1)
	{
		check(inet_pton(AF_INET6, ip, &v6.sin6_addr) == 1, ip);
		socket_address = (const struct sockaddr *) &v6;
	}
	snprintf(what, sizeof(what), "%s at %s", host, ip);
	check(allow_address(list, host, 80, socket_address, true) == expected, what);
}

static void
test_allow(void)
{
	AllowList  *none = allow_create();
	AllowList  *names = allow_create();
	AllowList  *all = allow_create();
	AllowList  *local = allow_create();
	char		error[EXEC_ERROR_SIZE];

	check(allow_add(names, "api.example.com", error, sizeof(error)), "add");
	check(allow_add(names, "*.Internal.example:8080", error, sizeof(error)), "add");
	check(allow_add(names, "10.1.0.0/16", error, sizeof(error)), "add");
	check(allow_add(names, "[2001:db8::]/32:443", error, sizeof(error)), "add");
	check(allow_add(names, "2001:db9::1", error, sizeof(error)), "add");
	check(allow_add(all, "0.0.0.0/0", error, sizeof(error)), "add");
	check(allow_add(all, "::/0", error, sizeof(error)), "add");
	check(allow_add(all, "evil.example", error, sizeof(error)), "add");
	check(allow_add(local, "localhost:8000", error, sizeof(error)), "add");
	check(allow_add(local, "127.0.0.1", error, sizeof(error)), "add");
	check(!allow_add(names, "", error, sizeof(error)), "add nothing");
	check(!allow_add(names, "*", error, sizeof(error)), "add *");
	check(!allow_add(names, "http://x", error, sizeof(error)), "add a URL");
	check(!allow_add(names, "x:0", error, sizeof(error)), "add port 0");
	check(!allow_add(names, "x:99999", error, sizeof(error)), "add a large port");
	check(!allow_add(names, "10.0.0.0/33", error, sizeof(error)), "add a long prefix");
	check(!allow_add(names, "2130706433", error, sizeof(error)), "add a number");

	url(NULL, "http://api.example.com/", false);
	url(none, "http://api.example.com/", false);
	url(names, "http://api.example.com/", true);
	url(names, "https://API.example.com.:9/x?y", true);
	url(names, "http://api.example.com@evil.example/", false);
	url(names, "http://api.example.com.evil.example/", false);
	url(names, "http://xapi.example.com/", false);
	url(names, "http://a.internal.example:8080/", true);
	url(names, "http://a.b.internal.example:8080/", true);
	url(names, "http://internal.example:8080/", false);
	url(names, "http://a.internal.example/", false);
	url(names, "http://10.1.2.3/", true);
	url(names, "http://10.2.2.3/", false);
	url(names, "http://167838211/", true);	/* 10.1.2.3 */
	url(names, "http://[2001:db8::5]:443/", true);
	url(names, "http://[2001:db8::5]/", false);
	url(names, "http://[2001:db9::1]/", true);
	url(names, "ftp://api.example.com/", false);
	url(names, "file:///etc/passwd", false);
	url(names, "api.example.com", false);
	url(names, "", false);
	url(all, "http://8.8.8.8/", true);
	url(all, "http://127.0.0.1/", false);
	url(all, "http://127.1/", false);
	url(all, "http://2130706433/", false);
	url(all, "http://0x7f000001/", false);
	url(all, "http://0177.0.0.1/", false);
	url(all, "http://0/", false);
	url(all, "http://0.0.0.0/", false);
	url(all, "http://localhost/", false);
	url(all, "http://[::1]/", false);
	url(all, "http://[::]/", false);
	url(all, "http://[::ffff:127.0.0.1]/", false);
	url(all, "http://[::ffff:7f00:1]/", false);
	url(all, "http://[::127.0.0.1]/", false);
	url(all, "http://[64:ff9b::7f00:1]/", false);
	url(all, "http://[2002:7f00:1::]/", false);
	url(all, "http://169.254.169.254/latest/meta-data", false);
	url(all, "http://[::ffff:169.254.169.254]/", false);
	url(all, "http://[64:ff9b::a9fe:a9fe]/", false);
	url(all, "http://[fe80::1]/", false);
	url(all, "http://[fe80::1%25eth0]/", false);
	url(all, "http://[fd00:ec2::254]/", false);
	url(all, "http://100.100.100.200/", false);
	url(all, "http://2852039166/", false);	/* 169.254.169.254 */
	url(local, "http://localhost:8000/", true);
	url(local, "http://LocalHost:8000/", true);
	url(local, "http://localhost/", false);
	url(local, "http://127.0.0.1:5/", true);
	url(local, "http://127.0.0.2:5/", false);
	url(local, "http://[::ffff:127.0.0.1]:5/", true);

	address(names, "api.example.com", "10.9.9.9", true);
	address(names, "api.example.com", "127.0.0.1", false);
	address(names, "api.example.com", "::1", false);
	address(names, "api.example.com", "::ffff:127.0.0.1", false);
	address(names, "api.example.com", "169.254.169.254", false);
	address(names, "api.example.com", "fe80::1", false);
	address(names, "other.example.com", "10.1.1.1", false);
	address(all, "evil.example", "0.0.0.0", false);
	address(all, "evil.example", "8.8.4.4", true);
	address(all, "evil.example", "2001:0:808:808:0:0:f7f7:fbfb", true);	/* Teredo, of 8.8.4.4 */
	address(all, "evil.example", "2001:0:808:808:0:0:80ff:fffe", false);	/* of 127.0.0.1 */
	address(all, "evil.example", "2001:0:808:808:0:0:5601:5601", false);	/* of 169.254.169.254 */
	address(all, "evil.example", "2001:db8::5efe:8.8.4.4", true);	/* ISATAP */
	address(all, "evil.example", "2001:db8::5efe:127.0.0.1", false);
	address(all, "evil.example", "2001:db8::200:5efe:169.254.169.254", false);
	check(allow_add(local, "named.example", error, sizeof(error)), "add");
	address(local, "named.example", "127.0.0.1", true);
	address(local, "named.example", "127.0.0.2", false);
	allow_free(none);
	allow_free(names);
	allow_free(all);
	allow_free(local);
}

/* --- signatures: the vectors in the service's documentation --- */

static void
test_signature(void)
{
	S3Request	request = {
		"GET", "lifecycle=", "examplebucket.s3.amazonaws.com", "/", "us-east-1", "AKIAIOSFODNN7EXAMPLE",
		"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", NULL, "20130524T000000Z"
	};
	Buffer		header = {NULL, 0, 0};

	check(s3_sign(&request, &header), "sign");
	check_text(strstr(header.data, "Signature="), "Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
			   "GET ?lifecycle");
	header.len = 0;
	request.query = "max-keys=2&prefix=J";
	check(s3_sign(&request, &header), "sign");
	check_text(strstr(header.data, "Signature="), "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
			   "GET with two parameters");
	buffer_free(&header);
}

static void
error_code(const char *text, const char *expected)
{
	Buffer		code = {NULL, 0, 0};

	check(xml_value(text, strlen(text), "Error/Code", &code) == (expected != NULL), text);
	if (expected != NULL)
		check_text(code.data, expected, text);
	buffer_free(&code);
}

static void
member(const char *text, const char *expected)
{
	Buffer		value = {NULL, 0, 0};

	check(json_value(text, strlen(text), "a", &value) == (expected != NULL), text);
	if (expected != NULL)
		check_text(value.data, expected, text);
	buffer_free(&value);
}

static void
test_members(void)
{
	member("{\"a\": \"x\"}", "x");
	member(" {\"b\":{\"a\":\"no\"},\"c\":[\"a\",{\"a\":\"no\"},1,-2.5e3,true,null,[],{}],\"a\":\"yes\"} ", "yes");
	member("{\"b\": \"\\\"a\\\": \\\"no\", \"\\u0061\": \"\\u00e9\\ud83d\\ude00\\n\\/\"}", "\xc3\xa9\xf0\x9f\x98\x80\n/");
	member("{\"a\": \"\"}", "");
	member("{\"a\": 1}", NULL);
	member("{\"a\": null, \"b\": \"a\"}", NULL);
	member("[\"a\", \"x\"]", NULL);
	member("{\"a\": \"x\"} x", NULL);
	member("{\"a\": \"x\"", NULL);
	member("{\"a\": \"\\u0000\"}", NULL);
	member("{\"a\": \"\\ud800\"}", NULL);
	member("{\"a\": \"x\ny\"}", NULL);
	member("{", NULL);
	member("{\"a\"", NULL);
	member("{\"a\": \"\\", NULL);
	member("{a: \"x\"}", NULL);
	member("", NULL);
}

static void
test_rates(void)
{
	Context		context = {0};
	Host		host = {0};

	context.settings.max_in_flight = context.settings.max_per_host = 1;
	host.limit = 1;
	check(host_rate(&host) > 0 && host_room(&context, &host) > 0, "of a host that is not known");
	host_answered(&context, &host, 60000);
	check(host_rate(&host) == 1 && host_room(&context, &host) == 2 && host_back_off(&host) > 0, "of a host that takes a minute");
	host_answered(&context, &host, 0);
	check(host_rate(&host) > 0 && host_limit(&context, &host) == 1, "of one that answers at once");
}

/* However many calls are for hosts of one rank, those of the others find places. */
static void
test_places(void)
{
	int			rank;
	int			other;

	for (rank = 0; rank < HOST_RANKS; rank++)
	{
		Context		context = {0};

		context.settings.max_in_flight = 256;
		while (host_has_place(&context, (HostRank) rank))
		{
			context.of_rank[rank]++;
			context.in_flight++;
		}
		for (other = 0; other < HOST_RANKS; other++)
			check(context.in_flight >= 128 && (other == rank || host_has_place(&context, (HostRank) other)), "beside a rank that has all it may");
	}
}

/* Hosts that answered at once, and hang now, do not take all the room there is for what waits. */
static void
test_room(void)
{
	Context		context = {0};
	Host		hosts[20];
	int			i;

	memset(hosts, 0, sizeof(hosts));
	context.settings.max_per_host = 16;
	for (i = 0; i < 20; i++)
	{
		hosts[i].limit = 16;
		host_answered(&context, &hosts[i], 0);
		while (hosts[i].waiting.count < host_room(&context, &hosts[i]))
		{
			hosts[i].waiting.count++;
			context.waiting++;
		}
	}
	check(hosts[0].waiting.count > 400 && context.waiting < MAX_WAITING, "beside hosts that have all they may");
}

static void
test_silence(void)
{
	Context		context = {0};
	Host		host = {0};

	context.settings.max_in_flight = 256;
	context.settings.max_per_host = 16;
	host.limit = 4;
	check(host_rank(&host) == HOST_NEW, "of a host that was not tried");
	host.unanswered = 1;
	check(host_rank(&host) == HOST_SILENT, "of one that has never answered");
	host_answered(&context, &host, 1);
	check(host_rank(&host) == HOST_QUICK, "of one that has");
	host.answered_at -= 30000;
	host.unanswered = 3;
	check(host_rank(&host) == HOST_QUICK, "of one that answered when it was asked, but for some");
	host.unanswered = host.hanging = host.in_flight = 8;
	context.in_flight = 200;
	check(host_rank(&host) == HOST_SILENT, "of one that does not any more");
	check(host_limit(&context, &host) > 8, "there is a place for the next try beside those that hang");
	host_answered(&context, &host, 20000);
	check(host_rank(&host) == HOST_SLOW, "of one that took long");
}

static void
command(ExecutorKind kind, const char *text, bool expected)
{
	Context		context = {0};
	char		error[EXEC_ERROR_SIZE] = "";

	context.settings.file_root = "/srv/tmp";
	check(target_is_possible(&context, kind, text, error, sizeof(error)) == expected, text);
	check(expected || error[0] != '\0', text);
}

static void
test_commands(void)
{
	/* what others would take for another host, or for none, than libcurl does */
	static const char *const odd[] = {
		"http:/h/x", "https:/h/c/b", "http:///h/x", "http:////h/x", "http:h/x", "//h/x", "h/x", "http://h\\@h/x", "http:\\\\h/x",
		"http://h\\x@h/", "http://x\\@h/", "http://h:1x/", "http://h:0/", "http://h:65536/", "http://h%00/", "http://h%09/",
		"http://h\t/", "http://h@x@h/", "http://h:1:1/", "http://[h]/", "http://[::1]h/", "http://h../", "http://\xef\xbd\x88/",
	};
	size_t		i;
	char		error[EXEC_ERROR_SIZE];
	AllowList  *list = allow_create();

	command(EXEC_HTTP, "{payload.url}", true);
	command(EXEC_HTTP, "DELETE {payload.url}", true);
	command(EXEC_HTTP, "{payload.base}/x", true);
	command(EXEC_HTTP, "http://[{payload.v6}]:{payload.port}/{object_id}", true);
	command(EXEC_HTTP, "DELETE http://10.0.{payload.n}.1:80/{payload.a}?{payload.b}", true);
	command(EXEC_HTTP, "http://h/{nokey}", false);
	command(EXEC_HTTP, "{nokey}", false);
	command(EXEC_HTTP, "{payload.url}{nokey}", false);
	command(EXEC_HTTP, "http://h/{object_id", false);
	command(EXEC_HTTP, "REMOVE http://h/", false);
	command(EXEC_HTTP, "ftp://h/", false);
	command(EXEC_HTTP, "nonsense", false);
	command(EXEC_HTTP, "http://h/../{object_id}", false);
	command(EXEC_GRPC, "http://{payload.host}", true);
	command(EXEC_GRPC, "{payload.url}", true);
	command(EXEC_GRPC, "{payload.scheme}://h:1", true);
	command(EXEC_GRPC, "http://h:1/path", false);
	command(EXEC_GRPC, "grpc://h:1", false);
	command(EXEC_S3, "s3://b/{object_id}", true);
	command(EXEC_S3, "s3://{payload.bucket}/{payload.key}", true);
	command(EXEC_S3, "s3://b", false);
	command(EXEC_S3, "nonsense", false);
	command(EXEC_S3, "s3://../{object_id}", false);
	command(EXEC_S3, "s3://./{object_id}", false);
	command(EXEC_FILE, "{payload.dir}/{object_id}", true);
	command(EXEC_FILE, "/srv/tmp/{object_id}", true);
	command(EXEC_FILE, "/elsewhere/{object_id}", false);
	command(EXEC_FILE, "a/../{object_id}", false);
	command(EXEC_FILE, "a/{nokey}", false);
	command(EXEC_REDIS, "redis://{payload.host}:{payload.port}/{payload.db}/{object_id}", true);
	command(EXEC_REDIS, "redis://[{payload.v6}]/0/{object_id}", true);
	command(EXEC_REDIS, "redis://h/{object_id}", false);
	command(EXEC_REDIS, "redis://u:p@{payload.host}/0/k", false);
	command(EXEC_AZURE_BLOB, "https://{payload.account}.blob.example/c/{object_id}", true);
	command(EXEC_AZURE_BLOB, "c/{object_id}", false);

	allow_add(list, "h", error, sizeof(error));
	check(executors_judge_url(EXEC_GRPC, list, "http://h:1", error, sizeof(error)), "a host and its port");
	check(!executors_judge_url(EXEC_GRPC, list, "http://h:1/x", error, sizeof(error)), "a path");
	check(!executors_judge_url(EXEC_GRPC, list, "grpc://h:1", error, sizeof(error)), "another scheme");
	check(executors_judge_url(EXEC_HTTP, list, "http://h:1/x", error, sizeof(error)), "http with a path");
	check(!executors_judge_url(EXEC_HTTP, list, "http://i/", error, sizeof(error)) && strstr(error, "--allow-target") != NULL, "another host");
	check(!executors_judge_url(EXEC_HTTP, list, "http://h/ x", error, sizeof(error)), "a space");
	for (i = 0; i < sizeof(odd) / sizeof(odd[0]); i++)
	{
		check(!executors_judge_url(EXEC_HTTP, list, odd[i], error, sizeof(error)), odd[i]);
		check(!executors_judge_url(EXEC_GRPC, list, odd[i], error, sizeof(error)), odd[i]);
		check(!executors_judge_url(EXEC_AZURE_BLOB, list, odd[i], error, sizeof(error)), odd[i]);
	}
	allow_free(list);
}

static void
test_error_codes(void)
{
	error_code("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code><Message>x</Message></Error>", "NoSuchKey");
	error_code("\xef\xbb\xbf<!-- <Code>no</Code> --><Error xmlns=\"a\">\n <Message/><Key>&lt;Code&gt;x</Key>\n<Code>NoSuchBucket</Code></Error>", "NoSuchBucket");
	error_code("<Error><Key>NoSuchKey</Key></Error>", NULL);
	error_code("<Error a='>' b = \"<Code>\" ><Inner><Code>no</Code></Inner><Code><![CDATA[<a>]]>&amp;&#233;&#x20;</Code></Error>", "<a>&\xc3\xa9 ");
	error_code("<Error><Code>a<b/>c</Code></Error>", NULL);
	error_code("<Error></Error><Error><Code>NoSuchKey</Code></Error>", NULL);
	error_code("<!DOCTYPE Error><Error><Code>NoSuchKey</Code></Error>", NULL);
	error_code("<Error><Key></Error><Code>NoSuchKey</Code></Key></Error>", NULL);
	error_code("<Error><Code>&", NULL);
	error_code("<Error><Code>&unknown;</Code></Error>", NULL);
	error_code("<Error><Inner><Code>NoSuchKey</Code></Inner></Error>", NULL);
	error_code("<html><Code>NoSuchKey</Code></html>", NULL);
	error_code("<Errors><Code>NoSuchKey</Code></Errors>", NULL);
	error_code("<Error><Code>NoSuchKey", NULL);
	error_code("<Error", NULL);
	error_code("<Error/>", NULL);
	error_code("404 page not found: NoSuchKey", NULL);
	error_code("", NULL);
}

/* --- webhooks: the example in the specification's documentation --- */

static void
test_webhooks(void)
{
	static const char body[] = "{\"test\": 2432232314}";
	Buffer		signature = {NULL, 0, 0};

	check(http_sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body, strlen(body), &signature), "sign");
	check_text(signature.data, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", "a webhook's signature");
	signature.len = 0;
	check(http_sign("one two", "i", "1", "", 0, &signature) && strchr(signature.data, ' ') != NULL, "two secrets");
	signature.len = 0;
	check(!http_sign("whsec_%%%%", "i", "1", "", 0, &signature), "no base64");
	signature.len = 0;
	check(!http_sign(" ", "i", "1", "", 0, &signature), "no secret");
	buffer_free(&signature);
	check(http_retry_after("120", 0) == 120000, "seconds");
	check(http_retry_after("Fri, 31 Dec 1999 23:59:59 GMT", 946684799 - 60) == 60000, "a date");
	check(http_retry_after("Fri, 31 Dec 1999 23:59:59 GMT", 946684800) == 0, "a date in the past");
	check(http_retry_after("99999999999999999999", 0) == 24 * 3600 * 1000, "very long");
	check(http_retry_after("-1", 5) == 0 && http_retry_after("soon", 5) == 0 && http_retry_after(NULL, 5) == 0, "nothing");
}

/* --- redis --- */

static void
reply(const char *text, int len, char type, int64_t integer)
{
	RedisReply	parsed = {0, NULL, 0, 0};
	int			got = redis_parse(text, strlen(text), &parsed);

	check(got == len, text);
	if (got > 0)
		check(parsed.type == type && parsed.integer == integer, text);
}

static void
test_redis(void)
{
	reply("+OK\r\n", 5, '+', 0);
	reply("-ERR no\r\n", 9, '-', 0);
	reply(":1\r\nrest", 4, ':', 1);
	reply("$3\r\nabc\r\n", 9, '$', 3);
	reply("$-1\r\n", 5, '$', -1);
	reply("$3\r\nab", 0, 0, 0);
	reply("$3\r\nabcde", -1, 0, 0);
	reply(":1", 0, 0, 0);
	reply("", 0, 0, 0);
	reply(":x\r\n", -1, 0, 0);
	reply(":\r\n", -1, 0, 0);
	reply(":99999999999999999999999\r\n", -1, 0, 0);
	reply(":1\n", -1, 0, 0);
	reply("*1\r\n", -1, 0, 0);
	reply("HTTP/1.1 400 Bad Request\r\n", -1, 0, 0);
	reply("$-2\r\n", -1, 0, 0);
	reply("$999999\r\n", -1, 0, 0);
}

/* --- files --- */

static bool
removes(const char *root, const char *path)
{
	char		error[EXEC_ERROR_SIZE];
	Buffer		mounts = {NULL, 0, 0};
	bool		removed = file_remove(root, &mounts, path, error, sizeof(error));

	buffer_free(&mounts);
	return removed;
}

static void
make(const char *directory, const char *path)
{
	char		name[500];
	int			fd;

	snprintf(name, sizeof(name), "%s/%s", directory, path);
	fd = open(name, O_CREAT | O_WRONLY, 0600);
	check(fd >= 0, path);
	close(fd);
}

static bool
exists(const char *directory, const char *path)
{
	char		name[500];
	struct stat info;

	snprintf(name, sizeof(name), "%s/%s", directory, path);
	return lstat(name, &info) == 0;
}

static void
test_files(const char *top)
{
	char		root[300];
	char		text[500];
	char		target[400];

	snprintf(root, sizeof(root), "%s/root", top);
	mkdir(root, 0700);
	snprintf(text, sizeof(text), "%s/dir", root);
	mkdir(text, 0700);
	make(top, "outside");
	make(root, "a");
	make(root, "dir/b");
	make(root, "c d\n");
	snprintf(text, sizeof(text), "%s/up", root);
	check(symlink("..", text) == 0, "symlink");
	snprintf(text, sizeof(text), "%s/inner", root);
	check(symlink("dir", text) == 0, "symlink");
	snprintf(text, sizeof(text), "%s/link", root);
	snprintf(target, sizeof(target), "%s/outside", top);
	check(symlink(target, text) == 0, "symlink");

	check(!removes(root, "../outside"), "..");
	check(!removes(root, "dir/../../outside"), "inner ..");
	check(!removes(root, "up/outside"), "a link upwards");
	check(!removes(root, "inner/b"), "a link to a directory");
	check(!removes(root, target), "an absolute path elsewhere");
	check(!removes(root, "dir"), "a directory");
	check(!removes(root, "dir/"), "a directory with a slash");
	check(!removes(root, "."), ".");
	check(!removes(root, ""), "nothing");
	check(!removes(root, "/"), "the root");
	check(!removes(root, "a/b"), "a file as a directory");
	check(exists(top, "outside") && exists(root, "dir/b") && exists(root, "a"), "nothing was removed");
	check(removes(root, "link") && !exists(root, "link") && exists(top, "outside"), "the link itself");
	check(removes(root, "a") && !exists(root, "a"), "a file");
	check(removes(root, "a"), "a file that is gone");
	check(!removes(root, "no/such/file"), "a directory that is not there");
	check(removes(root, "dir/none"), "a file that never was");
	check(removes(root, "c d\n") && !exists(root, "c d\n"), "an odd name");
	snprintf(text, sizeof(text), "%s/dir/b", root);
	check(removes(root, text) && !exists(root, "dir/b"), "an absolute path beneath the root");
	snprintf(text, sizeof(text), "%sx", root);
	check(!removes(text, "a"), "a root that is not there");
	snprintf(target, sizeof(target), "%s/root-other", top);
	mkdir(target, 0700);
	make(target, "f");
	snprintf(text, sizeof(text), "%s/f", target);
	check(!removes(root, text), "a path that only begins like the root");
}

static void
test_texts(void)
{
	char		text[] = "a\x01\xff\xc3\xa9\xe2\x82";
	Pair	   *pairs;
	int			count;

	exec_sanitize(text, 100);
	check_text(text, "a ?\xc3\xa9", "sanitize, and leave out half a character at the end");
	exec_sanitize(text, 4);
	check_text(text, "a ?", "sanitize to a length");
	count = pairs_parse("a=b%2Cc%3D%25,c=", &pairs);
	check(count == 2 && strcmp(pairs[0].value, "b,c=%") == 0 && pairs[1].value[0] == '\0', "pairs");
	pairs_free(pairs, count);
	check(pairs_parse("a=%4", &pairs) == 0 && pairs_parse("a", &pairs) == 0 && pairs_parse("a=b=c", &pairs) == 0 &&
		  pairs_parse("%xx=b", &pairs) == 0 && pairs_parse(NULL, &pairs) == 0, "no pairs");
}

int
main(int argc, char **argv)
{
	test_targets();
	test_allow();
	test_signature();
	test_error_codes();
	test_members();
	test_commands();
	test_rates();
	test_places();
	test_room();
	test_silence();
	test_webhooks();
	test_redis();
	test_files(argv[1]);
	test_texts();
	printf("%d checks, %d failed\n", checks, failures);
	return failures > 0;
}
