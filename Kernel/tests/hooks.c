/* Small hooks for run-hooks: each function makes one thing that the runtime has to tell, or to do. */
#include <kvm/arm_hypercalls.h>
#include <kvm/iodev.h>
#include <linux/kvm_host.h>
#include <asm/kvm_emulate.h>
#include <asm/kvm_mmu.h>
#include <asm/kvm_pgtable.h>

static int device_read(struct kvm_vcpu *vcpu, struct kvm_io_device *this, gpa_t addr, int len, void *val)
{
	memset(val, 0x5a, len);
	return addr == 0x0b000001 ? -EOPNOTSUPP : 0;
}

static const struct kvm_io_device_ops device_ops = { .read = device_read };
static struct kvm_io_device device;

static int register_device(struct kvm *kvm, bool takes_lock)
{
	int result;

	kvm_iodevice_init(&device, &device_ops);
	if (takes_lock)
		mutex_lock(&kvm->slots_lock);
	result = kvm_io_bus_register_dev(kvm, KVM_MMIO_BUS, 0x0b000000, 8, &device);
	if (takes_lock)
		mutex_unlock(&kvm->slots_lock);
	return result;
}

static int register_32(struct kvm_vcpu *vcpu, phys_addr_t ipa)
{
	kvm_incr_pc(vcpu);
	return vcpu_get_reg(vcpu, 32) == 0;
}

static int other_register(struct kvm_vcpu *vcpu, phys_addr_t ipa)
{
	vcpu_set_reg(vcpu, 7, 1);
	kvm_incr_pc(vcpu);
	return 1;
}

static int wide_value(struct kvm_vcpu *vcpu, phys_addr_t ipa)
{
	vcpu_set_reg(vcpu, kvm_vcpu_dabt_get_rd(vcpu), 0x1234);
	kvm_incr_pc(vcpu);
	return 1;
}

static bool no_value(struct kvm_vcpu *vcpu, unsigned long ipa, bool is_write, int len, unsigned long rt)
{
	kvm_incr_pc(vcpu);
	return true;
}

static int device_in_abort(struct kvm_vcpu *vcpu, phys_addr_t ipa)
{
	return register_device(vcpu->kvm, true);
}

static int device_in_hypercall(struct kvm_vcpu *vcpu)
{
	smccc_set_retval(vcpu, register_device(vcpu->kvm, vcpu_get_reg(vcpu, 1)), 0, 0, 0);
	return 1;
}

static int skips_after_hypercall(struct kvm_vcpu *vcpu)
{
	kvm_incr_pc(vcpu);
	return 1;
}

static int injects(struct kvm_vcpu *vcpu, phys_addr_t ipa)
{
	kvm_inject_undefined(vcpu);
	return 1;
}

static int invalidates(struct kvm_vcpu *vcpu, phys_addr_t ipa)
{
	kvm_call_hyp(__kvm_tlb_flush_vmid_ipa, vcpu->arch.hw_mmu, 0x40000000, 3);
	kvm_flush_remote_tlbs(vcpu->kvm);
	return 0;
}

static int keeps_lock(struct kvm_vcpu *vcpu, phys_addr_t ipa)
{
	read_lock(&vcpu->kvm->mmu_lock);
	return 0;
}

static int counts_pages(struct kvm_vcpu *vcpu, phys_addr_t ipa)
{
	struct kvm_pgtable *pgt = vcpu->arch.hw_mmu->pgt;

	return pgt->mm_ops->page_count(pgt->pgd);
}

static int loops(struct kvm_vcpu *vcpu, phys_addr_t ipa)
{
	volatile int i = 0;

	while (i >= 0)
		i = 1;
	return i;
}

static int recurses(struct kvm_vcpu *vcpu, phys_addr_t ipa)
{
	volatile char memory[128];

	memory[0] = ipa;
	return recurses(vcpu, ipa + 1) + memory[0];
}

/* The values that the kernel's functions have for a load of 2 bytes from 0x0b000002, with sign extension. */
static int tells(struct kvm_vcpu *vcpu, phys_addr_t ipa)
{
	struct kvm_vcpu *other;
	unsigned long i;
	int count = 0;

	kvm_for_each_vcpu(i, other, vcpu->kvm)
		count += other == vcpu;
	pr_info("ipa %llx page %llx offset %lx class %x status %x\n", ipa, kvm_vcpu_get_fault_ipa(vcpu),
		kvm_vcpu_get_hfar(vcpu) & 0xfff, kvm_vcpu_trap_get_class(vcpu), kvm_vcpu_trap_get_fault(vcpu));
	pr_info("valid %d write %d %d size %u signed %d 64-bit %d register %d instruction %d walk %d be %d vcpus %d\n",
		kvm_vcpu_dabt_isvalid(vcpu), kvm_vcpu_dabt_iswrite(vcpu), kvm_is_write_fault(vcpu), kvm_vcpu_dabt_get_as(vcpu),
		kvm_vcpu_dabt_issext(vcpu), kvm_vcpu_dabt_issf(vcpu), kvm_vcpu_dabt_get_rd(vcpu), kvm_vcpu_trap_is_iabt(vcpu),
		kvm_vcpu_abt_iss1tw(vcpu), kvm_vcpu_is_be(vcpu), count);
	return 0;
}
