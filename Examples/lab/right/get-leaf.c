/*
 * A hook for Linux 5.15 to 6.1 that reads with kvm_pgtable_get_leaf(), and walks only to write.
 *
 * In the kernel: put these lines into arch/arm64/kvm/mmio.c, before io_mem_abort(). In io_mem_abort(), behind
 * "rt = kvm_vcpu_dabt_get_rd(vcpu);", write:
 *
 *	ret = virt_walker_mmio(vcpu, fault_ipa, is_write, len, rt);
 *	if (ret)
 *		return ret;
 *
 * Without a kernel: virt-walkerd serve --hook get-leaf.c --hook-function virt_walker_mmio
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

static int hide_visitor(u64 addr, u64 end, u32 level, kvm_pte_t *ptep,
			enum kvm_pgtable_walk_flags flag, void * const arg)
{
	u8 *byte = arg;

	*ptep = (*ptep & ~HIDDEN_BITS) | FIELD_PREP(HIDDEN_BITS, *byte);
	return 0;
}

static int hide(struct kvm_pgtable *pgt, u8 byte)
{
	struct kvm_pgtable_walker walker = {
		.cb	= hide_visitor,
		.arg	= &byte,
		.flags	= KVM_PGTABLE_WALK_LEAF,
	};

	return kvm_pgtable_walk(pgt, TARGET_ADDRESS, PAGE_SIZE, &walker);
}

int virt_walker_mmio(struct kvm_vcpu *vcpu, phys_addr_t fault_ipa, bool is_write, int len,
		     unsigned long rt)
{
	struct kvm_pgtable *pgt = vcpu->kvm->arch.mmu.pgt;
	kvm_pte_t pte;
	u32 level;
	int ret;

	if (fault_ipa != (is_write ? HIDE_ADDRESS : SEEK_ADDRESS))
		return 0;
	if (len != 1) {
		kvm_err("virt_walker: an access of %d bytes to 0x%llx\n", len, fault_ipa);
		return -EINVAL;
	}

	if (is_write) {
		ret = hide(pgt, vcpu_get_reg(vcpu, rt));
		if (ret)
			return ret;
	} else {
		ret = kvm_pgtable_get_leaf(pgt, TARGET_ADDRESS, &pte, &level);
		if (ret)
			return ret;
		kvm_info("virt_walker: the entry is at level %u\n", level);
		vcpu_set_reg(vcpu, rt, FIELD_GET(HIDDEN_BITS, pte));
	}
	kvm_incr_pc(vcpu);
	return 1;
}
