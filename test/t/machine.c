/*
 * machine.c
 *		Preloaded into a server by machine.pl: its system clock is off, and a disk is full, as the file $GT_MACHINE says.
 *
 * The file is mapped, so that a change of it is one for all processes at once.  Full means that no file whose path has
 * this part can grow; what is there already can be written.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static struct Machine
{
	int64_t		ahead;			/* seconds */
	char		full[56];		/* part of a path; "": there is room */
}			none, *machine = &none;

static int	(*real_gettimeofday) (struct timeval *tv, void *tz);
static int	(*real_clock_gettime) (clockid_t clock, struct timespec *ts);
static ssize_t (*real_pwrite) (int fd, const void *data, size_t size, off_t offset);
static ssize_t (*real_pwritev) (int fd, const struct iovec *iov, int n, off_t offset);
static int	(*real_posix_fallocate) (int fd, off_t offset, off_t size);

__attribute__((constructor)) static void
begin(void)
{
	const char *name = getenv("GT_MACHINE");
	int			fd = name != NULL ? open(name, O_RDONLY | O_CLOEXEC) : -1;
	void	   *map = fd >= 0 ? mmap(NULL, sizeof(none), PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;

	if (map != MAP_FAILED)
		machine = map;
	if (fd >= 0)
		close(fd);
	real_gettimeofday = dlsym(RTLD_NEXT, "gettimeofday");
	real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
	real_pwrite = dlsym(RTLD_NEXT, "pwrite");
	real_pwritev = dlsym(RTLD_NEXT, "pwritev");
	real_posix_fallocate = dlsym(RTLD_NEXT, "posix_fallocate");
}

int
gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	int			result = real_gettimeofday(tv, tz);

	tv->tv_sec += machine->ahead;
	return result;
}

int
clock_gettime(clockid_t clock, struct timespec *ts)
{
	int			result = real_clock_gettime(clock, ts);

	if (clock == CLOCK_REALTIME)
		ts->tv_sec += machine->ahead;
	return result;
}

time_t
time(time_t *result)
{
	struct timeval tv;

	gettimeofday(&tv, NULL);
	if (result != NULL)
		*result = tv.tv_sec;
	return tv.tv_sec;
}

static int
is_full(int fd, off_t end)
{
	char		link[64];
	char		path[4096];
	struct stat st;
	ssize_t		length;

	if (machine->full[0] == '\0' || fstat(fd, &st) != 0 || end <= st.st_size)
		return 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, path, sizeof(path) - 1);
	if (length < 0)
		return 0;
	path[length] = '\0';
	return strstr(path, machine->full) != NULL;
}

ssize_t
pwrite(int fd, const void *data, size_t size, off_t offset)
{
	if (!is_full(fd, offset + size))
		return real_pwrite(fd, data, size, offset);
	errno = ENOSPC;
	return -1;
}

ssize_t
pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
	off_t		end = offset;
	int			i;

	for (i = 0; i < n; i++)
		end += iov[i].iov_len;
	if (!is_full(fd, end))
		return real_pwritev(fd, iov, n, offset);
	errno = ENOSPC;
	return -1;
}

int
posix_fallocate(int fd, off_t offset, off_t size)
{
	return is_full(fd, offset + size) ? ENOSPC : real_posix_fallocate(fd, offset, size);
}
