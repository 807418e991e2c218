/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tells the observer each invalidation of stage-2 TLB entries. Nothing outside of KVM can see these calls: on a CPU without VHE, each one is an HVC
 * instruction in the middle of a function.
 *
 * The builder of a lab includes this file first in each file of KVM with `kvm_call_hyp(__kvm_tlb_flush_vmid...`, and replaces kvm_call_hyp there
 * by virt_walker_call_hyp. The numbers of the lines stay the same.
 */
#ifndef VIRT_WALKER_LAB_INVALIDATION_H
#define VIRT_WALKER_LAB_INVALIDATION_H

#ifdef __KVM_NVHE_HYPERVISOR__

/* The page-table code is built for EL2 as well, for EL2's own tables. */
#define virt_walker_call_hyp kvm_call_hyp

#else

#include <linux/kvm_host.h>

/* Set by the observer. `number` is a level or a number of pages, as the function has it. */
extern void (*virt_walker_invalidation)(const char *function, u64 address, u64 number);

static inline void virt_walker_tell_invalidation(const char *function, u64 address, u64 number)
{
	if (READ_ONCE(virt_walker_invalidation))
		virt_walker_invalidation(function, address, number);
}

/* A function without an address or a number gets zeros. */
#define virt_walker_tell(function, mmu, address, number, ...) \
	virt_walker_tell_invalidation(function, address, number)

#define virt_walker_call_hyp(function, ...)				\
	do {								\
		virt_walker_tell(#function, __VA_ARGS__, 0, 0, 0);	\
		kvm_call_hyp(function, __VA_ARGS__);			\
	} while (0)

/* kvm_get_running_vcpu() for the observer: recent versions export KVM's functions to KVM's own modules only. */
struct kvm_vcpu *virt_walker_running_vcpu(void);

#endif
#endif
