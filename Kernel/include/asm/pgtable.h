/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <asm/pgtable.h>. The host's own tables are no part of the model: a hook works with the tables of stage 2. */
#ifndef __ASM_PGTABLE_H
#define __ASM_PGTABLE_H

#include <asm/pgtable-hwdef.h>
#include <asm/pgtable-prot.h>
#include <asm/pgtable-types.h>

#endif
