/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <asm/kvm_asm.h>: the hypervisor's functions that the kernel calls with kvm_call_hyp(). */
#ifndef __ARM_KVM_ASM_H__
#define __ARM_KVM_ASM_H__

#include <linux/types.h>
#include <linux/version.h>

struct kvm_s2_mmu;

/* The daemon does the invalidations when the hook has returned. */
void __kvm_tlb_flush_vmid_ipa(struct kvm_s2_mmu *mmu, phys_addr_t ipa, int level);
void __kvm_tlb_flush_vmid(struct kvm_s2_mmu *mmu);
#define __kvm_tlb_flush_vmid_ipa_nsh(mmu, ipa, level)		__kvm_tlb_flush_vmid_ipa(mmu, ipa, level)
#define __kvm_tlb_flush_vmid_range(mmu, start, pages)		((void)(start), (void)(pages), __kvm_tlb_flush_vmid(mmu))

#endif
