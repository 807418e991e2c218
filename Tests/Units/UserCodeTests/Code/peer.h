/* The code's end of the channel for tests: no kernel, no sandbox. A test's code answers calls in take_call(). */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channel.h"

static struct channel *channel;
static struct channel_message *message;
static int received = -1;

static void read_socket(void)
{
	char byte, control[CMSG_SPACE(sizeof(int))];
	struct iovec data = { &byte, 1 };
	struct msghdr header = { 0 };
	struct cmsghdr *part;

	header.msg_iov = &data;
	header.msg_iovlen = 1;
	header.msg_control = control;
	header.msg_controllen = sizeof(control);
	if (recvmsg(CHANNEL_SOCKET, &header, 0) <= 0)
		_exit(0);
	part = CMSG_FIRSTHDR(&header);
	if (part && part->cmsg_type == SCM_RIGHTS)
		memcpy(&received, CMSG_DATA(part), sizeof(int));
}

static void wait_for_turn(void)
{
	static struct channel_waits waits;

	if (channel_spin(channel, CHANNEL_CODE, channel->spins, &waits))
		return;
	while (channel_begin_sleep(channel, CHANNEL_CODE))
		read_socket();
	channel_end_sleep(channel, CHANNEL_CODE);
}

static void give_turn(void)
{
	if (channel_give_turn(channel, CHANNEL_DAEMON))
		send(CHANNEL_SOCKET, "", 1, MSG_NOSIGNAL);
}

/* Sends a message, and waits for the daemon's answer, which is in *message. */
static inline void request(enum channel_request kind)
{
	message->kind = kind;
	give_turn();
	wait_for_turn();
}

static void answer(int64_t result)
{
	message->kind = CHANNEL_DONE;
	message->result = result;
	give_turn();
}

static inline void *add_record(enum channel_record_kind kind, uint64_t pc, const char *text)
{
	struct channel_record *record = (void *)&channel->log[channel->log_length];

	record->kind = kind;
	record->level = 6;
	record->length = strlen(text);
	record->pc = pc;
	record->size = (sizeof(*record) + record->length + 7) & ~7u;
	memcpy(record->text, text, record->length);
	channel->log_length += record->size;
	return record;
}

static inline void say(const char *text)
{
	add_record(CHANNEL_RECORD_PRINTK, 0, text);
}

static void take_call(void);

int main(void)
{
	channel = mmap(0, sizeof(*channel), PROT_READ | PROT_WRITE, MAP_SHARED, CHANNEL_MEMORY, 0);
	if (channel == MAP_FAILED)
		return 2;
	message = &channel->message;
	for (;;) {
		wait_for_turn();
		take_call();
	}
}
