// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * The registers of the vCPU, with checks. A mistake that the kernel takes without a word is told as a finding, at the line of the user's
 * code that makes it. The result is the kernel's in each case.
 */
#include "hook.h"

#include <kvm/arm_psci.h>

unsigned long vcpu_get_reg(const struct kvm_vcpu *vcpu, u8 reg_num)
{
	if (reg_num > 31) {
		if (hook_is_new(HOOK_FINDING_REGISTER_NUMBER))
			runtime_finding("vcpu_get_reg() of register %u: the numbers are 0 to 30, and 31 for the zero register "
				"(kvm_vcpu_dabt_get_rd() has the one of the access)", reg_num);
		return 0;
	}
	return reg_num == 31 ? 0 : vcpu_gp_regs(vcpu)->regs[reg_num];
}

/* Tells what is wrong with a value for a load of the guest, or with any value for a store. */
static void check_value(struct kvm_vcpu *vcpu, u8 reg_num, unsigned long val)
{
	unsigned int length = kvm_vcpu_dabt_get_as(vcpu);
	int wanted = kvm_vcpu_dabt_get_rd(vcpu);

	if (!kvm_vcpu_dabt_isvalid(vcpu))
		return;
	if (kvm_vcpu_dabt_iswrite(vcpu)) {
		if (hook_is_new(HOOK_FINDING_STORE))
			runtime_finding("vcpu_set_reg() changes x%u of the guest in a store to 0x%llx: a store changes no "
				"register, only a load does", reg_num, hook_call.ipa);
		return;
	}
	if (reg_num != wanted) {
		if (hook_is_new(HOOK_FINDING_OTHER_REGISTER))
			runtime_finding("vcpu_set_reg() changes x%u of the guest, but its load from 0x%llx wants the value in "
				"x%d: kvm_vcpu_dabt_get_rd() has the number", reg_num, hook_call.ipa, wanted);
		return;
	}
	hook_call.is_loaded = true;
	if (!kvm_vcpu_dabt_issext(vcpu) && length < 8 && val >> (8 * length) && hook_is_new(HOOK_FINDING_WIDE_VALUE))
		runtime_finding("vcpu_set_reg() gives the guest's load of %u byte%s from 0x%llx the value 0x%lx, which has more "
			"bits: the guest sees them in x%u", length, length == 1 ? "" : "s", hook_call.ipa, val, reg_num);
}

void vcpu_set_reg(struct kvm_vcpu *vcpu, u8 reg_num, unsigned long val)
{
	if (reg_num > 31) {
		if (hook_is_new(HOOK_FINDING_REGISTER_NUMBER))
			runtime_finding("vcpu_set_reg() of register %u: the numbers are 0 to 30, and 31 for the zero register "
				"(kvm_vcpu_dabt_get_rd() has the one of the access)", reg_num);
		return;
	}
	if (hook_call.is_abort)
		check_value(vcpu, reg_num, val);
	if (reg_num != 31)
		vcpu_gp_regs(vcpu)->regs[reg_num] = val;
}

static void count_increment(const char *function, const char *effect)
{
	if (!hook_call.increments++)
		hook_call.increment_pc = runtime_caller();
	else if (hook_is_new(HOOK_FINDING_TWICE))
		runtime_finding("%s is called a second time for one access of the guest: %s", function, effect);
	if (hook_call.is_hypercall && hook_is_new(HOOK_FINDING_HYPERCALL))
		runtime_finding("%s in a hypercall: the program counter is behind the HVC already, so that the guest misses the "
			"instruction after it", function);
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 11, 0)
void kvm_incr_pc(struct kvm_vcpu *vcpu)
{
	count_increment("kvm_incr_pc()",
		"this version only sets a flag, and moves the program counter once; Linux 5.10 would skip two instructions");
	vcpu_set_flag(vcpu, INCREMENT_PC);
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 19, 0)
	vcpu->arch.flags |= KVM_ARM64_INCREMENT_PC;
#endif
}
#else
void kvm_skip_instr(struct kvm_vcpu *vcpu, bool is_wide_instr)
{
	(void)is_wide_instr;
	count_increment("kvm_skip_instr()", "the guest misses the instruction after its access");
	*vcpu_pc(vcpu) += 4;
	*vcpu_cpsr(vcpu) &= ~(unsigned long)(PSR_BTYPE_MASK | DBG_SPSR_SS);
}
#endif

/* An exception for the guest ends the hook: the channel has no way to deliver it. */
#define CANNOT_INJECT(name) \
	runtime_fault(CHANNEL_FAULT_BUG, \
		      name ": the model does not deliver exceptions of a hook to the guest; run this hook on the real kernel: --engine kernel")

void kvm_inject_undefined(struct kvm_vcpu *vcpu)
{
	(void)vcpu;
	CANNOT_INJECT("kvm_inject_undefined()");
}

void kvm_inject_size_fault(struct kvm_vcpu *vcpu)
{
	(void)vcpu;
	CANNOT_INJECT("kvm_inject_size_fault()");
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 17, 0)
int kvm_inject_sea(struct kvm_vcpu *vcpu, bool iabt, u64 addr)
{
	(void)vcpu, (void)iabt, (void)addr;
	CANNOT_INJECT("kvm_inject_sea()");
	return -ENOSYS;
}

int kvm_inject_serror_esr(struct kvm_vcpu *vcpu, u64 esr)
{
	(void)vcpu, (void)esr;
	CANNOT_INJECT("kvm_inject_serror_esr()");
	return -ENOSYS;
}
#else
void kvm_inject_vabt(struct kvm_vcpu *vcpu)
{
	(void)vcpu;
	CANNOT_INJECT("kvm_inject_vabt()");
}

void kvm_inject_dabt(struct kvm_vcpu *vcpu, unsigned long addr)
{
	(void)vcpu, (void)addr;
	CANNOT_INJECT("kvm_inject_dabt()");
}

void kvm_inject_pabt(struct kvm_vcpu *vcpu, unsigned long addr)
{
	(void)vcpu, (void)addr;
	CANNOT_INJECT("kvm_inject_pabt()");
}
#endif

int kvm_psci_call(struct kvm_vcpu *vcpu)
{
	vcpu_gp_regs(vcpu)->regs[0] = -1;
	vcpu_gp_regs(vcpu)->regs[1] = vcpu_gp_regs(vcpu)->regs[2] = vcpu_gp_regs(vcpu)->regs[3] = 0;
	return 1;
}
