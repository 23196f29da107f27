/* Loaded into a gateway with LD_PRELOAD: while the file FSYNC_FAILS_WHILE is there,
 * fsync(2) and fdatasync(2) of files below FSYNC_FAILS_BELOW answer EIO. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int flush(int);

static int fails(int file)
{
	const char *flag = getenv("FSYNC_FAILS_WHILE"), *below = getenv("FSYNC_FAILS_BELOW");
	char link[64], path[PATH_MAX];
	ssize_t length;
	size_t start;

	if (!flag || !below || access(flag, F_OK) != 0)
		return 0;
	snprintf(link, sizeof link, "/proc/self/fd/%d", file);
	length = readlink(link, path, sizeof path - 1);
	if (length < 0)
		return 0;
	path[length] = '\0';
	start = strlen(below);
	return strncmp(path, below, start) == 0 && (path[start] == '/' || path[start] == '\0');
}

static int flush_by(const char *name, int file)
{
	flush *real;

	if (fails(file)) {
		errno = EIO;
		return -1;
	}
	real = (flush *)dlsym(RTLD_NEXT, name);
	if (!real) {
		errno = ENOSYS;
		return -1;
	}
	return real(file);
}

int fsync(int file)
{
	return flush_by("fsync", file);
}

int fdatasync(int file)
{
	return flush_by("fdatasync", file);
}
