/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The parts of the kernel that arch/arm64/kvm/hyp/pgtable.c and its headers need, for user
 * space. The file is under the kernel's license, because it is compiled into one program with
 * them. The program is built and run here, and not distributed.
 *
 * All other headers that they include are empty. kvm_pgtable.h, stage2_pgtable.h,
 * pgtable-hwdef.h, pgtable-prot.h, kvm_arm.h and the memory types of memory.h come from the
 * kernel. LINUX_VERSION is the kernel's version, as KERNEL_VERSION() makes it.
 */
#ifndef STUB_H
#define STUB_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KERNEL_VERSION(version, patchlevel) ((version) << 16 | (patchlevel) << 8)

typedef uint8_t u8;
typedef int8_t s8;
typedef uint32_t u32;
typedef unsigned long u64; /* the type of BIT() */
typedef u64 phys_addr_t;
typedef u64 pteval_t;
typedef u64 kvm_pfn_t;

#define UL(x)		x##UL
#define _AT(type, x)	((type)(x))
#define PAGE_SIZE	(1UL << PAGE_SHIFT)
#define SZ_4K		0x1000
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
#define __phys_to_pfn(phys)	((phys) >> PAGE_SHIFT)
#define min(a, b)		((a) < (b) ? (a) : (b))
#define container_of(pointer, type, member) \
	((type *)((char *)(pointer) - offsetof(type, member)))
#define unlikely(condition)	(condition)
#define ERR_PTR(error)		((void *)(long)(error))
#define PTR_ERR(pointer)	((long)(pointer))
#define IS_ERR(pointer)		((u64)(pointer) >= (u64)-4095)

#define READ_ONCE(x)		(*(volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, value)	(*(volatile typeof(x) *)&(x) = (value))
#define smp_store_release(p, value) WRITE_ONCE(*(p), value)
/* There is one thread. */
#define cmpxchg(p, old, new)	({			\
	typeof(*(p)) __old = READ_ONCE(*(p));		\
	if (__old == (old))				\
		WRITE_ONCE(*(p), new);			\
	__old; })
#define __rcu
#define rcu_dereference_check(p, condition) (p)
#define rcu_dereference_raw(p)	(p)
#define rcu_read_lock()		((void)0)
#define rcu_read_unlock()	((void)0)
#define rcu_read_lock_held()	true
struct rb_root_cached { void *root; };
#define dsb(domain)		((void)0)
#define isb()			((void)0)

void warn(void);
#define WARN_ON(condition)	({ bool __warn = (condition); if (__warn) warn(); __warn; })
#define WARN_ON_ONCE(condition)	WARN_ON(condition)

/*
 * The CPU. Without 52 bits, it has physical addresses of 48 bits, and the kernel has no
 * CONFIG_ARM64_PA_BITS_52. The harness's VTCR_EL2 has no use for the other features.
 */
enum { ARM64_HAS_STAGE2_FWB, ARM64_HAS_XNX, ARM64_KVM_HVHE, ARM64_WORKAROUND_AMPERE_AC03_CPU_38 };
extern bool cpu_has[4], cpu_has_tlb_range, cpu_has_52_bits;
#define cpus_have_const_cap(cap)	cpu_has[cap]
#define cpus_have_final_cap(cap)	cpu_has[cap]
#define system_supports_tlb_range()	cpu_has_tlb_range
#define system_supports_lpa2()		(cpu_has_52_bits && PAGE_SHIFT != 16)
#define system_supports_bti_kernel()	false
#define IS_ENABLED(option)		cpu_has_52_bits /* the code asks for CONFIG_ARM64_PA_BITS_52 only */
#define ID_AA64MMFR0_EL1_PARANGE_SHIFT	0
#define ID_AA64MMFR0_EL1_PARANGE_MAX	5
#define ID_AA64MMFR0_EL1_PARANGE_48	5
#define ID_AA64MMFR0_EL1_PARANGE_52	6
#define id_aa64mmfr0_parange_to_phys_shift(parange) ((parange) == 6 ? 52 : 48)
#define cpuid_feature_extract_unsigned_field(value, shift) ((value) >> (shift) & 0xf)
#define get_vmid_bits(mmfr1)		16

/* Fields of VTCR_EL2 that the kernel generates from a description (arch/arm64/tools/sysreg). */
#if LINUX_VERSION >= KERNEL_VERSION(7, 0)
#define VTCR_EL2_T0SZ	GENMASK(5, 0)
#define VTCR_EL2_SL0	GENMASK(7, 6)
#define VTCR_EL2_SL0_MASK VTCR_EL2_SL0
#define VTCR_EL2_PS	GENMASK(18, 16)
#define VTCR_EL2_VS	BIT(19)
#define VTCR_EL2_DS	BIT(32)
#define VTCR_EL2_RES1	BIT(31)
#define SYS_FIELD_PREP_ENUM(reg, field, value) 0UL
#endif

struct kvm_mmu_memory_cache { int nobjs; };
#if LINUX_VERSION < KERNEL_VERSION(5, 11)
struct kvm_pgtable;
struct kvm_s2_mmu { struct kvm_pgtable *pgt; };
struct kvm_arch { u64 vtcr; struct kvm_s2_mmu mmu; };
struct kvm { struct kvm_arch arch; };
#else
struct kvm_arch { u64 vtcr; };
struct kvm_s2_mmu {
	struct kvm_pgtable *pgt;
	struct kvm_arch *arch;
	u64 vtcr; /* from 6.6 on, in place of that of arch */
	struct kvm_mmu_memory_cache split_page_cache;
};
#endif

#define kvm_call_hyp(function, ...) function(__VA_ARGS__)
void __kvm_tlb_flush_vmid_ipa(struct kvm_s2_mmu *mmu, phys_addr_t ipa, int level);
void __kvm_tlb_flush_vmid_ipa_nsh(struct kvm_s2_mmu *mmu, phys_addr_t ipa, int level);
void __kvm_tlb_flush_vmid_range(struct kvm_s2_mmu *mmu, phys_addr_t start, unsigned long pages);
void __kvm_tlb_flush_vmid(struct kvm_s2_mmu *mmu);
/* 32 pages of the largest scale: what one range instruction can name. */
#define MAX_TLBI_RANGE_PAGES	(32UL << 16)
#define TLBI_TTL_UNKNOWN	0x7fffffff
/* The hypervisor's own stage 1 is compiled, but not run. */
#define __tlbi_level(operation, address, level) ((void)0)
#define __TLBI_VADDR(address, asid) (address)
#define __tlbi_sync_s1ish_hyp()	((void)0)

/* The memory of tables, which the code of 5.10 asks for without struct kvm_pgtable_mm_ops. */
void *zalloc_page(void *memcache);
void *zalloc_pages_exact(size_t size);
void free_pages_exact(void *addr, size_t size);
void get_page(void *addr);
void put_page(void *addr);
int page_count(void *addr);
void *phys_to_virt(phys_addr_t phys);
phys_addr_t virt_to_phys(void *addr);
void dcache_clean_inval_poc(void *addr, size_t size);
#define virt_to_page(addr)	((void *)(addr))
#define __va(phys)		phys_to_virt(phys)
#define __pa(addr)		virt_to_phys(addr)
#define alloc_pages_exact(size, flags) zalloc_pages_exact(size)
#define get_zeroed_page(flags)	((unsigned long)zalloc_page(NULL))
#define free_page(addr)		put_page((void *)(addr))
#define kvm_mmu_memory_cache_alloc(cache) zalloc_page(cache)
#define __flush_dcache_area(addr, size) dcache_clean_inval_poc(addr, size)

/* The headers that linux/kvm_host.h and linux/pgtable.h include. */
#include <asm/kvm_arm.h>
#include <asm/pgtable-prot.h>

#endif
