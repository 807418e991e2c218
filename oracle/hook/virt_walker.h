/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __ARM64_KVM_VIRT_WALKER_H__
#define __ARM64_KVM_VIRT_WALKER_H__

#ifdef __KVM_NVHE_HYPERVISOR__

/* The page-table code is built for EL2 as well, for EL2's own tables. Nobody watches those. */
static inline void virt_walker_trace_tlbi_ipa(u64 ipa, u32 level) { }
static inline void virt_walker_trace_tlbi_vmid(void) { }

#else

#include <linux/kvm_host.h>

/* The hook: 0 if the access is not its own, 1 if the guest goes on, or -errno. */
int virt_walker_mmio(struct kvm_vcpu *vcpu, phys_addr_t ipa, bool is_write, int len,
		     unsigned long rt);

void virt_walker_trace_abort(struct kvm_vcpu *vcpu);
void virt_walker_trace_tlbi_ipa(u64 ipa, u32 level);
void virt_walker_trace_tlbi_vmid(void);

#endif
#endif
