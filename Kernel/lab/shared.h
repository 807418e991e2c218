/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The memory that the monitor shares with its guest: a memory slot of its own, above the guest's RAM, so that no step of the host on RAM
 * touches it. The guest has no emulated device. The agent's side of each word below is written by the agent only, and the other way round.
 */
#ifndef VIRT_WALKER_LAB_SHARED_H
#define VIRT_WALKER_LAB_SHARED_H

#include "link.h"

#define SHARED_ADDRESS 0x80000000UL /* guest physical */
#define SHARED_SIZE (18u << 20)
#define SHARED_CONSOLE (1u << 20) /* offset of the console's ring, which the guest's ramoops writes */
#define SHARED_CONSOLE_SIZE (1u << 20)
#define SHARED_DATA (2u << 20) /* offset of the data of slot 0 */
#define SHARED_SLOTS 64

#define SHARED_REPORT_SIZE (64u << 10)
#define SHARED_SYMBOLS_SIZE (16u << 10)

#define AGENT_NODE "virt-walker-lab" /* the device tree's node with the agent's interrupt */

enum slot_state { SLOT_FREE, SLOT_REQUESTED, SLOT_RUNNING, SLOT_DONE };

/* A call. The monitor makes it requested and free, the agent running and done. */
struct shared_slot {
	uint32_t state; /* enum slot_state */
	uint32_t interrupted; /* by the monitor: signals the call until it is done */
	struct lab_call call;
	int64_t result;
	uint32_t size; /* of the answer's data */
	uint32_t reserved;
};

struct shared {
	/* Of the agent */
	uint32_t heartbeat;
	uint32_t is_waiting; /* for an interrupt; the monitor makes it 0 when it sends one */
	uint32_t is_ready;   /* the modules are loaded, or not: the result, and the names of the nodes or a message */
	uint32_t is_halted;  /* the modules are unloaded, or not: the same */
	int64_t result;
	uint32_t report_size;
	uint32_t symbols_size;
	/* Of the monitor */
	uint32_t is_halting;
	uint32_t reserved;

	struct shared_slot slots[SHARED_SLOTS];
	char report[SHARED_REPORT_SIZE];
	char symbols[SHARED_SYMBOLS_SIZE]; /* lines like those of /proc/kallsyms: the modules' code */
};

_Static_assert(sizeof(struct shared) <= SHARED_CONSOLE, "the shared words fit");
_Static_assert(SHARED_DATA + SHARED_SLOTS * LAB_MOST_DATA <= SHARED_SIZE, "the data fit");

#define shared_load(pointer) __atomic_load_n(pointer, __ATOMIC_SEQ_CST)
#define shared_store(pointer, value) __atomic_store_n(pointer, value, __ATOMIC_SEQ_CST)

#endif
