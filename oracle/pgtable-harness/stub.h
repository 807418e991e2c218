/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The parts of the kernel that arch/arm64/kvm/hyp/pgtable.c and its headers need, for user
 * space. The file is under the kernel's license, because it is compiled into one program with
 * them. The program is built and run here, and not distributed.
 *
 * All other headers that they include are empty. kvm_pgtable.h, stage2_pgtable.h,
 * pgtable-hwdef.h, pgtable-prot.h, kvm_arm.h and the memory types of memory.h come from the
 * kernel.
 */
#ifndef STUB_H
#define STUB_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef unsigned long u64; /* the type of BIT() */
typedef u64 phys_addr_t;
typedef u64 pteval_t;

#define UL(x)		x##UL
#define _AT(type, x)	((type)(x))
#define PAGE_SIZE	(1UL << PAGE_SHIFT)
#if PAGE_SHIFT == 12
#define CONFIG_ARM64_4K_PAGES 1
#elif PAGE_SHIFT == 14
#define CONFIG_ARM64_16K_PAGES 1
#else
#define CONFIG_ARM64_64K_PAGES 1
#endif

#define BIT(n)			(1UL << (n))
#define GENMASK(high, low)	((~0UL >> (63 - (high))) & (~0UL << (low)))
#define FIELD_GET(mask, value)	((typeof(mask))(((value) & (mask)) >> __builtin_ctzl(mask)))
#define FIELD_PREP(mask, value)	(((typeof(mask))(value) << __builtin_ctzl(mask)) & (mask))
#define ALIGN_DOWN(x, size)	((x) & ~((typeof(x))(size) - 1))
#define IS_ALIGNED(x, size)	(((x) & ((typeof(x))(size) - 1)) == 0)
#define PAGE_ALIGN(x)		ALIGN_DOWN((x) + PAGE_SIZE - 1, PAGE_SIZE)

#define WRITE_ONCE(x, value)	(*(volatile typeof(x) *)&(x) = (value))
#define smp_store_release(p, value) WRITE_ONCE(*(p), value)
#define dsb(domain)		((void)0)
#define isb()			((void)0)

void warn(void);
#define WARN_ON(condition)	({ bool __warn = (condition); if (__warn) warn(); __warn; })
#define WARN_ON_ONCE(condition)	WARN_ON(condition)

/* A CPU with 48-bit physical addresses, and a kernel without CONFIG_ARM64_PA_BITS_52. */
#define ID_AA64MMFR0_EL1_PARANGE_SHIFT	0
#define ID_AA64MMFR0_EL1_PARANGE_MAX	5
#define id_aa64mmfr0_parange_to_phys_shift(parange) 48
#define cpuid_feature_extract_unsigned_field(value, shift) ((value) >> (shift) & 0xf)
#define get_vmid_bits(mmfr1)		16
#define ARM64_HAS_STAGE2_FWB		0
extern bool cpu_has_fwb;
#define cpus_have_const_cap(cap)	cpu_has_fwb /* the code asks for no other capability */

struct kvm_arch { u64 vtcr; };
struct kvm_s2_mmu { struct kvm_pgtable *pgt; struct kvm_arch *arch; };

#define kvm_call_hyp(function, ...) function(__VA_ARGS__)
void __kvm_tlb_flush_vmid_ipa(struct kvm_s2_mmu *mmu, phys_addr_t ipa, int level);
void __kvm_tlb_flush_vmid(struct kvm_s2_mmu *mmu);
/* The hypervisor's own stage 1 is compiled, but not run. */
#define __tlbi_level(operation, address, level) ((void)0)
#define __tlbi_sync_s1ish_hyp()	((void)0)

/* The headers that linux/kvm_host.h and linux/pgtable.h include. */
#include <asm/kvm_arm.h>
#include <asm/pgtable-prot.h>

#endif
