/* The kernel's <asm/kvm_ras.h>: a hook needs nothing of it. */
#ifndef __ASM_KVM_RAS_H
#define __ASM_KVM_RAS_H
#endif
