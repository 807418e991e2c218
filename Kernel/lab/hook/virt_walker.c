// SPDX-License-Identifier: GPL-2.0-only
/*
 * The hook of the original system, for Linux 5.10 and later. oracle/hook has the same hook with the messages of the recorder.
 *
 * The hook claims three bytes of guest physical address space. A one-byte write to HIDE puts the byte into bits [58:51] of the stage-2 entry
 * of the first page of guest RAM; a one-byte read of SEEK gets it from there.
 */
#include <linux/bitfield.h>
#include <linux/kvm_host.h>
#include <linux/version.h>
#include <asm/kvm_emulate.h>
#include <asm/kvm_mmu.h>
#include <asm/kvm_pgtable.h>

#define HIDE		0x0b000000UL
#define SEEK		0x0b000001UL
#define CLAIM_END	0x0b000002UL	/* inclusive */
#define TARGET		0x40000000UL
#define HIDDEN_BITS	GENMASK_ULL(58, 51)

struct hide_seek {
	bool hide;
	bool found;
	u8 byte;
};

static int visit(u64 addr, kvm_pte_t *ptep, enum kvm_pgtable_walk_flags visit, struct hide_seek *op)
{
	if (visit != KVM_PGTABLE_WALK_LEAF || addr != TARGET)
		return 0;
	if (op->hide)
		WRITE_ONCE(*ptep, (*ptep & ~HIDDEN_BITS) | FIELD_PREP(HIDDEN_BITS, op->byte));
	else
		op->byte = FIELD_GET(HIDDEN_BITS, *ptep);
	op->found = true;
	return 0;
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
static int hide_seek_visit(const struct kvm_pgtable_visit_ctx *ctx, enum kvm_pgtable_walk_flags flag)
{
	return visit(ctx->addr, ctx->ptep, flag, ctx->arg);
}
#else
static int hide_seek_visit(u64 addr, u64 end, u32 level, kvm_pte_t *ptep, enum kvm_pgtable_walk_flags flag, void * const arg)
{
	return visit(addr, ptep, flag, arg);
}
#endif

static int hide_seek(struct kvm_vcpu *vcpu, struct hide_seek *op)
{
	struct kvm_pgtable_walker walker = {
		.cb	= hide_seek_visit,
		.arg	= op,
		.flags	= KVM_PGTABLE_WALK_LEAF,
	};
	int ret = kvm_pgtable_walk(vcpu->arch.hw_mmu->pgt, TARGET, PAGE_SIZE, &walker);

	return ret || !op->found ? -EFAULT : 0;
}

static void skip_instruction(struct kvm_vcpu *vcpu)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 11, 0)
	kvm_incr_pc(vcpu);
#else
	kvm_skip_instr(vcpu, kvm_vcpu_trap_il_is32bit(vcpu));
#endif
}

int virt_walker_mmio(struct kvm_vcpu *vcpu, phys_addr_t ipa, bool is_write, int len, unsigned long rt);

int virt_walker_mmio(struct kvm_vcpu *vcpu, phys_addr_t ipa, bool is_write, int len, unsigned long rt)
{
	struct hide_seek op = {};
	int ret = 0;

	if (ipa < HIDE || ipa > CLAIM_END)
		return 0;

	pr_info("MMIO to HIDE and SEEK register detected, len: %d\n", len);
	if (len != 1) {
		pr_info("more than one byte being read/write, ERROR\n");
		return -EINVAL;
	}

	if (is_write && ipa == HIDE) {
		op.hide = true;
		op.byte = vcpu_get_reg(vcpu, rt);
		ret = hide_seek(vcpu, &op);
	} else if (!is_write && ipa == SEEK) {
		ret = hide_seek(vcpu, &op);
		if (!ret)
			vcpu_set_reg(vcpu, rt, op.byte);
	}
	if (ret)
		return ret;

	skip_instruction(vcpu);
	return 1;
}
