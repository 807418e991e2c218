/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <asm/kvm_pgtable.h>: stage-2 tables, and the walk over their entries. */
#ifndef __ARM64_KVM_PGTABLE_H__
#define __ARM64_KVM_PGTABLE_H__

#include <linux/bitfield.h>
#include <linux/bits.h>
#include <linux/kvm_host.h>
#include <linux/types.h>
#include <linux/version.h>

typedef u64 kvm_pte_t;

/* From 5.15 on, other files know the form of an entry, too. Before, a file has its own macros and functions for it. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 15, 0)
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
#define KVM_PGTABLE_FIRST_LEVEL		-1
#define KVM_PGTABLE_LAST_LEVEL		3
#else
#define KVM_PGTABLE_MAX_LEVELS		4U
#endif

#ifdef CONFIG_ARM64_4K_PAGES
#define KVM_PGTABLE_MIN_BLOCK_LEVEL	1
#else
#define KVM_PGTABLE_MIN_BLOCK_LEVEL	2
#endif

#define KVM_PTE_VALID			BIT(0)

static inline bool kvm_pte_valid(kvm_pte_t pte)
{
	return pte & KVM_PTE_VALID;
}

static inline u64 kvm_granule_shift(hook_level_t level)
{
	return ARM64_HW_PGTABLE_LEVEL_SHIFT(level);
}

static inline u64 kvm_granule_size(hook_level_t level)
{
	return BIT(kvm_granule_shift(level));
}

static inline bool kvm_level_supports_block_mapping(hook_level_t level)
{
	return level >= KVM_PGTABLE_MIN_BLOCK_LEVEL;
}
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 17, 0)
#define KVM_PTE_ADDR_MASK		GENMASK(47, PAGE_SHIFT)
#define KVM_PTE_ADDR_51_48		GENMASK(15, 12)

static inline u64 kvm_pte_to_phys(kvm_pte_t pte)
{
	u64 pa = pte & KVM_PTE_ADDR_MASK;

	if (PAGE_SHIFT == 16)
		pa |= FIELD_GET(KVM_PTE_ADDR_51_48, pte) << 48;
	return pa;
}
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
#define KVM_PHYS_INVALID		(-1ULL)

static inline kvm_pte_t kvm_phys_to_pte(u64 pa)
{
	kvm_pte_t pte = pa & KVM_PTE_ADDR_MASK;

	if (PAGE_SHIFT == 16)
		pte |= FIELD_PREP(KVM_PTE_ADDR_51_48, (pa >> 48) & 0xf);
	return pte;
}

static inline kvm_pfn_t kvm_pte_to_pfn(kvm_pte_t pte)
{
	return __phys_to_pfn(kvm_pte_to_phys(pte));
}
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
#define KVM_PTE_LEAF_ATTR_LO		GENMASK(11, 2)
#define KVM_PTE_LEAF_ATTR_LO_S2_MEMATTR	GENMASK(5, 2)
#define KVM_PTE_LEAF_ATTR_LO_S2_S2AP_R	BIT(6)
#define KVM_PTE_LEAF_ATTR_LO_S2_S2AP_W	BIT(7)
#define KVM_PTE_LEAF_ATTR_LO_S2_SH	GENMASK(9, 8)
#define KVM_PTE_LEAF_ATTR_LO_S2_SH_IS	3
#define KVM_PTE_LEAF_ATTR_LO_S2_AF	BIT(10)
#define KVM_PTE_LEAF_ATTR_HI		GENMASK(63, 50)
#define KVM_PTE_LEAF_ATTR_HI_SW		GENMASK(58, 55)
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
#define KVM_PTE_TYPE			BIT(1)
#define KVM_PTE_TYPE_BLOCK		0
#define KVM_PTE_TYPE_PAGE		1
#define KVM_PTE_TYPE_TABLE		1
#define KVM_PTE_LEAF_ATTR_HI_S2_XN	GENMASK(54, 53)
#else
#define KVM_PTE_LEAF_ATTR_HI_S2_XN	BIT(54)
#endif
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0)
/* The functions for the memory of the tables. A hook has those for addresses; page counts are the daemon's. */
struct kvm_pgtable_mm_ops {
	void *(*zalloc_page)(void *arg);
	void *(*zalloc_pages_exact)(size_t size);
	void (*free_pages_exact)(void *addr, size_t size);
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	void (*free_unlinked_table)(void *addr, hook_level_t level);
#endif
	void (*get_page)(void *addr);
	void (*put_page)(void *addr);
	int (*page_count)(void *addr);
	void *(*phys_to_virt)(phys_addr_t phys);
	phys_addr_t (*virt_to_phys)(void *addr);
	void (*dcache_clean_inval_poc)(void *addr, size_t size);
	void (*icache_inval_pou)(void *addr, size_t size);
};
#endif

/* The entries at which a walk calls its visitor, and the rules for the walk. */
enum kvm_pgtable_walk_flags {
	/* Entries that point to no table, valid or not. */
	KVM_PGTABLE_WALK_LEAF = BIT(0),
	/* Tables, before the walk goes to their entries. */
	KVM_PGTABLE_WALK_TABLE_PRE = BIT(1),
	/* Tables, after the walk has been at their entries. */
	KVM_PGTABLE_WALK_TABLE_POST = BIT(2),
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
	KVM_PGTABLE_WALK_SHARED = BIT(3),
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 19, 0)
	/* -EAGAIN of the visitor does not end the walk. */
	KVM_PGTABLE_WALK_IGNORE_EAGAIN = BIT(4),
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	/* -EAGAIN of the visitor ends the walk. Without the flag, it does not. */
	KVM_PGTABLE_WALK_HANDLE_FAULT = BIT(4),
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	KVM_PGTABLE_WALK_SKIP_BBM_TLBI = BIT(5),
	KVM_PGTABLE_WALK_SKIP_CMO = BIT(6),
#endif
};

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
/* One call of a visitor. */
struct kvm_pgtable_visit_ctx {
	kvm_pte_t *ptep;
	/* The entry before the call. */
	kvm_pte_t old;
	void *arg;
	struct kvm_pgtable_mm_ops *mm_ops;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	/* The first address of the walk. */
	u64 start;
#endif
	u64 addr;
	/* The end of the walk, exclusive. */
	u64 end;
	hook_level_t level;
	enum kvm_pgtable_walk_flags flags;
};

typedef int (*kvm_pgtable_visitor_fn_t)(const struct kvm_pgtable_visit_ctx *ctx, enum kvm_pgtable_walk_flags visit);

static inline bool kvm_pgtable_walk_shared(const struct kvm_pgtable_visit_ctx *ctx)
{
	return ctx->flags & KVM_PGTABLE_WALK_SHARED;
}

typedef kvm_pte_t *kvm_pteref_t;
#else
typedef int (*kvm_pgtable_visitor_fn_t)(u64 addr, u64 end, u32 level, kvm_pte_t *ptep,
					enum kvm_pgtable_walk_flags flag, void * const arg);
#endif

struct kvm_pgtable_walker {
	const kvm_pgtable_visitor_fn_t cb;
	void * const arg;
	const enum kvm_pgtable_walk_flags flags;
};

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
static inline kvm_pte_t *kvm_dereference_pteref(struct kvm_pgtable_walker *walker, kvm_pteref_t pteref)
{
	(void)walker;
	return pteref;
}
#endif

enum kvm_pgtable_prot {
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
	KVM_PGTABLE_PROT_PX = BIT(0),
	KVM_PGTABLE_PROT_UX = BIT(1),
	KVM_PGTABLE_PROT_X = KVM_PGTABLE_PROT_PX | KVM_PGTABLE_PROT_UX,
	KVM_PGTABLE_PROT_W = BIT(2),
	KVM_PGTABLE_PROT_R = BIT(3),
	KVM_PGTABLE_PROT_DEVICE = BIT(4),
#else
	KVM_PGTABLE_PROT_X = BIT(0),
	KVM_PGTABLE_PROT_W = BIT(1),
	KVM_PGTABLE_PROT_R = BIT(2),
	KVM_PGTABLE_PROT_DEVICE = BIT(3),
#endif
};

#define KVM_PGTABLE_PROT_RW	(KVM_PGTABLE_PROT_R | KVM_PGTABLE_PROT_W)
#define KVM_PGTABLE_PROT_RWX	(KVM_PGTABLE_PROT_RW | KVM_PGTABLE_PROT_X)

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0)
enum kvm_pgtable_stage2_flags {
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 0, 0)
	KVM_PGTABLE_S2_IDMAP = BIT(0),
	KVM_PGTABLE_S2_AS_S1 = BIT(1),
#else
	KVM_PGTABLE_S2_NOFWB = BIT(0),
	KVM_PGTABLE_S2_IDMAP = BIT(1),
#endif
};

typedef bool (*kvm_pgtable_force_pte_cb_t)(u64 addr, u64 end, enum kvm_pgtable_prot prot);
#endif

/*
 * The tables: the bits of an address, the level of the first tables, and their first entry. The fields lie as in the kernel of each version,
 * because the user's files may come with the kernel's own header.
 */
struct kvm_pgtable {
	u32 ia_bits;
	hook_level_t start_level;
	kvm_pte_t *pgd;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0)
	struct kvm_pgtable_mm_ops *mm_ops;
#endif
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 14, 0)
	struct kvm_s2_mmu *mmu;
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0)
	enum kvm_pgtable_stage2_flags flags;
	kvm_pgtable_force_pte_cb_t force_pte_cb;
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 14, 0)
	struct kvm_s2_mmu *mmu;
#endif
};

/*
 * Visits the entries for "size" bytes from "addr", in the order of their addresses. The first error of the visitor ends the walk, and is
 * the result. -ERANGE: the addresses are beyond ia_bits.
 */
int kvm_pgtable_walk(struct kvm_pgtable *pgt, u64 addr, u64 size, struct kvm_pgtable_walker *walker);

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 15, 0)
/* Gives the entry, valid or not, that decides over "addr", and its level. */
int kvm_pgtable_get_leaf(struct kvm_pgtable *pgt, u64 addr, kvm_pte_t *ptep, hook_level_t *level);
#endif

#define HOOK_NO_TABLES	HOOK_UNSUPPORTED("the model makes and removes mappings itself, and a hook can only walk and change entries")
int kvm_pgtable_stage2_map(struct kvm_pgtable *pgt, u64 addr, u64 size, u64 phys, enum kvm_pgtable_prot prot, ...)
	HOOK_NO_TABLES;
int kvm_pgtable_stage2_unmap(struct kvm_pgtable *pgt, u64 addr, u64 size) HOOK_NO_TABLES;
int kvm_pgtable_stage2_wrprotect(struct kvm_pgtable *pgt, u64 addr, u64 size) HOOK_NO_TABLES;
int kvm_pgtable_stage2_relax_perms(struct kvm_pgtable *pgt, u64 addr, enum kvm_pgtable_prot prot, ...) HOOK_NO_TABLES;
int kvm_pgtable_stage2_flush(struct kvm_pgtable *pgt, u64 addr, u64 size) HOOK_NO_TABLES;
kvm_pte_t kvm_pgtable_stage2_mkyoung(struct kvm_pgtable *pgt, u64 addr, ...) HOOK_NO_TABLES;
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
kvm_pte_t kvm_pgtable_stage2_mkold(struct kvm_pgtable *pgt, u64 addr) HOOK_NO_TABLES;
bool kvm_pgtable_stage2_is_young(struct kvm_pgtable *pgt, u64 addr) HOOK_NO_TABLES;
#endif

#endif
