/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The ioctls of /dev/virt_walker_observer, between the monitor and the module of the host's kernel. */
#ifndef VIRT_WALKER_LAB_OBSERVER_H
#define VIRT_WALKER_LAB_OBSERVER_H

#ifdef __KERNEL__
#include <linux/ioctl.h>
#include <linux/types.h>
typedef __u32 uint32_t;
typedef __u64 uint64_t;
#else
#include <stdint.h>
#include <sys/ioctl.h>
#endif

/* The same as struct lab_visit of link.h. */
struct observer_visit {
	uint32_t level;
	uint32_t index;
	uint64_t table;
	uint64_t entry;
	uint64_t references;
	uint64_t address;
};

struct observer_walk {
	uint32_t vm;       /* the file descriptor of the virtual machine */
	uint32_t all;      /* 0: the entries on the way to the address; 1: all entries that are not 0 */
	uint64_t address;  /* guest physical */
	uint64_t visits;   /* address of room for the visits */
	uint32_t capacity; /* the most visits */
	uint32_t count;    /* of the visits, also those without room */
};

/* The last stage-2 abort of vCPU 0, as KVM has saved it. */
struct observer_fault {
	uint32_t vm;
	uint32_t reserved;
	uint64_t esr, far, hpfar;
};

/* The same as struct lab_counts of link.h, without mmio_exits. All virtual machines since the boot of the host count. */
struct observer_counts {
	uint64_t entries;
	uint64_t translation_faults, access_flag_faults, permission_faults, other_faults;
	uint64_t invalidations, invalidations_of_all;
};

#define OBSERVER_WALK _IOWR('w', 1, struct observer_walk)
#define OBSERVER_FAULT _IOWR('w', 2, struct observer_fault)
#define OBSERVER_COUNTS _IOR('w', 3, struct observer_counts)

#endif
