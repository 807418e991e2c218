/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's arch/arm64/kvm/trace.h: the trace points do nothing. */
#ifndef _TRACE_ARM64_KVM_H
#define _TRACE_ARM64_KVM_H

#define trace_kvm_guest_fault(pc, esr, far, ipa)	((void)(pc), (void)(esr), (void)(far), (void)(ipa))
#define trace_kvm_mmio_nisv(pc, esr, far, ipa)		((void)(pc), (void)(esr), (void)(far), (void)(ipa))
#define trace_kvm_mmio_emulate(pc, instr, cpsr)		((void)(pc), (void)(instr), (void)(cpsr))
#define trace_kvm_hvc_arm64(pc, r0, imm)		((void)(pc), (void)(r0), (void)(imm))
#define trace_kvm_access_fault(ipa)			((void)(ipa))

#endif
