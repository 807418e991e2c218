/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <kvm/arm_hypercalls.h>: the hypercalls of a guest. */
#ifndef __KVM_ARM_HYPERCALLS_H
#define __KVM_ARM_HYPERCALLS_H

#include <asm/kvm_emulate.h>
#include <kvm/hook_firmware.h>

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
int kvm_smccc_call_handler(struct kvm_vcpu *vcpu);
#else
int kvm_hvc_call_handler(struct kvm_vcpu *vcpu);
#endif

static inline u32 smccc_get_function(struct kvm_vcpu *vcpu)
{
	return vcpu_get_reg(vcpu, 0);
}

static inline unsigned long smccc_get_arg1(struct kvm_vcpu *vcpu)
{
	return vcpu_get_reg(vcpu, 1);
}

static inline unsigned long smccc_get_arg2(struct kvm_vcpu *vcpu)
{
	return vcpu_get_reg(vcpu, 2);
}

static inline unsigned long smccc_get_arg3(struct kvm_vcpu *vcpu)
{
	return vcpu_get_reg(vcpu, 3);
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 10, 0)
#define smccc_get_arg(vcpu, n)	vcpu_get_reg(vcpu, n)
#endif

static inline void smccc_set_retval(struct kvm_vcpu *vcpu, unsigned long a0, unsigned long a1, unsigned long a2,
				    unsigned long a3)
{
	vcpu_set_reg(vcpu, 0, a0);
	vcpu_set_reg(vcpu, 1, a1);
	vcpu_set_reg(vcpu, 2, a2);
	vcpu_set_reg(vcpu, 3, a3);
}

#endif
