// SPDX-License-Identifier: GPL-2.0-only
/* The part of the observer that is inside of KVM. The builder of a lab adds this file to KVM. */
#include <linux/export.h>

#include "invalidation.h"

void (*virt_walker_invalidation)(const char *function, u64 address, u64 number);
EXPORT_SYMBOL_GPL(virt_walker_invalidation);

struct kvm_vcpu *virt_walker_running_vcpu(void)
{
	return kvm_get_running_vcpu();
}
EXPORT_SYMBOL_GPL(virt_walker_running_vcpu);
