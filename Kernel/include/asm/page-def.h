/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <asm/page-def.h>: the size of a page of the host. The builder chooses it with -DPAGE_SHIFT. */
#ifndef __ASM_PAGE_DEF_H
#define __ASM_PAGE_DEF_H

#include <asm/page.h>

#define CONFIG_ARM64_PAGE_SHIFT	PAGE_SHIFT
#define CONFIG_PAGE_SHIFT	PAGE_SHIFT
#if PAGE_SHIFT == 12
#define CONFIG_ARM64_4K_PAGES	1
#elif PAGE_SHIFT == 14
#define CONFIG_ARM64_16K_PAGES	1
#elif PAGE_SHIFT == 16
#define CONFIG_ARM64_64K_PAGES	1
#else
#error "arm64 has pages of 4, 16 and 64 KiB: PAGE_SHIFT is 12, 14 or 16"
#endif

#endif
