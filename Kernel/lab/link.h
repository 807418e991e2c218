/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The link between virt-walkerd and the monitor in the emulated host: a stream of frames in both directions, by a port of
 * virtio-serial. All numbers are little-endian. A frame is a struct lab_frame, followed by `length` bytes.
 *
 * The daemon sends requests. The monitor answers each request once, with the same id, in any order. The monitor sends reports at
 * any time; their id is 0.
 */
#ifndef VIRT_WALKER_LAB_LINK_H
#define VIRT_WALKER_LAB_LINK_H

#include <stdint.h>

#define LAB_PORT "virt-walker" /* the name of the port */
#define LAB_MOST_BYTES (64u << 20) /* the longest frame */
#define LAB_MOST_DATA (256u << 10) /* the most bytes of one read, write or ioctl */

struct lab_frame {
	uint32_t length; /* bytes after this structure */
	uint32_t kind;   /* enum lab_kind */
	uint64_t id;
};

enum lab_kind {
	/* Requests */
	/*
	 * struct lab_boot, command line, initramfs: ends the present guest, if any, and boots a new one. -EBUSY: the vCPU of the last guest does
	 * not leave KVM_RUN. -ETIME: the guest's kernel has logged nothing, so the module has not run.
	 */
	LAB_BOOT = 1,
	LAB_CALL = 2,   /* struct lab_call, data: a system call of a client, made by the agent in the guest */
	LAB_WALK = 3,   /* uint64_t address: the entries on the way to the address */
	LAB_TABLES = 4, /* nothing: all stage-2 tables */
	LAB_STEP = 5,   /* text: a host step of docs/scenario.md without the word "host" */
	LAB_TRACE = 6,  /* uint32_t: 1 lets the monitor send the kernel's trace, 0 ends this */
	LAB_HALT = 7,   /* nothing: unloads the module, and ends the guest */
	LAB_PLAY = 8,   /* struct lab_play, text of a scenario: ends the present guest, if any, and lets the recorder run the scenario */

	/* From the monitor */
	LAB_ANSWER = 64,    /* struct lab_answer, visits, data */
	LAB_READY = 65,     /* text: the monitor runs; the release of the host's kernel */
	LAB_GUEST_LOG = 66, /* text of the guest's kernel log, whole lines */
	LAB_HOST_LOG = 67,  /* text of the host's kernel log, whole lines */
	LAB_TRACE_TEXT = 68, /* text of the host's trace_pipe, whole lines */
	LAB_STOPPED = 69,   /* text: the guest does not run any more, and why; all waiting calls were answered with -EIO */
	LAB_ALIVE = 70,     /* nothing: once a second; the daemon takes a silent host for a dead one */
	LAB_PLAYED = 71,    /* text of the recording, whole lines; the last one comes before the answer of LAB_PLAY */
};

/* The machine of a guest. */
struct lab_boot {
	uint64_t memory; /* bytes of RAM, which is at IPA 0x40000000 */
	uint32_t backing; /* enum lab_backing */
	uint32_t ipa_bits; /* 0 for the default of KVM, 40 */
	uint32_t command_line; /* bytes of the command line that follows, without a NUL; the initramfs is the rest */
	uint32_t reserved;
};

enum lab_backing { LAB_ANONYMOUS, LAB_HUGE, LAB_HUGETLB };

/* The scenario follows. The result of the answer is the exit status of the recorder, and the data are its messages. */
struct lab_play {
	uint32_t huge_pages; /* to reserve for guest RAM of the backing hugetlb */
	uint32_t reserved;
};

enum lab_operation {
	LAB_OPEN = 1,   /* data: the path of the node, e.g. /dev/virt_walker; flags; the result is a handle, 0 or more */
	LAB_RELEASE,    /* handle */
	LAB_READ,       /* handle, offset, capacity */
	LAB_WRITE,      /* handle, offset, data */
	LAB_IOCTL,      /* handle, command, argument, data, capacity; see struct lab_call */
	LAB_LSEEK,      /* handle, offset, command: SEEK_SET and so on */
	LAB_POLL,       /* handle, command: events; the result is the set of present events */
	LAB_POLL_WAIT,  /* the same, but the answer comes when an event is there */
	LAB_FLUSH,      /* handle */
	LAB_FSYNC,      /* handle */
	LAB_INTERRUPT,  /* argument: the id of a call that waits; a signal interrupts it. Both calls are answered */
	LAB_ACCESS,     /* argument: a guest physical address; command: enum lab_access; data: the bytes of a store, or capacity */
	LAB_UNLOAD,     /* closes all files, unloads the modules; the data tell in lines what is left of them, or which one stays and why */
	LAB_LOAD,       /* loads the modules again, after LAB_UNLOAD; the data tell why not */
};

/* An access of the agent to a register, by one instruction of 1, 2, 4 or 8 bytes. */
enum lab_access { LAB_LOAD_REGISTER, LAB_STORE_REGISTER };

/* A system call. `size` bytes of data follow. */
struct lab_call {
	uint32_t operation; /* enum lab_operation */
	uint32_t handle;    /* of LAB_OPEN */
	uint32_t flags;     /* of open(2), as arm64 has them */
	uint32_t command;   /* of ioctl(2), lseek(2) or poll(2) */
	/*
	 * The argument of ioctl(2). If `size` or `capacity` is not 0, the argument is instead the address of a buffer that has the
	 * data, and whose first `capacity` bytes are in the answer.
	 */
	uint64_t argument;
	int64_t offset;
	uint32_t size;     /* bytes of data after this structure */
	uint32_t capacity; /* the most bytes of data in the answer */
	uint32_t process, user, group; /* of the client; the agent's thread has the same user and group */
	char name[16];     /* of the client's thread, with a NUL: the module sees it in current->comm */
	uint32_t bad_buffer; /* not 0: the buffer of a read or write is an address without memory */
};

/* The numbers of events since the boot of the host. */
struct lab_counts {
	uint64_t entries; /* into the guest */
	uint64_t translation_faults, access_flag_faults, permission_faults, other_faults; /* stage-2 aborts */
	uint64_t invalidations, invalidations_of_all; /* of stage-2 TLB entries: of an IPA or a range, and of the VM */
	uint64_t mmio_exits; /* to the monitor */
};

/* An answer. `visits` structures lab_visit follow, then `size` bytes of data. */
struct lab_answer {
	int64_t result; /* 0 or more, or -errno */
	uint32_t visits;
	uint32_t size;
	struct lab_counts counts;
};

/*
 * An entry of a stage-2 table. The answer of a call, of a step and of LAB_BOOT has those on the way to IPA 0x40000000, from the start level
 * down; the answer of LAB_WALK has those on the way to its address. The answer of LAB_TABLES has all entries that are not 0, a table's
 * entry before the entries of that table.
 */
struct lab_visit {
	uint32_t level;
	uint32_t index;      /* of the entry in its table */
	uint64_t table;      /* physical address */
	uint64_t entry;
	uint64_t references; /* the reference count of the table's page */
	uint64_t address;    /* the IPA that the entry maps, aligned to its size */
};

#endif
