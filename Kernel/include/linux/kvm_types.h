/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <linux/kvm_types.h>: KVM's types of addresses. */
#ifndef __KVM_TYPES_H__
#define __KVM_TYPES_H__

#include <linux/bits.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/version.h>

#include <asm/kvm_types.h>

struct kvm;
struct kvm_vcpu;
struct kvm_run;
struct kvm_memory_slot;
struct kvm_one_reg;

/* g: guest, h: host; va: virtual address, pa: physical address, fn: frame number. */
typedef unsigned long gva_t;
typedef u64 gpa_t;
typedef u64 gfn_t;
typedef unsigned long hva_t;
typedef u64 hpa_t;
typedef u64 hfn_t;
typedef hfn_t kvm_pfn_t;

/*
 * A function of the kernel that the model has not got for a hook. A call of it does not compile, and the compiler's message names the
 * line with the call and the reason.
 */
#define HOOK_UNSUPPORTED(reason)	__attribute__((error(reason "; run this hook on the real kernel: --engine kernel")))

/* Pages for tables, allocated before they are needed. */
struct kvm_mmu_memory_cache {
	int nobjs;
	gfp_t gfp_zero;
	struct kmem_cache *kmem_cache;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
	int capacity;
	void **objects;
#else
	void *objects[KVM_ARCH_NR_OBJS_PER_MEMORY_CACHE];
#endif
};

#define INVALID_GPA	(~(gpa_t)0)
#define GPA_INVALID	INVALID_GPA

#endif
