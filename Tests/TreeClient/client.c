/*
 * A client that reads the files of an inspection tree in the ways of coreutils, busybox and other programs.
 *
 * usage: client splice FILE     copies as uutils' cat does: by splice(2), and by read(2) if splice fails
 *        client sendfile FILE   as busybox's cat does, by sendfile(2)
 *        client map FILE        as dmesg -F does, by mmap(2)
 *        client hold N FILE     opens FILE up to N times, prints how often this worked, and keeps the files open until standard input ends
 *        client read N FILE     the same, and reads one byte of each
 *        client first FILE      reads the first byte again and again, until it is killed
 *        client time N NODE     reads a byte of NODE N times, and prints the times of the 50th and 99th percentile
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static int copy_by_read(int file)
{
	char bytes[65536];
	ssize_t count;

	while ((count = read(file, bytes, sizeof(bytes))) > 0)
		if (write(1, bytes, count) != count)
			return fail("write");
	return count < 0 ? fail("read") : 0;
}

static int copy_by_splice(int file)
{
	int ends[2];
	ssize_t count;

	if (pipe(ends))
		return fail("pipe");
	while ((count = splice(file, NULL, ends[1], NULL, 65536, 0)) > 0) {
		char bytes[65536];
		ssize_t moved = read(ends[0], bytes, sizeof(bytes));

		if (moved != count || write(1, bytes, moved) != moved)
			return fail("pipe");
	}
	return count < 0 ? copy_by_read(file) : 0;
}

static int copy_by_sendfile(int file)
{
	ssize_t count;

	while ((count = sendfile(1, file, NULL, 1 << 24)) > 0)
		;
	return count < 0 ? copy_by_read(file) : 0;
}

static int copy_by_map(int file)
{
	struct stat attributes;
	void *bytes;

	if (fstat(file, &attributes))
		return fail("fstat");
	bytes = mmap(NULL, attributes.st_size, PROT_READ, MAP_SHARED, file, 0);
	if (bytes == MAP_FAILED)
		return fail("mmap");
	return write(1, bytes, attributes.st_size) == attributes.st_size ? 0 : fail("write");
}

static int hold(int wanted, const char *path, int reads)
{
	struct rlimit files;
	char byte;
	int count;

	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	for (count = 0; count < wanted; count++) {
		int file = open(path, O_RDONLY);

		if (file < 0 || (reads && read(file, &byte, 1) != 1))
			break;
	}
	printf("%d %s\n", count, count < wanted ? strerrorname_np(errno) : "all");
	fflush(stdout);
	while (read(0, &byte, 1) > 0)
		;
	return 0;
}

static int read_first_byte(int file)
{
	char byte;

	while (pread(file, &byte, 1, 0) == 1)
		;
	return fail("pread");
}

static long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000L + time.tv_nsec;
}

static int compare(const void *one, const void *other)
{
	long a = *(const long *)one, b = *(const long *)other;

	return (a > b) - (a < b);
}

static int measure(int count, int node)
{
	long *times = calloc(count, sizeof(*times));
	char byte;

	if (!times || count < 1)
		return fail("no reads");
	for (int i = 0; i < count; i++) {
		long start = now();

		if (read(node, &byte, 1) != 1)
			return fail("read");
		times[i] = now() - start;
	}
	qsort(times, count, sizeof(*times), compare);
	printf("p50 %.1f us, p99 %.1f us\n", times[count / 2] / 1e3, times[count / 100 * 99] / 1e3);
	free(times);
	return 0;
}

int main(int count, char **words)
{
	const char *command = count > 2 ? words[1] : "";
	const char *path = words[count - 1];
	int file;

	if (!strcmp(command, "hold") || !strcmp(command, "read"))
		return hold(atoi(words[2]), path, !strcmp(command, "read"));
	file = open(path, O_RDONLY);
	if (file < 0)
		return fail(path);
	if (!strcmp(command, "splice"))
		return copy_by_splice(file);
	if (!strcmp(command, "sendfile"))
		return copy_by_sendfile(file);
	if (!strcmp(command, "map"))
		return copy_by_map(file);
	if (!strcmp(command, "first"))
		return read_first_byte(file);
	if (!strcmp(command, "time"))
		return measure(atoi(words[2]), file);
	fprintf(stderr, "client: unknown command %s\n", command);
	return 2;
}
