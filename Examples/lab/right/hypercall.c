/*
 * Hide and seek by a hypercall: the guest calls HVC with a function number in x0 and the byte in x1.
 *
 * For Linux 5.11 to 6.1. In the kernel: put these lines into arch/arm64/kvm/hypercalls.c, before kvm_hvc_call_handler(). At the begin of
 * that function, write:
 *
 *	if (hide_seek_hypercall(vcpu))
 *		return 1;
 *
 * Without a kernel: virt-walkerd serve --hook hypercall.c --hook-function hide_seek_hypercall
 */
#include <linux/arm-smccc.h>
#include <linux/bitfield.h>
#include <linux/kvm_host.h>
#include <asm/kvm_emulate.h>
#include <asm/kvm_mmu.h>
#include <asm/kvm_pgtable.h>
#include <kvm/arm_hypercalls.h>

#define HIDDEN_BITS	GENMASK_ULL(58, 51)
#define HIDE_FUNCTION	ARM_SMCCC_CALL_VAL(ARM_SMCCC_FAST_CALL, ARM_SMCCC_SMC_64, \
					   ARM_SMCCC_OWNER_VENDOR_HYP, 0x100)
#define SEEK_FUNCTION	ARM_SMCCC_CALL_VAL(ARM_SMCCC_FAST_CALL, ARM_SMCCC_SMC_64, \
					   ARM_SMCCC_OWNER_VENDOR_HYP, 0x101)

static int entry_visitor(u64 addr, u64 end, u32 level, kvm_pte_t *ptep,
			 enum kvm_pgtable_walk_flags flag, void * const arg)
{
	*(kvm_pte_t **)arg = ptep;
	return 0;
}

int hide_seek_hypercall(struct kvm_vcpu *vcpu)
{
	u32 function = smccc_get_function(vcpu);
	kvm_pte_t *ptep = NULL;
	struct kvm_pgtable_walker walker = {
		.cb	= entry_visitor,
		.arg	= &ptep,
		.flags	= KVM_PGTABLE_WALK_LEAF,
	};

	if (function != HIDE_FUNCTION && function != SEEK_FUNCTION)
		return 0;
	if (kvm_pgtable_walk(vcpu->arch.hw_mmu->pgt, 0x40000000, PAGE_SIZE, &walker) || !ptep) {
		smccc_set_retval(vcpu, SMCCC_RET_INVALID_PARAMETER, 0, 0, 0);
		return 1;
	}
	if (function == HIDE_FUNCTION) {
		u8 byte = smccc_get_arg1(vcpu);

		WRITE_ONCE(*ptep, (*ptep & ~HIDDEN_BITS) | FIELD_PREP(HIDDEN_BITS, byte));
		smccc_set_retval(vcpu, SMCCC_RET_SUCCESS, 0, 0, 0);
	} else {
		smccc_set_retval(vcpu, SMCCC_RET_SUCCESS, FIELD_GET(HIDDEN_BITS, *ptep), 0, 0);
	}
	return 1;
}
