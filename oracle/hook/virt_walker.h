/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __ARM64_KVM_VIRT_WALKER_H__
#define __ARM64_KVM_VIRT_WALKER_H__

#ifdef __KVM_NVHE_HYPERVISOR__

/* The page-table code is built for EL2 as well, for EL2's own tables. The observer does not read these. */
static inline void virt_walker_trace_tlbi_ipa(u64 ipa, int level) { }
static inline void virt_walker_trace_tlbi_ipa_nsh(u64 ipa, int level) { }
static inline void virt_walker_trace_tlbi_range(u64 ipa, unsigned long pages) { }
static inline void virt_walker_trace_tlbi_vmid(void) { }

#else

#include <linux/kvm_host.h>

/* The hook: returns 0 if it declines the access, 1 if the guest continues, or -errno. */
int virt_walker_mmio(struct kvm_vcpu *vcpu, phys_addr_t ipa, bool is_write, int len,
		     unsigned long rt);

void virt_walker_trace_abort(struct kvm_vcpu *vcpu);
void virt_walker_trace_tlbi_ipa(u64 ipa, int level);
void virt_walker_trace_tlbi_ipa_nsh(u64 ipa, int level);
void virt_walker_trace_tlbi_range(u64 ipa, unsigned long pages);
void virt_walker_trace_tlbi_vmid(void);

#endif
#endif
