/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <asm/memory.h>: from physical to virtual addresses of the host, and back. */
#ifndef __ASM_MEMORY_H
#define __ASM_MEMORY_H

#include <linux/types.h>

#include <asm/page-def.h>

/*
 * The tables of stage 2 are in memory that this process shares with the daemon. Each other physical address has a virtual address that
 * faults, and the message says which physical address the code has taken for a table.
 */
void *hook_phys_to_virt(phys_addr_t phys);
phys_addr_t hook_virt_to_phys(const volatile void *address);

static inline void *phys_to_virt(phys_addr_t phys)
{
	return hook_phys_to_virt(phys);
}

static inline phys_addr_t virt_to_phys(const volatile void *address)
{
	return hook_virt_to_phys(address);
}

#define __va(phys)		hook_phys_to_virt((phys_addr_t)(phys))
#define __pa(address)		hook_virt_to_phys((const volatile void *)(unsigned long)(address))
#define __phys_to_virt(phys)	((unsigned long)hook_phys_to_virt((phys_addr_t)(phys)))
#define __virt_to_phys(address)	__pa(address)

#define __phys_to_pfn(phys)	((unsigned long)((phys) >> PAGE_SHIFT))
#define __pfn_to_phys(pfn)	((phys_addr_t)(pfn) << PAGE_SHIFT)
#define PFN_PHYS(pfn)		__pfn_to_phys(pfn)
#define PHYS_PFN(phys)		__phys_to_pfn(phys)
#define PFN_DOWN(address)	((address) >> PAGE_SHIFT)
#define PFN_UP(address)		(((address) + PAGE_SIZE - 1) >> PAGE_SHIFT)
#define pfn_to_kaddr(pfn)	__va(__pfn_to_phys(pfn))
#define virt_to_pfn(address)	__phys_to_pfn(__pa(address))

/* Indexes of memory types, and the attributes of stage 2: without and with FEAT_S2FWB. */
#define MT_NORMAL			0
#define MT_NORMAL_TAGGED		1
#define MT_NORMAL_NC			2
#define MT_DEVICE_nGnRnE		3
#define MT_DEVICE_nGnRE			4
#define MT_S2_NORMAL			0xf
#define MT_S2_NORMAL_NC			5
#define MT_S2_DEVICE_nGnRE		1
#define MT_S2_AS_S1			MT_S2_NORMAL
#define MT_S2_FWB_NORMAL		6
#define MT_S2_FWB_NORMAL_NC		5
#define MT_S2_FWB_DEVICE_nGnRE		1
#define MT_S2_FWB_AS_S1			7

#endif
