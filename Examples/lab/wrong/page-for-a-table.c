/*
 * Wrong: the walk by hand does not stop at the last level, and takes the page of the guest for a table.
 *
 * In the kernel: put these lines into arch/arm64/kvm/mmio.c, before io_mem_abort(). In io_mem_abort(), behind
 * "rt = kvm_vcpu_dabt_get_rd(vcpu);", write:
 *
 *	ret = virt_walker_mmio(vcpu, fault_ipa, is_write, len, rt);
 *	if (ret)
 *		return ret;
 *
 * Without a kernel: virt-walkerd serve --hook page-for-a-table.c --hook-function virt_walker_mmio --backing anonymous
 */
#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <asm/kvm_emulate.h>
#include <asm/kvm_mmu.h>
#include <asm/kvm_pgtable.h>

#define HIDE_ADDRESS	0x0b000000
#define SEEK_ADDRESS	0x0b000001
#define HIDDEN_MASK	(0xffUL << 51)

static kvm_pte_t *find_entry(struct kvm_pgtable *pgt, u64 ipa)
{
	kvm_pte_t *table = pgt->pgd;
	u64 index = ipa >> ARM64_HW_PGTABLE_LEVEL_SHIFT(pgt->start_level);
	int level = pgt->start_level;

	while ((table[index] & 3) == 3) {
		table = phys_to_virt(table[index] & GENMASK(47, PAGE_SHIFT));
		level++;
		index = (ipa >> ARM64_HW_PGTABLE_LEVEL_SHIFT(level)) % PTRS_PER_PTE;
	}
	return &table[index];
}

int virt_walker_mmio(struct kvm_vcpu *vcpu, phys_addr_t fault_ipa, bool is_write, int len,
		     unsigned long rt)
{
	kvm_pte_t *entry;

	if (fault_ipa < HIDE_ADDRESS || fault_ipa > SEEK_ADDRESS || len != 1)
		return 0;

	entry = find_entry(vcpu->arch.hw_mmu->pgt, 0x40000000);
	if (is_write)
		*entry = (*entry & ~HIDDEN_MASK) | (vcpu_get_reg(vcpu, rt) & 0xff) << 51;
	else
		vcpu_set_reg(vcpu, rt, (*entry & HIDDEN_MASK) >> 51);
	kvm_incr_pc(vcpu);
	return 1;
}
