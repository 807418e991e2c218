// SPDX-License-Identifier: GPL-2.0-only
/*
 * KVM with many hooks: each io_mem_abort_NAME() is that of arch/arm64/kvm/mmio.c with the lines of one example. The parameter kvm.lab_hook
 * selects one of them.
 */
#include <linux/kvm_host.h>
#include <linux/module.h>
#include <asm/kvm_emulate.h>

#define LAB_HOOK(name) int io_mem_abort_##name(struct kvm_vcpu *vcpu, phys_addr_t fault_ipa);
#include "lab/hooks.h"
#undef LAB_HOOK

static char *lab_hook = "built_in";
module_param(lab_hook, charp, 0644);

int io_mem_abort(struct kvm_vcpu *vcpu, phys_addr_t fault_ipa)
{
#define LAB_HOOK(name) if (!strcmp(lab_hook, #name)) return io_mem_abort_##name(vcpu, fault_ipa);
#include "lab/hooks.h"
#undef LAB_HOOK
	return -EINVAL;
}
