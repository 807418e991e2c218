/*
 * A device as KVM's own devices are: functions for loads and stores (struct kvm_io_device_ops). KVM completes the access.
 *
 * For Linux 5.11 to 6.1. In the kernel: put these lines into arch/arm64/kvm/mmio.c, before io_mem_abort(). In io_mem_abort(), behind
 * "rt = kvm_vcpu_dabt_get_rd(vcpu);", write:
 *
 *	ret = hide_seek_access(vcpu, fault_ipa, is_write, len, rt);
 *	if (ret)
 *		return ret;
 *
 * The device is not registered with kvm_io_bus_register_dev(): that function waits for all vCPUs that are in io_mem_abort().
 *
 * Without a kernel: virt-walkerd serve --hook io-device.c --hook-function hide_seek_access
 */
#include <linux/bitfield.h>
#include <linux/kvm_host.h>
#include <kvm/iodev.h>
#include <asm/kvm_emulate.h>
#include <asm/kvm_mmu.h>
#include <asm/kvm_pgtable.h>

#define DEVICE_BASE	0x0b000000
#define DEVICE_SIZE	2
#define HIDDEN_BITS	GENMASK_ULL(58, 51)

static int find_visitor(u64 addr, u64 end, u32 level, kvm_pte_t *ptep,
			enum kvm_pgtable_walk_flags flag, void * const arg)
{
	*(kvm_pte_t **)arg = ptep;
	return 0;
}

static kvm_pte_t *find(struct kvm_vcpu *vcpu)
{
	kvm_pte_t *ptep = NULL;
	struct kvm_pgtable_walker walker = {
		.cb	= find_visitor,
		.arg	= &ptep,
		.flags	= KVM_PGTABLE_WALK_LEAF,
	};

	if (kvm_pgtable_walk(vcpu->arch.hw_mmu->pgt, 0x40000000, PAGE_SIZE, &walker))
		return NULL;
	return ptep;
}

static int hide_seek_read(struct kvm_vcpu *vcpu, struct kvm_io_device *this, gpa_t addr, int len,
			  void *val)
{
	kvm_pte_t *ptep = find(vcpu);

	if (addr != DEVICE_BASE + 1 || len != 1 || !ptep)
		return -EOPNOTSUPP;
	*(u8 *)val = FIELD_GET(HIDDEN_BITS, *ptep);
	return 0;
}

static int hide_seek_write(struct kvm_vcpu *vcpu, struct kvm_io_device *this, gpa_t addr, int len,
			   const void *val)
{
	kvm_pte_t *ptep = find(vcpu);

	if (addr != DEVICE_BASE || len != 1 || !ptep)
		return -EOPNOTSUPP;
	WRITE_ONCE(*ptep, (*ptep & ~HIDDEN_BITS) | FIELD_PREP(HIDDEN_BITS, *(const u8 *)val));
	return 0;
}

static const struct kvm_io_device_ops hide_seek_ops = {
	.read	= hide_seek_read,
	.write	= hide_seek_write,
};

static struct kvm_io_device hide_seek = { .ops = &hide_seek_ops };

static int hide_seek_access(struct kvm_vcpu *vcpu, phys_addr_t fault_ipa, bool is_write, int len,
			    unsigned long rt)
{
	unsigned long data = 0;
	int ret;

	if (fault_ipa < DEVICE_BASE || fault_ipa >= DEVICE_BASE + DEVICE_SIZE)
		return 0;
	if (is_write) {
		data = vcpu_get_reg(vcpu, rt);
		ret = kvm_iodevice_write(vcpu, &hide_seek, fault_ipa, len, &data);
	} else {
		ret = kvm_iodevice_read(vcpu, &hide_seek, fault_ipa, len, &data);
	}
	if (ret)
		return ret;
	if (!is_write)
		vcpu_set_reg(vcpu, rt, data);
	kvm_incr_pc(vcpu);
	return 1;
}
