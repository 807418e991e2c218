/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef ASM_PAGE_H
#define ASM_PAGE_H

#include <linux/align.h>
#include <linux/const.h>

#ifndef PAGE_SHIFT
#define PAGE_SHIFT 12
#endif
#define PAGE_SIZE (_AC(1, UL) << PAGE_SHIFT)
#define PAGE_MASK (~(PAGE_SIZE - 1))
#define PAGE_ALIGN(address) ALIGN(address, PAGE_SIZE)
#define PAGE_ALIGNED(address) IS_ALIGNED((unsigned long)(address), PAGE_SIZE)
#define offset_in_page(pointer) ((unsigned long)(pointer) & ~PAGE_MASK)
#define clear_page(page) memset(page, 0, PAGE_SIZE)
#define copy_page(to, from) memcpy(to, from, PAGE_SIZE)

#endif
