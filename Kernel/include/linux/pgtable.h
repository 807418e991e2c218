/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <linux/pgtable.h>. */
#ifndef _LINUX_PGTABLE_H
#define _LINUX_PGTABLE_H

#include <asm/pgtable.h>

#endif
