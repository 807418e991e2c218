/*
 * A daemon for the tests of hooks: it has stage-2 tables and a vCPU, starts a hook's program, and makes the calls that its input names.
 *
 * usage: hook-daemon PROGRAM [--block] <LINES
 *
 * The page at 0x40000000 is mapped by an entry at level 3; with --block, by a block at level 2. The lines:
 *   store ADDRESS LENGTH VALUE   the guest stores a value; Rt is x5 (with LENGTH 1z: the zero register)
 *   load ADDRESS LENGTH          the guest loads a value into x6
 *   hvc X0 [X1]                  the guest makes a hypercall
 *   entry                        prints the entry for 0x40000000
 *   tables                       moves the tables to other memory
 * For each call, the result is printed, with the records of the log.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../runtime/channel.h"

#define BASE		0x100000000ULL
#define PAGES		8
#define RAM		0x40000000ULL
#define LEAF		((uint64_t)0x7fd)
#define HIDDEN		(0xffULL << 51)

static const char *program;
static struct channel *channel;
static uint64_t *tables;
static int tables_descriptor;
static int socket_descriptor;
static int channel_descriptor;
static pid_t child;
static uint64_t before[PAGES * 512];

static void fail(const char *what)
{
	fprintf(stderr, "hook-daemon: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void *map(int descriptor, size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);

	if (memory == MAP_FAILED)
		fail("mmap");
	return memory;
}

static int make_memory(const char *name, size_t size)
{
	int descriptor = memfd_create(name, 0);

	if (descriptor < 0 || ftruncate(descriptor, size))
		fail("memfd_create");
	return descriptor;
}

/* 40 bits of address: two start-level tables at level 1, in pages 0 and 1. */
static void fill_tables(int has_block)
{
	tables[1] = (BASE + 2 * 4096) | 3;
	if (has_block) {
		tables[2 * 512] = 0x180000000ULL | (LEAF & ~2ULL);
	} else {
		tables[2 * 512] = (BASE + 3 * 4096) | 3;
		tables[3 * 512] = 0x180000000ULL | LEAF | 2;
		tables[3 * 512 + 1] = 0x180001000ULL | LEAF | 2;
	}
	tables[2 * 512 + 1] = 0x180200000ULL | (LEAF & ~2ULL);
}

static uint64_t *ram_entry(void)
{
	return (tables[2 * 512] & 3) == 3 ? &tables[3 * 512] : &tables[2 * 512];
}

/* The place of an address in the user's source: file:line. */
static const char *place(uint64_t address)
{
	static char text[256];
	char command[512];
	FILE *output;
	char *slash;

	if (!address)
		return "no place";
	snprintf(command, sizeof(command), "addr2line -e '%s' 0x%" PRIx64, program, address);
	output = popen(command, "r");
	if (!output || !fgets(text, sizeof(text), output))
		fail("addr2line");
	pclose(output);
	text[strcspn(text, "\n ")] = 0;
	slash = strrchr(text, '/');
	return slash ? slash + 1 : text;
}

static void print_log(void)
{
	uint32_t at = 0;

	while (at < channel->log_length) {
		const struct channel_record *record = (const void *)&channel->log[at];

		switch (record->kind) {
		case CHANNEL_RECORD_PRINTK:
			printf("  log %d: %.*s\n", record->level, record->length, record->text);
			break;
		case CHANNEL_RECORD_FINDING:
			printf("  finding at %s: %.*s\n", place(record->pc), record->length, record->text);
			break;
		case CHANNEL_RECORD_VISIT:
			printf("  visit level %d page %d entry %d\n", record->level, (int)(record->pc / 4096), (int)(record->pc % 4096 / 8));
			break;
		case CHANNEL_RECORD_INVALIDATE:
			printf("  invalidate 0x%" PRIx64 " level %d\n", record->pc, record->level);
			break;
		}
		at += record->size;
	}
	channel->log_length = 0;
}

static void print_fault(void)
{
	const struct channel_fault *fault = &channel->fault;

	printf("  fault kind %u signal %d at 0x%" PRIx64 ": %s\n", fault->kind, fault->signal, fault->address, fault->text);
	for (uint32_t i = 0; i < fault->frame_count; i++)
		printf("  frame %s\n", place(fault->frames[i]));
}

static void wait_for_turn(void)
{
	char byte;

	while (channel_begin_sleep(channel, CHANNEL_DAEMON)) {
		if (read(socket_descriptor, &byte, 1) <= 0 && !channel_has_turn(channel, CHANNEL_DAEMON)) {
			int status;

			waitpid(child, &status, 0);
			printf("  the process has ended without a report: status 0x%x\n", status);
			exit(1);
		}
	}
	channel_end_sleep(channel, CHANNEL_DAEMON);
}

static void give_turn(void)
{
	if (channel_give_turn(channel, CHANNEL_CODE) && write(socket_descriptor, "", 1) != 1)
		fail("write");
}

static void call(struct channel_message message)
{
	channel->message = message;
	give_turn();
	for (;;) {
		wait_for_turn();
		print_log();
		switch (channel->message.kind) {
		case CHANNEL_DONE:
			return;
		case CHANNEL_LOG:
			channel->message.kind = CHANNEL_REPLY;
			give_turn();
			break;
		case CHANNEL_FAULT:
			print_fault();
			waitpid(child, NULL, 0);
			exit(0);
		default:
			printf("  an unknown request %u\n", channel->message.kind);
			exit(1);
		}
	}
}

static void send_tables(void)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr header;
	} control = { .header = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
	char byte = 0;
	struct iovec vector = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &vector, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes),
	};

	memcpy(CMSG_DATA(&control.header), &tables_descriptor, sizeof(int));
	if (sendmsg(socket_descriptor, &message, 0) != 1)
		fail("sendmsg");
	channel->geometry = (struct channel_geometry){
		.size = PAGES * 4096, .base = BASE, .pgd = BASE, .ipa_bits = 40, .start_level = 1, .page_shift = 12, .vmid = 1,
	};
}

static void start(void)
{
	int sockets[2];

	channel_descriptor = make_memory("channel", sizeof(struct channel));
	channel = map(channel_descriptor, sizeof(struct channel));
	channel->version = CHANNEL_VERSION;
	channel->turn = CHANNEL_DAEMON;
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sockets))
		fail("socketpair");
	child = fork();
	if (child < 0)
		fail("fork");
	if (child == 0) {
		int socket = fcntl(sockets[1], F_DUPFD, 10), memory = fcntl(channel_descriptor, F_DUPFD, 10);

		dup2(socket, CHANNEL_SOCKET);
		dup2(memory, CHANNEL_MEMORY);
		for (int i = 5; i < 20; i++)
			close(i);
		execl(program, program, NULL);
		fail(program);
	}
	close(sockets[1]);
	socket_descriptor = sockets[0];
	send_tables();
	call((struct channel_message){ .kind = CHANNEL_START });
	printf("start: %lld abort %llu hypercall %llu\n", (long long)channel->message.result,
	       (unsigned long long)channel->message.arguments[0], (unsigned long long)channel->message.arguments[1]);
	if (channel->message.result)
		exit(1);
}

/* The entries that a call has changed outside [58:51] of the page's own entry. */
static void print_changes(void)
{
	for (int i = 0; i < PAGES * 512; i++) {
		uint64_t allowed = &tables[i] == ram_entry() ? HIDDEN : 0;

		if ((tables[i] ^ before[i]) & ~allowed)
			printf("  changed page %d entry %d: 0x%016" PRIx64 " to 0x%016" PRIx64 "\n", i / 512, i % 512, before[i], tables[i]);
	}
}

static void access_guest(int is_store, uint64_t address, const char *length_text, uint64_t value)
{
	int length = atoi(length_text);
	int rt = strchr(length_text, 'z') ? 31 : is_store ? 5 : 6;
	int is_signed = strchr(length_text, 's') != NULL;
	struct channel_vcpu *vcpu = &channel->vcpu;
	uint64_t old[31];

	memset(vcpu, 0, sizeof(*vcpu));
	for (int i = 0; i < 31; i++)
		vcpu->x[i] = 0x1000 + i;
	if (rt != 31)
		vcpu->x[rt] = is_store ? value : 0xdeadbeefdeadbeef;
	memcpy(old, vcpu->x, sizeof(old));
	vcpu->pc = 0xffff800010000000;
	vcpu->pstate = 5;
	/* A data abort of a lower level, with a syndrome, by a translation fault at level 1. */
	vcpu->esr_el2 = 0x24ULL << 26 | 1 << 25 | 1 << 24 | (uint64_t)__builtin_ctz(length) << 22 | (uint64_t)is_signed << 21 |
			(uint64_t)rt << 16 | (length == 8) << 15 | is_store << 6 | 5;
	vcpu->far_el2 = 0xffff800012340000 | (address & 0xfff);
	vcpu->hpfar_el2 = (address >> 12) << 4;
	memcpy(before, tables, sizeof(before));
	call((struct channel_message){ .kind = CHANNEL_ABORT, .arguments = { address } });
	printf("%s 0x%" PRIx64 ": %lld pc+%" PRIu64 " increments %u", is_store ? "store" : "load", address,
	       (long long)channel->message.result, vcpu->pc - 0xffff800010000000, vcpu->increments);
	if (!is_store && rt != 31)
		printf(" x6 0x%" PRIx64, vcpu->x[rt]);
	for (int i = 0; i < 31; i++) {
		if (vcpu->x[i] != old[i] && (is_store || i != rt))
			printf(" x%d 0x%" PRIx64, i, vcpu->x[i]);
	}
	if (channel->message.result == 0)
		printf(" exit %u %s 0x%" PRIx64 " %u bytes 0x%" PRIx64, vcpu->exit_reason, vcpu->exit_is_write ? "store" : "load",
		       vcpu->exit_address, vcpu->exit_length, vcpu->exit_data);
	printf("\n");
	print_changes();
}

static void call_hypervisor(uint64_t x0, uint64_t x1)
{
	struct channel_vcpu *vcpu = &channel->vcpu;

	memset(vcpu, 0, sizeof(*vcpu));
	vcpu->x[0] = x0;
	vcpu->x[1] = x1;
	vcpu->pc = 0xffff800010000004;
	vcpu->pstate = 5;
	vcpu->esr_el2 = 0x16ULL << 26 | 1 << 25;
	memcpy(before, tables, sizeof(before));
	call((struct channel_message){ .kind = CHANNEL_HYPERCALL });
	printf("hvc: %lld increments %u x0 0x%" PRIx64 " x1 0x%" PRIx64 " x2 0x%" PRIx64 " x3 0x%" PRIx64 "\n",
	       (long long)channel->message.result, vcpu->increments, vcpu->x[0], vcpu->x[1], vcpu->x[2], vcpu->x[3]);
	print_changes();
}

static void move_tables(void)
{
	uint64_t *old = tables;

	tables_descriptor = make_memory("tables", PAGES * 4096);
	tables = map(tables_descriptor, PAGES * 4096);
	memcpy(tables, old, PAGES * 4096);
	memset(old, 0, PAGES * 4096);
	send_tables();
	call((struct channel_message){ .kind = CHANNEL_TABLES });
	printf("tables: %lld\n", (long long)channel->message.result);
}

int main(int count, char **arguments)
{
	char line[256], command[16], first[64], second[64], third[64];

	if (count < 2) {
		fprintf(stderr, "usage: hook-daemon PROGRAM [--block] <LINES\n");
		return 2;
	}
	program = arguments[1];
	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOLBF, 0);
	tables_descriptor = make_memory("tables", PAGES * 4096);
	tables = map(tables_descriptor, PAGES * 4096);
	fill_tables(count > 2 && !strcmp(arguments[2], "--block"));
	start();
	while (fgets(line, sizeof(line), stdin)) {
		int words = sscanf(line, "%15s %63s %63s %63s", command, first, second, third);

		if (words == 4 && !strcmp(command, "store"))
			access_guest(1, strtoull(first, NULL, 0), second, strtoull(third, NULL, 0));
		else if (words == 3 && !strcmp(command, "load"))
			access_guest(0, strtoull(first, NULL, 0), second, 0);
		else if (words >= 2 && !strcmp(command, "hvc"))
			call_hypervisor(strtoull(first, NULL, 0), words > 2 ? strtoull(second, NULL, 0) : 0);
		else if (words == 1 && !strcmp(command, "entry"))
			printf("entry 0x%016" PRIx64 "\n", *ram_entry());
		else if (words == 1 && !strcmp(command, "tables"))
			move_tables();
		else if (words > 0)
			fprintf(stderr, "hook-daemon: unknown line: %s", line);
	}
	call((struct channel_message){ .kind = CHANNEL_STOP });
	printf("stop: %lld\n", (long long)channel->message.result);
	return 0;
}
