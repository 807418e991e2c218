/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <asm/pgtable-hwdef.h>: the bits of an entry of a translation table. */
#ifndef __ASM_PGTABLE_HWDEF_H
#define __ASM_PGTABLE_HWDEF_H

#include <linux/types.h>

#include <asm/memory.h>

/* Each table has one page. An entry has 8 bytes. */
#define ARM64_HW_PGTABLE_LEVELS(va_bits)	(((va_bits) - 4) / (PAGE_SHIFT - 3))
#define ARM64_HW_PGTABLE_LEVEL_SHIFT(n)		((PAGE_SHIFT - 3) * (4 - (n)) + 3)

#define PTRS_PER_PTE	(1 << (PAGE_SHIFT - 3))
#define PTRS_PER_PMD	PTRS_PER_PTE
#define PTRS_PER_PUD	PTRS_PER_PTE

#define PMD_SHIFT	ARM64_HW_PGTABLE_LEVEL_SHIFT(2)
#define PMD_SIZE	(1UL << PMD_SHIFT)
#define PMD_MASK	(~(PMD_SIZE - 1))
#define PUD_SHIFT	ARM64_HW_PGTABLE_LEVEL_SHIFT(1)
#define PUD_SIZE	(1UL << PUD_SHIFT)
#define PUD_MASK	(~(PUD_SIZE - 1))

#define PUD_TYPE_TABLE	((u64)3 << 0)
#define PUD_TYPE_MASK	((u64)3 << 0)
#define PUD_TYPE_SECT	((u64)1 << 0)
#define PUD_TABLE_BIT	((u64)1 << 1)

#define PMD_TYPE_TABLE	((u64)3 << 0)
#define PMD_TYPE_MASK	((u64)3 << 0)
#define PMD_TYPE_SECT	((u64)1 << 0)
#define PMD_TABLE_BIT	((u64)1 << 1)
#define PMD_SECT_VALID	((u64)1 << 0)

#define PTE_VALID	((u64)1 << 0)
#define PTE_TYPE_MASK	((u64)3 << 0)
#define PTE_TYPE_PAGE	((u64)3 << 0)
#define PTE_TABLE_BIT	((u64)1 << 1)
#define PTE_AF		((u64)1 << 10)
#define PTE_ADDR_LOW	((((u64)1 << (48 - PAGE_SHIFT)) - 1) << PAGE_SHIFT)
#define PTE_ADDR_MASK	PTE_ADDR_LOW

/* Stage 2 */
#define PTE_S2_MEMATTR(t)	((u64)(t) << 2)
#define PTE_S2_RDONLY		((u64)1 << 6)
#define PTE_S2_RDWR		((u64)3 << 6)
#define PTE_S2_XN		((u64)2 << 53)
#define PTE_S2_SW_RESVD		((u64)15 << 55)

#define PHYS_MASK_SHIFT	48
#define PHYS_MASK	(((u64)1 << PHYS_MASK_SHIFT) - 1)

#endif
