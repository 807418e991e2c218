/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <asm/kvm_coproc.h>: a hook needs nothing of it. */
#ifndef __ASM_KVM_COPROC_H
#define __ASM_KVM_COPROC_H
#endif
