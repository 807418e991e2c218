/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The channel between the daemon and a process that runs a user's code: a kernel module of the guest, or a hook in the host's KVM.
 *
 * The two processes share one struct channel, and have a stream socket each. At any time one of the two has the turn, and the other one
 * waits: the daemon makes a call (enum channel_call), and the code answers. Before its answer, the code can ask the daemon for something
 * (enum channel_request). The daemon answers with CHANNEL_REPLY. In between, it may make calls of another process's code.
 *
 * The daemon trusts nothing in the shared memory: it copies each value once, and checks the copy.
 */
#ifndef CHANNEL_H
#define CHANNEL_H

#include <stdint.h>

#define CHANNEL_VERSION 1

/* The descriptors that the code's process has besides 0 to 2. */
#define CHANNEL_SOCKET 3
#define CHANNEL_MEMORY 4

/* The most bytes of one read, write or ioctl. */
#define CHANNEL_DATA_SIZE (1 << 20)
#define CHANNEL_LOG_SIZE (1 << 18)
#define CHANNEL_FRAMES 32

/* The address that the code has for a program's memory in read() and write(). No memory is there: the code has to use copy_to_user(). */
#define CHANNEL_USER_ADDRESS 0x2aaaaaaa0000ULL

enum channel_side {
	CHANNEL_DAEMON,
	CHANNEL_CODE,
};

/*
 * The calls that the daemon makes. Each is answered by CHANNEL_DONE, or, if it has to wait, by CHANNEL_WAITS. "file" is the number of an
 * open file, and "call" the number of a call that can wait.
 */
enum channel_call {
	/*
	 * Module: insmod. data: the parameters, as for insmod: "name=value name=value". The result is that of the module's init function.
	 * Hook: "geometry" is set. The socket brings the descriptor of the tables' memory before. The result is 0. Answer: [0] 1 if the hook has
	 * CHANNEL_ABORT, [1] 1 if it has CHANNEL_HYPERCALL, [2] and [3] the addresses of the user's functions for these calls, or 0.
	 */
	CHANNEL_START = 1,
	/* Module: rmmod. The code reports what the module has left behind. */
	CHANNEL_STOP,
	/*
	 * arguments: [0] f_flags, [1] uid, [2] gid, [3] pid. data: the name of the node; without data, the first node that the module has made.
	 * The result is 0 or -errno. Answer: [0] 1 if the file has no positions (nonseekable_open(), stream_open()).
	 */
	CHANNEL_OPEN,
	CHANNEL_RELEASE,
	/*
	 * arguments: [0] count, [1] f_pos, [2] f_flags, [3] 1 if the program has no memory at its buffer, so that each copy fails with EFAULT.
	 * Answer: result, data with "length" bytes for the program (from its first byte to the last one that was written), [0] the new f_pos.
	 */
	CHANNEL_READ,
	/* As CHANNEL_READ; data: the program's bytes. */
	CHANNEL_WRITE,
	/*
	 * arguments: [0] command, [1] argument, [2] f_flags, [3] the number of bytes that the program can take. data: the program's bytes at the
	 * argument. Answer: result, data with "length" bytes for the program.
	 */
	CHANNEL_IOCTL,
	/* arguments: [0] offset, [1] whence, [2] f_pos. The result is the new position or -errno. Answer: [0] the new f_pos. */
	CHANNEL_LLSEEK,
	/* arguments: [0] f_flags. The result is the mask of EPOLL events. */
	CHANNEL_POLL,
	/* The call "call" waits: it may go on now. */
	CHANNEL_AGAIN,
	/* The call "call" waits: a signal has come for its program. Nobody wants its result. */
	CHANNEL_INTERRUPT,
	/* Hook: io_mem_abort(). "vcpu" is set. arguments: [0] fault_ipa. The result is that of the function. */
	CHANNEL_ABORT,
	/* Hook: kvm_hvc_call_handler(). "vcpu" is set. */
	CHANNEL_HYPERCALL,
	/* Hook: the tables have other memory, whose descriptor the socket has brought. "geometry" is set. */
	CHANNEL_TABLES,
};

/* The answers and the requests of the code. */
enum channel_request {
	/* The answer to a call. arguments: [7] 1 if the code has woken the calls that wait. */
	CHANNEL_DONE = 101,
	/*
	 * The call waits in the code, e.g. in wait_event(). arguments: [6] the time in ms after which CHANNEL_AGAIN has to come even if nothing
	 * wakes the call, e.g. in wait_event_timeout(), or 0; [7] as above.
	 */
	CHANNEL_WAITS,
	/*
	 * A load or store of the guest. arguments: [0] guest virtual address, [1] size, [2] 1 for a store, [3] value. Reply: [0] value.
	 * If the result is not 0, the guest has stopped: the call is abandoned, and is answered with the result CHANNEL_STOPPED.
	 */
	CHANNEL_ACCESS,
	/* HVC #0 of the guest. arguments: x0 to x6. Reply: x0 to x3; result as for CHANNEL_ACCESS. */
	CHANNEL_HVC,
	/* arguments: [0] guest physical address, [1] size. Reply: [0] guest virtual address; 0 if there is none. */
	CHANNEL_IOREMAP,
	/* arguments: [0] guest virtual address. */
	CHANNEL_IOUNMAP,
	/* A device node is made. data: its name; arguments: [0] minor number, [1] mode or 0, [2] major number. */
	CHANNEL_NODE,
	/* The device node with the name in data is removed. */
	CHANNEL_NODE_GONE,
	/* The log is full: the daemon reads it, and replies. */
	CHANNEL_LOG,
	/* "fault" is set. The process ends after it, and gets no reply. */
	CHANNEL_FAULT,
	/* The daemon's answer to a request. */
	CHANNEL_REPLY = 201,
};

/* The result of a call whose guest has stopped under it. */
#define CHANNEL_STOPPED (-4096)

/* A fault of the code: the reason for which the process ends. */
enum channel_fault_kind {
	/* A signal: SIGSEGV, SIGBUS, SIGFPE, SIGILL. */
	CHANNEL_FAULT_SIGNAL = 1,
	/* The stack has overflowed: endless recursion. */
	CHANNEL_FAULT_STACK,
	/* The code ran too long without a return: an endless loop. */
	CHANNEL_FAULT_LOCKUP,
	/*
	 * BUG(), panic(), a deadlock, a sleep in atomic context that cannot go on, an access of a hook outside the tables: "text" says which.
	 */
	CHANNEL_FAULT_BUG,
	/* AddressSanitizer or UndefinedBehaviorSanitizer; "text" has the report's headline. */
	CHANNEL_FAULT_SANITIZER,
};

/* In texts of faults and findings, an address of the code stands as [<401234>]. The daemon writes file and line in its place. */
struct channel_fault {
	uint32_t kind;
	/* The number of the signal and its si_code. */
	int32_t signal;
	int32_t code;
	/* 1 for a store, 0 for a load, 2 for a fetch, if the signal tells. */
	uint32_t access;
	/* The address of the access. */
	uint64_t address;
	/*
	 * The addresses in the user's code, the innermost one first; frames of the runtime are left out. An address is that of the instruction,
	 * or of the call. The program is linked at fixed addresses (-no-pie).
	 */
	uint32_t frame_count;
	uint32_t reserved;
	uint64_t frames[CHANNEL_FRAMES];
	char text[512];
};

/* The kind of a record of the log. */
enum channel_record_kind {
	/* A line of printk(). */
	CHANNEL_RECORD_PRINTK = 1,
	/* A mistake that does not end the code. "pc" is the place in the user's code. */
	CHANNEL_RECORD_FINDING,
	/* Hook: kvm_pgtable_walk() has come to an entry. pc: its place in the tables' memory in bytes; level: its level. */
	CHANNEL_RECORD_VISIT,
	/* Hook: an invalidation of the TLB. pc: the intermediate physical address; level: its level. The whole VMID: CHANNEL_INVALIDATE_ALL. */
	CHANNEL_RECORD_INVALIDATE,
};

#define CHANNEL_INVALIDATE_ALL 0xffffffffffffffffULL

struct channel_record {
	/* The bytes of the record, a multiple of 8. */
	uint32_t size;
	uint8_t kind;
	/* The level of printk(), 0 to 7. */
	uint8_t level;
	/* The bytes of the text, without a newline at its end. */
	uint16_t length;
	uint64_t pc;
	char text[];
};

/* The stage-2 tables that the hook has in its memory. */
struct channel_geometry {
	/* The size of the shared memory of the tables, in bytes. */
	uint64_t size;
	/* The physical address of its first byte. */
	uint64_t base;
	/* The physical address of the first start-level table. */
	uint64_t pgd;
	uint32_t ipa_bits;
	uint32_t start_level;
	uint32_t page_shift;
	uint32_t reserved;
	/* VTCR_EL2 and the VMID of the machine. */
	uint64_t vtcr;
	uint64_t vmid;
};

/* The registers of the vCPU. The hook changes x, seldom pc and pstate, and may ask to skip the instruction. */
struct channel_vcpu {
	uint64_t x[31];
	uint64_t sp_el1;
	uint64_t pc;
	uint64_t pstate;
	uint64_t esr_el2;
	uint64_t far_el2;
	uint64_t hpfar_el2;
	/*
	 * The number of times that the daemon moves the program counter after this call: for kvm_incr_pc() 1, however often it was called;
	 * in Linux 5.10 the number of kvm_skip_instr(). "pc" does not contain these moves, but those of the hook by hand: vcpu_pc().
	 */
	uint32_t increments;
	/* The exit to the VMM, if the result of io_mem_abort() is 0. The fields after the reason are those of KVM_EXIT_MMIO. */
	uint32_t exit_reason;
	uint32_t exit_is_write;
	uint32_t exit_length;
	uint64_t exit_address;
	uint64_t exit_data;
};

struct channel_message {
	uint32_t kind;
	/* The bytes in data. */
	uint32_t length;
	int64_t result;
	uint64_t call;
	uint64_t file;
	uint64_t arguments[8];
};

struct channel {
	/* CHANNEL_VERSION. The process that starts the code writes it before the start, and the daemon writes it once more. */
	uint32_t version;
	/* The side that has the turn (enum channel_side). */
	uint32_t turn;
	/* A side sets its element before it sleeps; the other side then sends it a byte. */
	uint32_t is_sleeping[2];
	/* The number of times that a side looks at "turn" before it sleeps. The daemon sets it: 0 on one CPU. */
	uint32_t spins;
	/* The bytes of records in "log". The side with the turn changes it. */
	uint32_t log_length;
	struct channel_message message;
	struct channel_vcpu vcpu;
	struct channel_geometry geometry;
	struct channel_fault fault;
	uint8_t log[CHANNEL_LOG_SIZE];
	uint8_t data[CHANNEL_DATA_SIZE];
};

/* The places of the two large arrays, for languages that do not import arrays of that size. */
static inline uint8_t *channel_log(struct channel *channel)
{
	return channel->log;
}

static inline uint8_t *channel_data(struct channel *channel)
{
	return channel->data;
}

/* The size of the shared memory, for the same reason. */
static inline uint64_t channel_size(void)
{
	return sizeof(struct channel);
}

/* Whether a side has the turn. */
static inline int channel_has_turn(const struct channel *channel, uint32_t side)
{
	return __atomic_load_n(&channel->turn, __ATOMIC_SEQ_CST) == side;
}

/* Says that a side is about to sleep. Returns whether it still may: it has no turn yet. */
static inline int channel_begin_sleep(struct channel *channel, uint32_t side)
{
	__atomic_store_n(&channel->is_sleeping[side], 1, __ATOMIC_SEQ_CST);
	return !channel_has_turn(channel, side);
}

static inline void channel_end_sleep(struct channel *channel, uint32_t side)
{
	__atomic_store_n(&channel->is_sleeping[side], 0, __ATOMIC_SEQ_CST);
}

/* Gives the turn to a side. Returns whether that side sleeps, so that it needs a byte by the socket. */
static inline int channel_give_turn(struct channel *channel, uint32_t side)
{
	__atomic_store_n(&channel->turn, side, __ATOMIC_SEQ_CST);
	return __atomic_load_n(&channel->is_sleeping[side], __ATOMIC_SEQ_CST) != 0;
}

/* What a side knows of its waits. */
struct channel_waits {
	/* The number of waits without a look that follow the next look in vain, and those that are left now. */
	uint32_t most, left;
};

/*
 * Looks for the turn up to "spins" times before a sleep. Returns whether it has come.
 *
 * To look pays only while the other side runs on another CPU. After a look in vain, a side therefore sleeps at once for some waits, and twice
 * as many after each further look in vain.
 */
static inline int channel_spin(const struct channel *channel, uint32_t side, uint32_t spins, struct channel_waits *waits)
{
	if (waits->left) {
		waits->left--;
		return channel_has_turn(channel, side);
	}
	for (uint32_t i = 0; i < spins && i < 1000000; i++) {
		if (channel_has_turn(channel, side)) {
			waits->most = 0;
			return 1;
		}
#if defined(__x86_64__)
		__builtin_ia32_pause();
#elif defined(__aarch64__)
		__asm__ volatile("yield");
#endif
	}
	waits->most = waits->most < 255 ? 2 * waits->most + 1 : 255;
	waits->left = waits->most;
	return channel_has_turn(channel, side);
}

#endif
