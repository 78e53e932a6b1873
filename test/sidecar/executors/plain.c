/*
 * plain.c
 *		What libcurl alone makes of the same calls, for comparison: POSTs to one
 *		URL, so many at once, each handle used again.
 *
 * plain URL COUNT AT_ONCE: prints the calls a second.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <curl/curl.h>

static size_t
ignore(char *data, size_t size, size_t count, void *arg)
{
	return size * count;
}

static double
seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double) now.tv_sec + (double) now.tv_nsec / 1e9;
}

int
main(int argc, char **argv)
{
	static char body[400];
	CURLM	   *multi = curl_multi_init();
	int			count = argc == 4 ? atoi(argv[2]) : 0;
	int			at_once = argc == 4 ? atoi(argv[3]) : 0;
	int			begun = 0;
	int			done = 0;
	int			good = 0;
	double		start = seconds();
	struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");

	if (count <= 0 || at_once <= 0)
		return 2;
	headers = curl_slist_append(headers, "Expect:");
	memset(body, 'x', sizeof(body) - 1);
	for (; begun < at_once && begun < count; begun++)
	{
		CURL	   *easy = curl_easy_init();

		curl_easy_setopt(easy, CURLOPT_URL, argv[1]);
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
		curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
		curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, ignore);
		curl_multi_add_handle(multi, easy);
	}
	while (done < begun)
	{
		CURLMsg    *message;
		int			running;

		curl_multi_perform(multi, &running);
		while ((message = curl_multi_info_read(multi, &running)) != NULL)
		{
			CURL	   *easy = message->easy_handle;
			long		status = 0;

			curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
			good += status >= 200 && status < 300;
			done++;
			curl_multi_remove_handle(multi, easy);
			if (begun < count && ++begun)
				curl_multi_add_handle(multi, easy);
			else
				curl_easy_cleanup(easy);
		}
		curl_multi_poll(multi, NULL, 0, 100, NULL);
	}
	printf("%.0f\n", good / (seconds() - start));
	curl_slist_free_all(headers);
	curl_multi_cleanup(multi);
	return good != count;
}
