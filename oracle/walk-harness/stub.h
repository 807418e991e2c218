/* Declarations that the walks of the kernel's arch/arm64/kvm/hyp/pgtable.c need besides the headers in Kernel/include. */
#include <linux/bitfield.h>
#include <linux/compiler.h>
#include <linux/kvm_host.h>
#include <asm/kvm_pgtable.h>

#ifndef SZ_4K
#define SZ_4K						0x1000
#endif
#define smp_store_release(p, value)			WRITE_ONCE(*(p), value)
#define ID_AA64MMFR0_EL1_PARANGE_MAX			5
#define id_aa64mmfr0_parange_to_phys_shift(parange)	48
#define kvm_get_parange_max()				5
#define kvm_pgtable_walk_lock_held()			true
#define kvm_pgtable_walk_begin(walker)			0
#define kvm_pgtable_walk_end(walker)			((void)0)
#define KVM_PGTABLE_WALK_SKIP_BBM_TLBI			BIT(5)
#define KVM_PGTABLE_WALK_SKIP_CMO			BIT(6)
#define KVM_INVALID_PTE_OWNER_MASK			GENMASK(9, 2)
#ifndef KVM_PTE_LEAF_ATTR_LO
#define KVM_PTE_LEAF_ATTR_LO				GENMASK(11, 2)
#define KVM_PTE_LEAF_ATTR_HI				GENMASK(63, 51)
#endif

#define kvm_pgtable_walk	kernel_walk
#define kvm_pgtable_get_leaf	kernel_get_leaf
int kernel_walk(struct kvm_pgtable *pgt, u64 addr, u64 size, struct kvm_pgtable_walker *walker);
int kernel_get_leaf(struct kvm_pgtable *pgt, u64 addr, kvm_pte_t *ptep, hook_level_t *level);
