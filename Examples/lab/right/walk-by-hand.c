/*
 * A hook for Linux 5.11 and newer that goes through the tables itself: from pgd, by the physical address in each table entry. It takes
 * fault_ipa only, and finds the rest out itself.
 *
 * In the kernel: put these lines into arch/arm64/kvm/mmio.c, before io_mem_abort(). In io_mem_abort(), behind
 * "rt = kvm_vcpu_dabt_get_rd(vcpu);", write:
 *
 *	if (hide_and_seek(vcpu, fault_ipa))
 *		return 1;
 *
 * Without a kernel: virt-walkerd serve --hook walk-by-hand.c --hook-function hide_and_seek
 */
#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <asm/kvm_emulate.h>
#include <asm/kvm_mmu.h>
#include <asm/kvm_pgtable.h>

#define HIDDEN_SHIFT	51
#define HIDDEN_MASK	(0xffUL << HIDDEN_SHIFT)

/* The entry for an address. The start-level tables lie side by side, so their index is not cut off. */
static kvm_pte_t *find_entry(struct kvm_pgtable *pgt, u64 ipa)
{
	kvm_pte_t *table = (kvm_pte_t *)pgt->pgd;
	u64 index = ipa >> ARM64_HW_PGTABLE_LEVEL_SHIFT(pgt->start_level);
	int level = pgt->start_level;

	while (level < 3 && (table[index] & 3) == 3) {
		table = phys_to_virt(table[index] & GENMASK(47, PAGE_SHIFT));
		level++;
		index = (ipa >> ARM64_HW_PGTABLE_LEVEL_SHIFT(level)) % PTRS_PER_PTE;
	}
	return &table[index];
}

static bool hide_and_seek(struct kvm_vcpu *vcpu, phys_addr_t fault_ipa)
{
	bool is_write = kvm_vcpu_dabt_iswrite(vcpu);
	int rt = kvm_vcpu_dabt_get_rd(vcpu);
	kvm_pte_t *entry;

	if (fault_ipa != 0x0b000000 && fault_ipa != 0x0b000001)
		return false;
	if (kvm_vcpu_dabt_get_as(vcpu) != 1)
		return false;

	entry = find_entry(vcpu->arch.hw_mmu->pgt, 0x40000000);
	if (is_write && fault_ipa == 0x0b000000)
		*entry = (*entry & ~HIDDEN_MASK) | (vcpu_get_reg(vcpu, rt) & 0xff) << HIDDEN_SHIFT;
	else if (!is_write && fault_ipa == 0x0b000001)
		vcpu_set_reg(vcpu, rt, (*entry & HIDDEN_MASK) >> HIDDEN_SHIFT);
	else
		return false;
	kvm_incr_pc(vcpu);
	return true;
}
