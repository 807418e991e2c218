/*
 * A module for tests. It reads SEEK and writes HIDE as the original one. The parameter of insmod selects something else that it does in a
 * read or a write.
 */
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>

#include "peer.h"

static char behaviour[32];
static uint64_t registers;
static int has_byte;
/* A call that waits, and the message that it has come with. */
static struct channel_message waiting;

static int is(const char *name)
{
	return !strcmp(behaviour, name);
}

static int access_byte(uint64_t address, int is_write, uint64_t *value)
{
	message->arguments[0] = address;
	message->arguments[1] = 1;
	message->arguments[2] = is_write;
	message->arguments[3] = *value;
	request(CHANNEL_ACCESS);
	*value = message->arguments[0];
	return message->result != 0;
}

static void send_fault(enum channel_fault_kind kind, int number, uint64_t address, const char *text)
{
	memset(&channel->fault, 0, sizeof(channel->fault));
	channel->fault.kind = kind;
	channel->fault.signal = number;
	channel->fault.address = address;
	channel->fault.access = 1;
	channel->fault.frame_count = 1;
	channel->fault.frames[0] = (uint64_t)__builtin_return_address(0) - 1;
	strcpy(channel->fault.text, text);
	message->kind = CHANNEL_FAULT;
	give_turn();
	_exit(1);
}

static void crash_in_write(void)
{
	send_fault(CHANNEL_FAULT_SIGNAL, SIGSEGV, 8, "");
	__asm__ volatile("");
}

/*
 * Reports the same mistake at any number of places, and makes nodes and mappings without an end. Returns 1 if the last node was refused, and 2
 * if the last mapping was.
 */
static int flood_with_reports(void)
{
	int refused = 0;

	for (int i = 0; i < 2000; i++) {
		add_record(CHANNEL_RECORD_FINDING, 0x1000 + i, "a report");
		if (i % 100 == 99)
			request(CHANNEL_LOG);
	}
	for (int i = 0; i < 400; i++) {
		memcpy(channel->data, "node", 4);
		message->length = 4;
		request(CHANNEL_NODE);
		refused = message->result != 0;
	}
	for (int i = 0; i < 3; i++) {
		message->arguments[0] = 0;
		message->arguments[1] = 1ull << 48;
		request(CHANNEL_IOREMAP);
	}
	return refused | (message->arguments[0] ? 0 : 2);
}

static void misbehave(void)
{
	if (is("null"))
		crash_in_write();
	if (is("device"))
		send_fault(CHANNEL_FAULT_SIGNAL, SIGSEGV, registers, "");
	if (is("bug"))
		send_fault(CHANNEL_FAULT_BUG, 0, 0, "kernel BUG at module.c:1!");
	if (is("lock")) {
		char text[100];

		snprintf(text, sizeof(text), "deadlock with the lock at [<%lx>]", (unsigned long)&crash_in_write);
		send_fault(CHANNEL_FAULT_BUG, 0, 0, text);
	}
	if (is("exit"))
		_exit(3);
	if (is("killed"))
		raise(SIGKILL);
	if (is("syscall"))
		raise(SIGSYS);
	if (is("hang"))
		for (;;)
			pause();
	if (is("length")) {
		message->length = 0x80000000;
		answer(1);
		_exit(0);
	}
	if (is("log")) {
		channel->log_length = 0xffffffff;
		answer(1);
		_exit(0);
	}
	if (is("record")) {
		struct channel_record *record = add_record(CHANNEL_RECORD_PRINTK, 0, "x");

		record->size = 0;
		answer(1);
		_exit(0);
	}
	if (is("long")) {
		struct channel_record *record = add_record(CHANNEL_RECORD_PRINTK, 0, "x");

		record->length = 0xffff;
		answer(1);
		_exit(0);
	}
	if (is("flood"))
		for (;;)
			send(CHANNEL_SOCKET, "floodfloodflood", 15, MSG_NOSIGNAL);
	if (is("shrink") && ftruncate(CHANNEL_MEMORY, 0) == 0)
		_exit(9);
	if (is("frames")) {
		channel->fault.kind = 99;
		channel->fault.frame_count = 0xffffffff;
		memset(channel->fault.text, 'x', sizeof(channel->fault.text));
		message->kind = CHANNEL_FAULT;
		give_turn();
		_exit(1);
	}
	if (is("unknown")) {
		request(555);
		if (message->result != -EINVAL)
			_exit(8);
	}
	if (is("unmapped")) {
		uint64_t value = 1;

		/* Nothing is at this address. */
		if (access_byte(0x123456789abcdef, 1, &value)) {
			answer(CHANNEL_STOPPED);
			wait_for_turn();
		}
	}
}

static void take_read(void)
{
	uint64_t value = 0;

	if (is("wait") && !has_byte) {
		waiting = *message;
		message->kind = CHANNEL_WAITS;
		message->arguments[6] = message->arguments[7] = 0;
		give_turn();
		return;
	}
	if (is("sleep") && message->kind != CHANNEL_AGAIN) {
		message->kind = CHANNEL_WAITS;
		message->arguments[6] = 10;
		message->arguments[7] = 0;
		give_turn();
		return;
	}
	if (access_byte(registers + 1, 0, &value)) {
		answer(CHANNEL_STOPPED);
		return;
	}
	channel->data[0] = value;
	message->length = 1;
	message->arguments[0] = 1;
	message->arguments[7] = 0;
	answer(is("much") ? 1000000000 : is("more") ? 3 : is("less") ? 0 : 1);
}

static void take_call(void)
{
	uint64_t value = channel->data[0];
	char text[80];

	switch (message->kind) {
	case CHANNEL_START:
		memcpy(behaviour, channel->data, message->length < 31 ? message->length : 31);
		say("loaded\nsecond line\x1b[31m");
		if (is("fails")) {
			answer(-ENOMEM);
			break;
		}
		message->arguments[0] = 0x0b000000;
		message->arguments[1] = 2;
		request(CHANNEL_IOREMAP);
		registers = message->arguments[0];
		memcpy(channel->data, "virt_walker", 11);
		message->length = 11;
		request(CHANNEL_NODE);
		message->length = 0;
		memset(message->arguments, 0, sizeof(message->arguments));
		answer(registers ? 0 : -ENOMEM);
		break;
	case CHANNEL_STOP:
		say("unloaded");
		answer(0);
		break;
	case CHANNEL_READ:
		take_read();
		break;
	case CHANNEL_WRITE:
		sprintf(text, "write of %d bytes", (int)message->length);
		say(text);
		misbehave();
		if (is("reports"))
			value = flood_with_reports();
		if (access_byte(registers, 1, &value)) {
			answer(CHANNEL_STOPPED);
			break;
		}
		has_byte = 1;
		sprintf(text, "a finding of [<%lx>]", (unsigned long)take_read);
		add_record(CHANNEL_RECORD_FINDING, (uint64_t)take_read, text);
		message->length = 0;
		message->arguments[0] = 0;
		message->arguments[7] = 1;
		answer(1);
		break;
	case CHANNEL_AGAIN:
		take_read();
		break;
	case CHANNEL_INTERRUPT:
		say("interrupted");
		answer(-512);
		break;
	case CHANNEL_IOCTL:
		memcpy(channel->data, "pong", 4);
		message->length = 4;
		answer(7);
		break;
	case CHANNEL_OPEN:
		message->length = 0;
		memset(message->arguments, 0, sizeof(message->arguments));
		message->arguments[0] = is("stream");
		answer(0);
		break;
	default:
		message->length = 0;
		memset(message->arguments, 0, sizeof(message->arguments));
		answer(0);
		break;
	}
}
