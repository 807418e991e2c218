/*
 * Wrong: the pointer to the entry stays NULL, and is used.
 *
 * In the kernel: put these lines into arch/arm64/kvm/mmio.c, before io_mem_abort(). In io_mem_abort(), behind
 * "rt = kvm_vcpu_dabt_get_rd(vcpu);", write:
 *
 *	ret = virt_walker_mmio(vcpu, fault_ipa, is_write, len, rt);
 *	if (ret)
 *		return ret;
 *
 * Without a kernel: virt-walkerd serve --hook null-pointer.c --hook-function virt_walker_mmio
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

/* Looks for the entry, and forgets to give it to the caller. */
static int find_visitor(u64 addr, u64 end, u32 level, kvm_pte_t *ptep,
			enum kvm_pgtable_walk_flags flag, void * const arg)
{
	kvm_pte_t *found = arg;

	found = ptep;
	return found ? 0 : -ENOENT;
}

static kvm_pte_t *find(struct kvm_vcpu *vcpu)
{
	kvm_pte_t *ptep = NULL;
	struct kvm_pgtable_walker walker = {
		.cb	= find_visitor,
		.arg	= &ptep,
		.flags	= KVM_PGTABLE_WALK_LEAF,
	};

	kvm_pgtable_walk(vcpu->arch.hw_mmu->pgt, TARGET_ADDRESS, PAGE_SIZE, &walker);
	return ptep;
}

int virt_walker_mmio(struct kvm_vcpu *vcpu, phys_addr_t fault_ipa, bool is_write, int len,
		     unsigned long rt)
{
	kvm_pte_t *ptep;

	if (fault_ipa < HIDE_ADDRESS || fault_ipa > SEEK_ADDRESS || len != 1)
		return 0;

	ptep = find(vcpu);
	if (is_write)
		*ptep = (*ptep & ~HIDDEN_BITS) | FIELD_PREP(HIDDEN_BITS, (u8)vcpu_get_reg(vcpu, rt));
	else
		vcpu_set_reg(vcpu, rt, FIELD_GET(HIDDEN_BITS, *ptep));
	kvm_incr_pc(vcpu);
	return 1;
}
