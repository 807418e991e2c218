// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * kvm_pgtable_walk() and kvm_pgtable_get_leaf(), as arch/arm64/kvm/hyp/pgtable.c of each version has them. The walk tells the daemon each
 * entry that it comes to.
 *
 * The functions are weak: if a user's pgtable.c is compiled with the hook, the program has the functions of that file.
 */
#include "hook.h"

#define LAST_LEVEL	3

struct walk {
	struct kvm_pgtable *pgt;
	struct kvm_pgtable_walker *walker;
	u64 start;
	u64 addr;
	u64 end;
};

/* log2 of the bytes that an entry maps. */
static unsigned int level_shift(int level)
{
	return ARM64_HW_PGTABLE_LEVEL_SHIFT(level);
}

static bool is_table(kvm_pte_t pte, int level)
{
	return level != LAST_LEVEL && (pte & 3) == 3;
}

static kvm_pte_t *table_of(kvm_pte_t pte)
{
	u64 physical = pte & GENMASK_ULL(47, PAGE_SHIFT);

	if (PAGE_SHIFT == 16)
		physical |= (pte >> 12 & 0xf) << 48;
	return hook_phys_to_virt(physical);
}

static int call_visitor(struct walk *walk, u64 addr, int level, kvm_pte_t *ptep, kvm_pte_t old,
			enum kvm_pgtable_walk_flags visit)
{
	struct kvm_pgtable_walker *walker = walk->walker;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
	struct kvm_pgtable_visit_ctx ctx = {
		.ptep = ptep,
		.old = old,
		.arg = walker->arg,
		.mm_ops = walk->pgt->mm_ops,
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
		.start = walk->start,
#endif
		.addr = addr,
		.end = walk->end,
		.level = level,
		.flags = walker->flags,
	};

	return walker->cb(&ctx, visit);
#else
	(void)old;
	return walker->cb(addr, walk->end, level, ptep, visit, walker->arg);
#endif
}

/* Whether the walk goes on after a result of a visitor. */
static bool goes_on(const struct kvm_pgtable_walker *walker, int result)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 19, 0)
	if (result == -EAGAIN)
		return walker->flags & KVM_PGTABLE_WALK_IGNORE_EAGAIN;
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
	if (result == -EAGAIN)
		return !(walker->flags & KVM_PGTABLE_WALK_HANDLE_FAULT);
#else
	(void)walker;
#endif
	return !result;
}

static int walk_table(struct walk *walk, kvm_pte_t *table, int level);

static int visit_entry(struct walk *walk, kvm_pte_t *ptep, int level)
{
	enum kvm_pgtable_walk_flags flags = walk->walker->flags;
	kvm_pte_t old = READ_ONCE(*ptep);
	u64 addr = walk->addr;
	bool table = is_table(old, level);
	int result = 0;

	hook_report_visit(ptep, level);
	if (table && flags & KVM_PGTABLE_WALK_TABLE_PRE) {
		result = call_visitor(walk, addr, level, ptep, old, KVM_PGTABLE_WALK_TABLE_PRE);
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
		/* The visitor may have put another table there. */
		old = READ_ONCE(*ptep);
		table = is_table(old, level);
#endif
	} else if (!table && flags & KVM_PGTABLE_WALK_LEAF) {
		result = call_visitor(walk, addr, level, ptep, old, KVM_PGTABLE_WALK_LEAF);
		/* The visitor may have put a table there. */
		old = READ_ONCE(*ptep);
		table = is_table(old, level);
	}
	if (!goes_on(walk->walker, result))
		return result;
	if (!table) {
		walk->addr = ALIGN_DOWN(walk->addr, 1ULL << level_shift(level)) + (1ULL << level_shift(level));
		return 0;
	}
	result = walk_table(walk, table_of(old), level + 1);
	if (!goes_on(walk->walker, result))
		return result;
	if (flags & KVM_PGTABLE_WALK_TABLE_POST)
		result = call_visitor(walk, addr, level, ptep, old, KVM_PGTABLE_WALK_TABLE_POST);
	return goes_on(walk->walker, result) ? 0 : result;
}

static int walk_table(struct walk *walk, kvm_pte_t *table, int level)
{
	int result = 0;
	u32 index = walk->addr >> level_shift(level) & (PTRS_PER_PTE - 1);

	for (; index < PTRS_PER_PTE && walk->addr < walk->end && !result; index++)
		result = visit_entry(walk, &table[index], level);
	return result;
}

/* The number of the start-level table for an address. The tables lie side by side. */
static u32 start_table(const struct kvm_pgtable *pgt, u64 addr)
{
	return (addr & (BIT_ULL(pgt->ia_bits) - 1)) >> level_shift((int)pgt->start_level - 1);
}

__weak int kvm_pgtable_walk(struct kvm_pgtable *pgt, u64 addr, u64 size, struct kvm_pgtable_walker *walker)
{
	u64 start = ALIGN_DOWN(addr, PAGE_SIZE);
	struct walk walk = {
		.pgt = pgt,
		.walker = walker,
		.start = start,
		.addr = start,
		.end = ALIGN(start + size, PAGE_SIZE),
	};
	u64 limit = BIT_ULL(pgt->ia_bits);
	int result = 0;
	u32 index;

	if (!(walker->flags & (KVM_PGTABLE_WALK_LEAF | KVM_PGTABLE_WALK_TABLE_PRE | KVM_PGTABLE_WALK_TABLE_POST)))
		hook_report_walk("kvm_pgtable_walk() has a walker without flags: its visitor is never called. Entries of pages and blocks "
				 "need KVM_PGTABLE_WALK_LEAF");
	if (walk.addr > limit || walk.end > limit) {
		hook_report_walk("kvm_pgtable_walk() from 0x%llx to 0x%llx fails with -34 (ERANGE): the guest has addresses of %u bits",
				 walk.addr, walk.end, pgt->ia_bits);
		return -ERANGE;
	}
	if (!pgt->pgd)
		return -EINVAL;
	for (index = start_table(pgt, walk.addr); walk.addr < walk.end && !result; index++)
		result = walk_table(&walk, &pgt->pgd[index * PTRS_PER_PTE], pgt->start_level);
	return result;
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 15, 0)
struct leaf {
	kvm_pte_t pte;
	hook_level_t level;
};

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
static int visit_leaf(const struct kvm_pgtable_visit_ctx *ctx, enum kvm_pgtable_walk_flags visit)
{
	(void)visit;
	*(struct leaf *)ctx->arg = (struct leaf){ ctx->old, ctx->level };
	return 0;
}
#else
static int visit_leaf(u64 addr, u64 end, u32 level, kvm_pte_t *ptep, enum kvm_pgtable_walk_flags flag, void * const arg)
{
	(void)addr, (void)end, (void)flag;
	*(struct leaf *)arg = (struct leaf){ *ptep, level };
	return 0;
}
#endif

__weak int kvm_pgtable_get_leaf(struct kvm_pgtable *pgt, u64 addr, kvm_pte_t *ptep, hook_level_t *level)
{
	struct leaf leaf = {};
	struct kvm_pgtable_walker walker = {
		.cb = visit_leaf,
		.arg = &leaf,
		.flags = KVM_PGTABLE_WALK_LEAF,
	};
	int result = kvm_pgtable_walk(pgt, ALIGN_DOWN(addr, PAGE_SIZE), PAGE_SIZE, &walker);

	if (result)
		return result;
	if (ptep)
		*ptep = leaf.pte;
	if (level)
		*level = leaf.level;
	return 0;
}
#endif
