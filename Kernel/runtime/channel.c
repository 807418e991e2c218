// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Turns, requests and records: the code's side of the channel. */
#include "runtime.h"
#include "system.h"

struct channel *runtime_channel;

static int received_descriptor = -1;

void runtime_channel_open(void)
{
	long address = system(SYS_MMAP, NULL, sizeof(struct channel), PROT_READ | PROT_WRITE, MAP_SHARED, CHANNEL_MEMORY, 0);

	if (IS_ERR_VALUE(address))
		runtime_exit(2);
	runtime_channel = (struct channel *)address;
	if (runtime_channel->version != CHANNEL_VERSION)
		runtime_exit(3);
}

/* Reads one byte of the socket. A descriptor can come with it. */
static void read_socket(void)
{
	struct {
		size_t length;
		int level;
		int type;
		int descriptor;
		int padding;
	} control = { .length = 0 };
	u8 byte;
	struct {
		void *base;
		size_t length;
	} vector = { &byte, 1 };
	struct {
		void *name;
		u32 name_length;
		void *vector;
		size_t vector_count;
		void *control;
		size_t control_length;
		int flags;
	} header = { .vector = &vector, .vector_count = 1, .control = &control, .control_length = sizeof(control) };
	long count = system(SYS_RECVMSG, CHANNEL_SOCKET, &header, 0);

	if (count == 0 || (count < 0 && count != -EINTR))
		runtime_exit(0);
	/* SOL_SOCKET, SCM_RIGHTS */
	if (count > 0 && header.control_length >= 20 && control.level == 1 && control.type == 1) {
		if (received_descriptor >= 0)
			system(SYS_CLOSE, received_descriptor);
		received_descriptor = control.descriptor;
	}
}

int runtime_take_descriptor(void)
{
	int descriptor;

	while (received_descriptor < 0)
		read_socket();
	descriptor = received_descriptor;
	received_descriptor = -1;
	return descriptor;
}

void runtime_wait_for_turn(void)
{
	static struct channel_waits waits;

	if (channel_spin(runtime_channel, CHANNEL_CODE, runtime_channel->spins, &waits))
		return;
	while (channel_begin_sleep(runtime_channel, CHANNEL_CODE))
		read_socket();
	channel_end_sleep(runtime_channel, CHANNEL_CODE);
}

void runtime_send(const struct channel_message *message)
{
	runtime_channel->message = *message;
	if (channel_give_turn(runtime_channel, CHANNEL_DAEMON) && system(SYS_WRITE, CHANNEL_SOCKET, "", 1) == -EPIPE)
		runtime_exit(0);
}

void runtime_request(struct channel_message *message)
{
	runtime_send(message);
	runtime_wait_for_turn();
	*message = runtime_channel->message;
}

/* printk() continues this record, if the daemon has not read it yet. */
static u32 open_record = -1;

void runtime_log(enum channel_record_kind kind, int level, u64 pc, const char *text, size_t length)
{
	struct channel *channel = runtime_channel;
	struct channel_record *record;
	size_t size;

	length = min_t(size_t, length, 4096);
	size = ALIGN(sizeof(*record) + length, 8);
	if (channel->log_length > CHANNEL_LOG_SIZE - size) {
		struct channel_message message = { .kind = CHANNEL_LOG };

		runtime_request(&message);
		if (channel->log_length > CHANNEL_LOG_SIZE - size)
			return;
	}
	record = (void *)&channel->log[channel->log_length];
	record->size = size;
	record->kind = kind;
	record->level = level;
	record->length = length;
	record->pc = pc;
	memcpy(record->text, text, length);
	channel->log_length += size;
	open_record = -1;
}

/* Text of printk(): a line, the begin of one, or what continues it. */
void runtime_log_text(int level, u64 pc, const char *text, size_t length, bool continues)
{
	struct channel *channel = runtime_channel;
	bool is_complete = length && text[length - 1] == '\n';
	u32 begin;

	if (is_complete)
		length--;
	if (continues && open_record < channel->log_length) {
		struct channel_record *record = (void *)&channel->log[open_record];
		size_t total = record->length + length;
		size_t size = ALIGN(sizeof(*record) + total, 8);

		if (open_record + record->size == channel->log_length && total <= 4096 && open_record + size <= CHANNEL_LOG_SIZE) {
			memcpy(&record->text[record->length], text, length);
			record->length = total;
			record->size = size;
			channel->log_length = open_record + size;
			if (is_complete)
				open_record = -1;
			return;
		}
	}
	runtime_log(CHANNEL_RECORD_PRINTK, level, pc, text, length);
	begin = channel->log_length - ALIGN(sizeof(struct channel_record) + length, 8);
	open_record = is_complete ? (u32)-1 : begin;
}
