/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <asm/virt.h>: the host's kernel runs at EL2, as on a CPU with FEAT_VHE. */
#ifndef __ASM__VIRT_H
#define __ASM__VIRT_H

#include <linux/types.h>

static inline bool is_kernel_in_hyp_mode(void)
{
	return true;
}

static inline bool has_vhe(void)
{
	return true;
}

static inline bool is_hyp_mode_available(void)
{
	return true;
}

#endif
