// Makes the system calls of a list on a device node, and prints a line for each: the call, its result, its error, and the bytes. The same
// program runs in the guest of the real kernel and on the model's node, so that the lines can be compared.
//
// usage: calls NODE CALL...
//
//   open:FLAGS       r, w or rw, and n for O_NONBLOCK, a for O_APPEND     read:N        write:HEX      lseek:OFFSET:WHENCE
//   fault-read:N     read() or write() with a bad pointer                 fault-write:N
//   readv:N:M        into two buffers                                     writev:HEX:HEX
//   ioctl:rNUMBER:N  _IOR('w', NUMBER, N bytes)                           ioctl:wNUMBER:HEX     ioctl:fNUMBER with a bad pointer
//   bytes            writes each of the 256 bytes, and reads it back
//   poll             without waiting                                      later:HEX      another process writes HEX 300 ms later
//   join             waits for that process                               close
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define BUFFER 4096
#define BAD_POINTER ((void *)8)

static int node = -1;
static pid_t later;

static void report(const char *call, long result, const unsigned char *bytes, long count)
{
	int error = errno;

	printf("calls: %s = %ld", call, result);
	if (result < 0)
		printf(" %s", strerrorname_np(error));
	for (long i = 0; i < count; i++)
		printf(i ? "%02x" : " %02x", bytes[i]);
	putchar('\n');
	fflush(stdout);
}

static size_t from_hex(const char *hex, unsigned char *bytes)
{
	size_t count = 0;
	unsigned int byte;

	while (sscanf(hex + 2 * count, "%2x", &byte) == 1)
		bytes[count++] = byte;
	return count;
}

static void open_node(const char *path, const char *call, const char *flags)
{
	int mode = strchr(flags, 'w') ? strchr(flags, 'r') ? O_RDWR : O_WRONLY : O_RDONLY;

	mode |= strchr(flags, 'n') ? O_NONBLOCK : 0;
	mode |= strchr(flags, 'a') ? O_APPEND : 0;
	node = open(path, mode);
	report(call, node < 0 ? -1 : 0, NULL, 0);
}

static void all_bytes(void)
{
	unsigned char got;
	int good = 0;

	for (int value = 0; value < 256; value++) {
		unsigned char byte = value;
		long written = write(node, &byte, 1);
		long read_back;

		got = ~byte;
		read_back = read(node, &got, 1);
		if (written == 1 && read_back == 1 && got == byte)
			good++;
		else
			printf("calls: byte %02x: write = %ld, read = %ld, %02x\n", value, written, read_back, got);
	}
	report("bytes", good, NULL, 0);
}

static void control(const char *call, const char *argument)
{
	unsigned int number = strtoul(argument + 1, NULL, 10);
	const char *rest = strchr(argument, ':');
	unsigned char bytes[BUFFER] = { 0 };
	long result;
	size_t size;

	switch (argument[0]) {
	case 'r':
		size = rest ? strtoul(rest + 1, NULL, 10) : 0;
		result = ioctl(node, _IOC(_IOC_READ, 'w', number, size), bytes);
		report(call, result, bytes, result < 0 ? 0 : size);
		break;
	case 'w':
		size = rest ? from_hex(rest + 1, bytes) : 0;
		report(call, ioctl(node, _IOC(_IOC_WRITE, 'w', number, size), bytes), NULL, 0);
		break;
	default:
		report(call, ioctl(node, _IOC(_IOC_WRITE, 'w', number, 1), BAD_POINTER), NULL, 0);
	}
}

static void vector(const char *call, const char *argument, int is_write)
{
	unsigned char bytes[2][BUFFER] = { { 0 } };
	const char *second = strchr(argument, ':') + 1;
	struct iovec parts[2] = { { .iov_base = bytes[0] }, { .iov_base = bytes[1] } };
	char first[BUFFER];
	long result;

	snprintf(first, sizeof(first), "%.*s", (int)(second - argument - 1), argument);
	if (is_write) {
		parts[0].iov_len = from_hex(first, bytes[0]);
		parts[1].iov_len = from_hex(second, bytes[1]);
		report(call, writev(node, parts, 2), NULL, 0);
		return;
	}
	parts[0].iov_len = strtoul(first, NULL, 10);
	parts[1].iov_len = strtoul(second, NULL, 10);
	result = readv(node, parts, 2);
	memmove(bytes[0] + parts[0].iov_len, bytes[1], parts[1].iov_len);
	report(call, result, bytes[0], result);
}

static void make(const char *path, const char *call)
{
	size_t length = strcspn(call, ":");
	const char *argument = call[length] ? call + length + 1 : "";
	unsigned char bytes[BUFFER] = { 0 };
	struct pollfd waiting = { .fd = node, .events = POLLIN | POLLOUT };
	long result;
	int status;

#define IS(name) (length == sizeof(name) - 1 && !strncmp(call, name, length))
	if (IS("open")) {
		open_node(path, call, argument);
	} else if (IS("read")) {
		result = read(node, bytes, strtoul(argument, NULL, 10));
		report(call, result, bytes, result);
	} else if (IS("write")) {
		size_t count = from_hex(argument, bytes);

		report(call, write(node, bytes, count), NULL, 0);
	} else if (IS("fault-read")) {
		report(call, read(node, BAD_POINTER, strtoul(argument, NULL, 10)), NULL, 0);
	} else if (IS("fault-write")) {
		report(call, write(node, BAD_POINTER, strtoul(argument, NULL, 10)), NULL, 0);
	} else if (IS("readv")) {
		vector(call, argument, 0);
	} else if (IS("writev")) {
		vector(call, argument, 1);
	} else if (IS("lseek")) {
		char *whence;
		long offset = strtol(argument, &whence, 10);

		report(call, lseek(node, offset, strtol(whence + 1, NULL, 10)), NULL, 0);
	} else if (IS("ioctl")) {
		control(call, argument);
	} else if (IS("bytes")) {
		all_bytes();
	} else if (IS("poll")) {
		result = poll(&waiting, 1, 0);
		bytes[0] = waiting.revents;
		report(call, result, bytes, 1);
	} else if (IS("later")) {
		later = fork();
		if (!later) {
			size_t count = from_hex(argument, bytes);

			usleep(300000);
			_exit(write(node, bytes, count) == (long)count ? 0 : 1);
		}
	} else if (IS("join")) {
		waitpid(later, &status, 0);
		report(call, WEXITSTATUS(status), NULL, 0);
	} else if (IS("close")) {
		report(call, close(node), NULL, 0);
	} else {
		fprintf(stderr, "calls: there is no call %s\n", call);
		exit(2);
	}
}

int main(int count, char **words)
{
	if (count < 3) {
		fprintf(stderr, "usage: calls NODE CALL...\n");
		return 2;
	}
	for (int i = 2; i < count; i++)
		make(words[1], words[i]);
	puts("calls: end");
	return 0;
}
