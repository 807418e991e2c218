/* A hook for tests, which walks by hand. BEHAVIOUR selects a mistake. */
#include <errno.h>
#include <signal.h>

#include "peer.h"

#define RIGHT 0
#define NO_INCREMENT 1
#define RETURNS_ZERO 2
#define SHIFT_50 3
#define KEEPS_BITS 4
#define OTHER_BITS 5
#define OTHER_ENTRY 6
#define CLEARS_VALID 7
#define WIDE_READ 8
#define CRASHES 9
#define RETURNS_ERROR 10
#define UNKNOWN_ERROR 11
#define TWO_INCREMENTS 12
#define VISITS 13
#define WILD_TABLE 14
#define EXITS 15
#define WILD_VISIT 16
#define NO_TABLE 17
#define GOES_BACK 18

#ifndef BEHAVIOUR
#define BEHAVIOUR RIGHT
#endif

static uint8_t *tables;

static uint64_t *table_at(uint64_t address)
{
	return (uint64_t *)(tables + (address - channel->geometry.base));
}

static uint64_t *walk(uint64_t address)
{
	const struct channel_geometry *geometry = &channel->geometry;
	uint64_t *table = table_at(geometry->pgd);

	for (int level = geometry->start_level;; level++) {
		int shift = geometry->page_shift + (3 - level) * (geometry->page_shift - 3);
		uint64_t mask = level == (int)geometry->start_level ? ~0ull : (1ull << (geometry->page_shift - 3)) - 1;
		uint64_t *entry = &table[(address >> shift) & mask];

#if BEHAVIOUR == VISITS
		struct channel_record *record = add_record(CHANNEL_RECORD_VISIT, (uint8_t *)entry - tables, "");

		record->level = level;
#endif
		if (level == 3 || (*entry & 3) != 3)
			return entry;
		table = table_at(*entry & 0xfffffffff000ull);
	}
}

static void map_tables(void)
{
	while (received < 0)
		read_socket();
	tables = mmap(0, channel->geometry.size, PROT_READ | PROT_WRITE, MAP_SHARED, received, 0);
	close(received);
	received = -1;
	if (tables == MAP_FAILED)
		_exit(5);
}

static int64_t handle(uint64_t address)
{
	struct channel_vcpu *vcpu = &channel->vcpu;
	int is_write = vcpu->esr_el2 >> 6 & 1;
	int rt = vcpu->esr_el2 >> 16 & 31;
	int shift = BEHAVIOUR == SHIFT_50 ? 50 : 51;
	uint64_t *entry;

	if (BEHAVIOUR == GOES_BACK && address == 0x0c000000) {
		vcpu->pc -= 4;
		return 1;
	}
	if (address < 0x0b000000 || address > 0x0b000001) {
		vcpu->exit_reason = 6;
		vcpu->exit_is_write = is_write;
		vcpu->exit_address = address;
		vcpu->exit_length = 1 << (vcpu->esr_el2 >> 22 & 3);
		vcpu->exit_data = vcpu->x[rt];
		return 0;
	}
	if (BEHAVIOUR == RETURNS_ZERO) {
		vcpu->exit_reason = 6;
		vcpu->exit_length = 1;
		return 0;
	}
	if (BEHAVIOUR == RETURNS_ERROR)
		return -EBUSY;
	if (BEHAVIOUR == UNKNOWN_ERROR)
		return -517;
	if (BEHAVIOUR == EXITS)
		_exit(7);
	entry = walk(0x40000000);
	if (is_write) {
		uint64_t byte = vcpu->x[rt] & 0xff;

		if (BEHAVIOUR == CRASHES) {
			channel->fault.kind = CHANNEL_FAULT_SIGNAL;
			channel->fault.signal = SIGSEGV;
			channel->fault.address = 0;
			channel->fault.frame_count = 0;
			message->kind = CHANNEL_FAULT;
			give_turn();
			_exit(1);
		}
		if (BEHAVIOUR != KEEPS_BITS)
			*entry &= ~(0xffull << shift);
		*entry |= byte << shift;
		if (BEHAVIOUR == OTHER_BITS)
			*entry ^= 1 << 10;
		if (BEHAVIOUR == OTHER_ENTRY)
			entry[1] ^= 1ull << 55;
		if (BEHAVIOUR == CLEARS_VALID)
			*entry &= ~1ull;
		if (BEHAVIOUR == WILD_TABLE)
			*table_at(channel->geometry.pgd) = channel->geometry.pgd | 3;
		if (BEHAVIOUR == NO_TABLE)
			table_at(channel->geometry.pgd)[1] = (channel->geometry.base + channel->geometry.size) | 3;
		if (BEHAVIOUR == WILD_VISIT) {
			struct channel_record *record = add_record(CHANNEL_RECORD_VISIT, ~7ull, "");

			record->level = 200;
		}
	} else {
		vcpu->x[rt] = *entry >> shift & (BEHAVIOUR == WIDE_READ ? ~0ull : 0xff);
	}
	if (BEHAVIOUR != NO_INCREMENT)
		vcpu->increments++;
	if (BEHAVIOUR == TWO_INCREMENTS)
		vcpu->increments++;
	return 1;
}

static void take_call(void)
{
	int64_t result = 0;

	switch (message->kind) {
	case CHANNEL_START:
	case CHANNEL_TABLES:
		map_tables();
		message->length = 0;
		message->arguments[0] = message->arguments[1] = 1;
		message->arguments[2] = (uint64_t)&handle;
		message->arguments[3] = (uint64_t)&take_call;
		answer(0);
		return;
	case CHANNEL_HYPERCALL:
		say("a hypercall");
		channel->vcpu.increments = 0;
		if (channel->vcpu.x[0] == 1)
			_exit(7);
		channel->vcpu.x[0] += channel->vcpu.x[6];
		result = 1;
		break;
	case CHANNEL_ABORT:
		say("the hook is called");
		channel->vcpu.increments = 0;
		add_record(CHANNEL_RECORD_INVALIDATE, 0x40001000, "");
		result = handle(message->arguments[0]);
		break;
	}
	message->length = 0;
	memset(message->arguments, 0, sizeof(message->arguments));
	answer(result);
}
