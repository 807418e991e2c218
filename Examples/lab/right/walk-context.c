/*
 * A hook for Linux 6.2 and newer: the visitor of kvm_pgtable_walk() gets a context.
 *
 * In the kernel: put these lines into arch/arm64/kvm/mmio.c, before io_mem_abort(). In io_mem_abort(), behind
 * "rt = kvm_vcpu_dabt_get_rd(vcpu);", write:
 *
 *	ret = virt_walker_mmio(vcpu, fault_ipa, is_write, len, rt);
 *	if (ret)
 *		return ret;
 *
 * Without a kernel: virt-walkerd serve --linux 6.12 --hook walk-context.c --hook-function virt_walker_mmio
 */
#include <linux/bitfield.h>
#include <linux/kvm_host.h>
#include <asm/kvm_emulate.h>
#include <asm/kvm_mmu.h>
#include <asm/kvm_pgtable.h>

#define HIDE_ADDRESS	0x0b000000
#define SEEK_ADDRESS	0x0b000001
#define TARGET_ADDRESS	0x40000000
#define HIDDEN_BITS	GENMASK_ULL(58, 51)

struct hidden_byte {
	bool is_write;
	u8 value;
};

static int hidden_byte_visitor(const struct kvm_pgtable_visit_ctx *ctx,
			       enum kvm_pgtable_walk_flags visit)
{
	struct hidden_byte *byte = ctx->arg;

	if (byte->is_write) {
		kvm_pte_t pte = ctx->old;

		pte &= ~HIDDEN_BITS;
		pte |= FIELD_PREP(HIDDEN_BITS, byte->value);
		WRITE_ONCE(*ctx->ptep, pte);
	} else {
		byte->value = FIELD_GET(HIDDEN_BITS, ctx->old);
	}
	return 0;
}

static int walk_to_page(struct kvm_vcpu *vcpu, struct hidden_byte *byte)
{
	struct kvm_pgtable_walker walker = {
		.cb	= hidden_byte_visitor,
		.arg	= byte,
		.flags	= KVM_PGTABLE_WALK_LEAF,
	};

	return kvm_pgtable_walk(vcpu->arch.hw_mmu->pgt, TARGET_ADDRESS, PAGE_SIZE, &walker);
}

int virt_walker_mmio(struct kvm_vcpu *vcpu, phys_addr_t fault_ipa, bool is_write, int len,
		     unsigned long rt)
{
	struct hidden_byte byte = { .is_write = is_write };
	int ret;

	if (!(is_write && fault_ipa == HIDE_ADDRESS) && !(!is_write && fault_ipa == SEEK_ADDRESS))
		return 0;

	pr_info("virt_walker: %s of %d byte\n", is_write ? "hide" : "seek", len);
	if (len != 1)
		return -EINVAL;

	if (is_write)
		byte.value = vcpu_get_reg(vcpu, rt);
	ret = walk_to_page(vcpu, &byte);
	if (ret)
		return ret;
	if (!is_write)
		vcpu_set_reg(vcpu, rt, byte.value);

	kvm_incr_pc(vcpu);
	return 1;
}
