/*
 * A small stand-in for the daemon: it starts the program of a module, makes the calls of a script on standard input, and prints all that comes
 * back. Two registers are there: a byte that is written to 0x0b000000 is read from 0x0b000001.
 *
 * usage: daemon PROGRAM < SCRIPT
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "../runtime/channel.h"

#define REGISTERS 0x0b000000ULL
#define VIRTUAL 0xffff800008000000ULL
#define WAITING 16

static struct channel *channel;
static int socket_descriptor;
static pid_t child;
static const char *program;
static uint8_t hidden;
static uint64_t next_call = 1;
/* The calls that wait, and their lines of the script. */
static struct {
	uint64_t call;
	char name[64];
	uint32_t kind;
} waiting[WAITING];
static int waiting_count;
static int stops_guest;

static void fail(const char *what)
{
	fprintf(stderr, "daemon: %s: %s\n", what, strerror(errno));
	exit(2);
}

/*
 * "function() at file.c:12" for a place in the code, or only "file.c:12". A place in an inlined function has several lines; functions of the
 * kernel's headers are passed over. With "is_whole", all lines are written.
 */
static void describe_place(uint64_t place, int is_whole, char *text, size_t size)
{
	char command[600], function[128], line[512];
	FILE *pipe;

	snprintf(command, sizeof(command), "addr2line -i -f -e '%s' 0x%" PRIx64, program, place);
	pipe = popen(command, "r");
	if (!pipe)
		fail("addr2line");
	snprintf(text, size, "?");
	for (size_t length = 0; fgets(function, sizeof(function), pipe) && fgets(line, sizeof(line), pipe);) {
		char *base, *end;

		function[strcspn(function, "\n")] = 0;
		line[strcspn(line, "\n")] = 0;
		end = strstr(line, " (discriminator");
		if (end)
			*end = 0;
		base = strrchr(line, '/');
		base = base ? base + 1 : line;
		if (strstr(line, "/Kernel/include/"))
			continue;
		if (is_whole)
			length += snprintf(text + length, size - length, "%s%s() at %s", length ? "\n  " : "", function, base);
		else if (!length)
			length += snprintf(text, size, "%s", base);
	}
	pclose(pipe);
}

/* Prints a text with file and line for each [<address>]. */
static void print_text(const char *text)
{
	while (*text) {
		uint64_t place;
		int length = 0;
		char description[600];

		if (sscanf(text, "[<%" SCNx64 ">]%n", &place, &length) == 1 && length) {
			describe_place(place, 0, description, sizeof(description));
			fputs(description, stdout);
			text += length;
		} else {
			putchar(*text++);
		}
	}
}

static void print_log(void)
{
	uint32_t at = 0;

	while (at < channel->log_length) {
		struct channel_record *record = (void *)&channel->log[at];
		char text[4097], place[600];

		memcpy(text, record->text, record->length);
		text[record->length] = 0;
		if (record->kind == CHANNEL_RECORD_PRINTK) {
			printf("  <%d> ", record->level);
			print_text(text);
		} else {
			describe_place(record->pc, 0, place, sizeof(place));
			printf("  FINDING %s: ", record->pc ? place : "?");
			print_text(text);
		}
		putchar('\n');
		at += record->size;
	}
	channel->log_length = 0;
}

static void give_turn(void)
{
	if (channel_give_turn(channel, CHANNEL_CODE) && send(socket_descriptor, "", 1, MSG_NOSIGNAL) < 0 && errno != EPIPE)
		fail("send");
}

/* Returns 0 if the process has ended. */
static int wait_for_turn(void)
{
	int is_here = 1;

	while (is_here && channel_begin_sleep(channel, CHANNEL_DAEMON)) {
		char byte;

		is_here = read(socket_descriptor, &byte, 1) == 1;
	}
	channel_end_sleep(channel, CHANNEL_DAEMON);
	return is_here || channel_has_turn(channel, CHANNEL_DAEMON);
}

static void print_end(void)
{
	int status;

	waitpid(child, &status, 0);
	if (WIFSIGNALED(status))
		printf("ended by signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		printf("ended with status %d\n", WEXITSTATUS(status));
}

static void print_fault(void)
{
	static const char *const kinds[] = { "?", "signal", "stack", "lockup", "bug", "sanitizer" };
	const struct channel_fault *fault = &channel->fault;

	printf("FAULT %s", kinds[fault->kind < 6 ? fault->kind : 0]);
	if (fault->kind == CHANNEL_FAULT_SIGNAL)
		printf(" %s %s", strsignal(fault->signal), fault->access == 1 ? "write" : fault->access == 2 ? "fetch" : "read");
	/* Addresses that a text explains differ from run to run. */
	if (fault->kind == CHANNEL_FAULT_SIGNAL && !fault->text[0])
		printf(" address %#" PRIx64, fault->address);
	if (fault->text[0]) {
		printf(": ");
		print_text(fault->text);
	}
	putchar('\n');
	for (uint32_t i = 0; i < fault->frame_count; i++) {
		char place[600];

		describe_place(fault->frames[i], 1, place, sizeof(place));
		printf("  %s\n", place);
		/* The frames of an endless recursion are all alike. */
		if (i == 3 && fault->frame_count > 8) {
			printf("  ...\n");
			break;
		}
	}
}

static void print_data(const uint8_t *data, uint32_t length)
{
	putchar('"');
	for (uint32_t i = 0; i < length; i++) {
		if (isprint(data[i]))
			putchar(data[i]);
		else
			printf("\\x%02x", data[i]);
	}
	putchar('"');
}

static void answer_request(struct channel_message *message)
{
	struct channel_message reply = { .kind = CHANNEL_REPLY };
	uint64_t offset;

	switch (message->kind) {
	case CHANNEL_ACCESS:
		offset = message->arguments[0] - VIRTUAL;
		if (message->arguments[2]) {
			printf("  store%" PRIu64 " %#" PRIx64 " %#" PRIx64 "\n", message->arguments[1] * 8, offset, message->arguments[3]);
			if (offset == REGISTERS % 4096)
				hidden = message->arguments[3];
		} else {
			printf("  load%" PRIu64 " %#" PRIx64 "\n", message->arguments[1] * 8, offset);
			reply.arguments[0] = hidden;
		}
		reply.result = stops_guest;
		break;
	case CHANNEL_HVC:
		printf("  hvc %#" PRIx64 " %#" PRIx64 "\n", message->arguments[0], message->arguments[1]);
		/* The hypervisor hides a byte, and gives it back in x1. Other calls are not known. */
		if ((message->arguments[0] & 0xffff) == 0x100)
			hidden = message->arguments[1];
		else if ((message->arguments[0] & 0xffff) == 0x101)
			reply.arguments[1] = hidden;
		else
			reply.arguments[0] = -1;
		break;
	case CHANNEL_IOREMAP:
		printf("  ioremap %#" PRIx64 " %" PRIu64 "\n", message->arguments[0], message->arguments[1]);
		reply.arguments[0] = VIRTUAL + message->arguments[0] % 4096;
		break;
	case CHANNEL_IOUNMAP:
		printf("  iounmap %#" PRIx64 "\n", (uint64_t)(message->arguments[0] - VIRTUAL));
		break;
	case CHANNEL_NODE:
	case CHANNEL_NODE_GONE:
		printf("  node%s %.*s minor %" PRIu64 " mode %" PRIo64 "\n", message->kind == CHANNEL_NODE ? "" : " gone", (int)message->length,
		       channel->data, message->arguments[0], message->arguments[1]);
		break;
	case CHANNEL_LOG:
		break;
	default:
		printf("unknown request %u\n", message->kind);
		exit(1);
	}
	channel->message = reply;
	give_turn();
}

static int call_code(struct channel_message message, const char *name, uint32_t kind);

/* Lets each call that waits look again. */
static int resume_waiting(void)
{
	int count = waiting_count;

	for (int i = 0; i < count && waiting_count; i++) {
		struct channel_message message = { .kind = CHANNEL_AGAIN, .call = waiting[0].call };
		char name[64];
		uint32_t kind = waiting[0].kind;

		strcpy(name, waiting[0].name);
		memmove(&waiting[0], &waiting[1], sizeof(waiting[0]) * --waiting_count);
		if (!call_code(message, name, kind))
			return 0;
	}
	return 1;
}

/* Makes a call, and serves the code until it answers. Returns 0 if the code has ended. */
static int call_code(struct channel_message message, const char *name, uint32_t kind)
{
	channel->message = message;
	give_turn();
	for (;;) {
		struct channel_message answer;

		if (!wait_for_turn()) {
			print_log();
			print_end();
			return 0;
		}
		answer = channel->message;
		print_log();
		switch (answer.kind) {
		case CHANNEL_DONE:
			printf("%s = %" PRId64, name, answer.result);
			if (answer.length) {
				putchar(' ');
				print_data(channel->data, answer.length);
			}
			if ((kind == CHANNEL_READ || kind == CHANNEL_WRITE || kind == CHANNEL_LLSEEK) && answer.arguments[0])
				printf(" position %" PRIu64, answer.arguments[0]);
			putchar('\n');
			return answer.arguments[7] ? resume_waiting() : 1;
		case CHANNEL_WAITS:
			if (message.kind != CHANNEL_AGAIN || answer.arguments[7])
				printf("%s waits%s\n", name, answer.arguments[6] ? " for a time" : "");
			waiting[waiting_count].call = message.call;
			waiting[waiting_count].kind = kind;
			snprintf(waiting[waiting_count++].name, sizeof(waiting[0].name), "%s", name);
			return 1;
		case CHANNEL_FAULT:
			print_fault();
			print_end();
			return 0;
		default:
			answer_request(&answer);
		}
	}
}

/* Makes the call of a line of the script. Returns 0 at the end. */
static int perform_line(char *line)
{
	struct channel_message message = { .call = next_call++ };
	char *words[8] = { NULL }, name[64];
	int count = 0, length = 0;

	line[strcspn(line, "\n")] = 0;
	if (!line[0] || line[0] == '#')
		return 1;
	snprintf(name, sizeof(name), "%.63s", line);
	if (!strncmp(line, "start", 5)) {
		message.kind = CHANNEL_START;
		length = line[5] ? strlen(line + 6) : 0;
		memcpy(channel->data, line + 5 + (length > 0), length);
		message.length = length;
		return call_code(message, name, message.kind);
	}
	for (char *word = strtok(line, " "); word && count < 8; word = strtok(NULL, " "))
		words[count++] = word;
#define NUMBER(i) (words[i] ? strtoull(words[i], NULL, 0) : 0)
	message.file = NUMBER(1);
	if (!strcmp(words[0], "stop")) {
		message.kind = CHANNEL_STOP;
	} else if (!strcmp(words[0], "open")) {
		/* open FILE FLAGS [NODE] */
		message.kind = CHANNEL_OPEN;
		message.arguments[0] = words[2] ? NUMBER(2) : 2;
		message.arguments[3] = 100;
		if (words[3]) {
			message.length = strlen(words[3]);
			memcpy(channel->data, words[3], message.length);
		}
	} else if (!strcmp(words[0], "release")) {
		message.kind = CHANNEL_RELEASE;
	} else if (!strcmp(words[0], "read")) {
		/* read FILE COUNT POSITION FLAGS */
		message.kind = CHANNEL_READ;
		message.arguments[0] = NUMBER(2);
		message.arguments[1] = NUMBER(3);
		message.arguments[2] = words[4] ? NUMBER(4) : 2;
	} else if (!strcmp(words[0], "write")) {
		/* write FILE TEXT POSITION FLAGS */
		message.kind = CHANNEL_WRITE;
		message.length = words[2] ? strlen(words[2]) : 0;
		message.arguments[0] = message.length;
		message.arguments[1] = NUMBER(3);
		message.arguments[2] = words[4] ? NUMBER(4) : 2;
		memcpy(channel->data, words[2] ? words[2] : "", message.length);
	} else if (!strcmp(words[0], "ioctl")) {
		/* ioctl FILE COMMAND ARGUMENT WRITABLE TEXT */
		message.kind = CHANNEL_IOCTL;
		message.arguments[0] = NUMBER(2);
		message.arguments[1] = NUMBER(3);
		message.arguments[2] = 2;
		message.arguments[3] = NUMBER(4);
		message.length = words[5] ? strlen(words[5]) : 0;
		memcpy(channel->data, words[5] ? words[5] : "", message.length);
	} else if (!strcmp(words[0], "llseek")) {
		/* llseek FILE OFFSET WHENCE POSITION */
		message.kind = CHANNEL_LLSEEK;
		message.arguments[0] = (uint64_t)strtoll(words[2], NULL, 0);
		message.arguments[1] = NUMBER(3);
		message.arguments[2] = NUMBER(4);
	} else if (!strcmp(words[0], "poll")) {
		message.kind = CHANNEL_POLL;
	} else if (!strcmp(words[0], "interrupt") && waiting_count) {
		/* The first call that waits. */
		message.kind = CHANNEL_INTERRUPT;
		message.call = waiting[0].call;
		snprintf(name, sizeof(name), "%s", waiting[0].name);
		memmove(&waiting[0], &waiting[1], sizeof(waiting[0]) * --waiting_count);
	} else if (!strcmp(words[0], "again") && waiting_count) {
		/* After the time of the shortest wait of the scripts. */
		usleep(50000);
		return resume_waiting();
	} else if (!strcmp(words[0], "stops-guest")) {
		stops_guest = 1;
		return 1;
	} else if (!strcmp(words[0], "restarts-guest")) {
		stops_guest = 0;
		return 1;
	} else {
		printf("unknown line of the script: %s\n", name);
		exit(1);
	}
	return call_code(message, name, message.kind);
}

int main(int count, char **arguments)
{
	int sockets[2], memory;
	char line[4096];

	if (count != 2) {
		fprintf(stderr, "usage: daemon PROGRAM < SCRIPT\n");
		return 2;
	}
	program = arguments[1];
	memory = memfd_create("channel", 0);
	if (memory < 0 || ftruncate(memory, sizeof(struct channel)) < 0)
		fail("memfd_create");
	channel = mmap(NULL, sizeof(*channel), PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	if (channel == MAP_FAILED || socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) < 0)
		fail("socketpair");
	channel->version = CHANNEL_VERSION;
	channel->turn = CHANNEL_DAEMON;
	socket_descriptor = sockets[0];
	child = fork();
	if (child == 0) {
		struct rlimit none = { 0, 0 };

		dup2(sockets[1], 10);
		dup2(memory, 11);
		dup2(10, CHANNEL_SOCKET);
		dup2(11, CHANNEL_MEMORY);
		for (int i = 5; i < 32; i++)
			close(i);
		setrlimit(RLIMIT_CORE, &none);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl(program, program, (char *)NULL);
		fail(program);
	}
	close(sockets[1]);
	setvbuf(stdout, NULL, _IONBF, 0);
	while (fgets(line, sizeof(line), stdin)) {
		if (!perform_line(line))
			return 0;
	}
	close(socket_descriptor);
	print_end();
	return 0;
}
