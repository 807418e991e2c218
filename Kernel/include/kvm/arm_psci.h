/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <kvm/arm_psci.h>: the calls of a guest to the firmware. */
#ifndef __KVM_ARM_PSCI_H__
#define __KVM_ARM_PSCI_H__

#include <linux/kvm_host.h>

/* The model's CPU has no power states: each function is NOT_SUPPORTED. */
int kvm_psci_call(struct kvm_vcpu *vcpu);

#endif
