// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The virtual machine, the memory of its tables, and its buses of devices. */
#include "hook.h"

#include <linux/uaccess.h>

DEFINE_MUTEX(kvm_lock);
LIST_HEAD(vm_list);

struct hook_call hook_call;

struct kvm_vcpu *kvm_get_running_vcpu(void)
{
	return &hook_vcpu;
}

void synchronize_srcu(struct srcu_struct *ssp)
{
	if (ssp->readers)
		runtime_fault(CHANNEL_FAULT_BUG, "synchronize_srcu() waits for a reader, and this thread is one (KVM holds kvm->srcu around "
			      "io_mem_abort()): the real kernel hangs here");
}

/* --- The memory of the VMM. The model's VMM is a part of the daemon, and has none that a hook could read. */

static void __noreturn no_user_memory(const char *function)
{
	runtime_fault(CHANNEL_FAULT_BUG, "%s() in a hook: the model's VMM has no memory for it; run this hook on the real kernel: "
		      "--engine kernel", function);
}

unsigned long copy_to_user(void __user *to, const void *from, unsigned long count)
{
	(void)to, (void)from, (void)count;
	no_user_memory(__func__);
}

unsigned long copy_from_user(void *to, const void __user *from, unsigned long count)
{
	(void)to, (void)from, (void)count;
	no_user_memory(__func__);
}

int __get_user_bytes(void *to, const void __user *from, unsigned int size)
{
	(void)to, (void)from, (void)size;
	no_user_memory("get_user");
}

int __put_user_bytes(const void *from, void __user *to, unsigned int size)
{
	(void)from, (void)to, (void)size;
	no_user_memory("put_user");
}

/* --- Invalidations of the TLB. The daemon does them when it reads the log. */

void __kvm_tlb_flush_vmid_ipa(struct kvm_s2_mmu *mmu, phys_addr_t ipa, int level)
{
	(void)mmu;
	runtime_log(CHANNEL_RECORD_INVALIDATE, level, ipa, NULL, 0);
}

void __kvm_tlb_flush_vmid(struct kvm_s2_mmu *mmu)
{
	(void)mmu;
	runtime_log(CHANNEL_RECORD_INVALIDATE, 0, CHANNEL_INVALIDATE_ALL, NULL, 0);
}

void kvm_flush_remote_tlbs(struct kvm *kvm)
{
	kvm->stat.remote_tlb_flush_requests++;
	__kvm_tlb_flush_vmid(&kvm->arch.mmu);
}

/* --- Devices on a bus */

/* How a range lies to another one: 0 if it contains the other one. */
static int compare_ranges(const struct kvm_io_range *access, const struct kvm_io_range *range)
{
	gpa_t access_end = access->addr + access->len;
	gpa_t range_end = range->addr + range->len;

	if (access->addr < range->addr)
		return -1;
	/* A range without a length takes accesses of each length at its address. */
	if (!range->len)
		return access->addr > range->addr;
	return access_end > range_end;
}

static int first_device(const struct kvm_io_bus *bus, const struct kvm_io_range *access)
{
	int i;

	for (i = 0; i < bus->dev_count; i++) {
		if (!compare_ranges(access, &bus->range[i]))
			return i;
	}
	return bus->dev_count;
}

static int access_bus(struct kvm_vcpu *vcpu, enum kvm_bus bus_idx, struct kvm_io_range access, void *load, const void *store)
{
	const struct kvm_io_bus *bus = vcpu->kvm->buses[bus_idx];
	int i;

	if (!bus)
		return -ENOMEM;
	for (i = first_device(bus, &access); i < bus->dev_count && !compare_ranges(&access, &bus->range[i]); i++) {
		struct kvm_io_device *device = bus->range[i].dev;

		if (!(load ? kvm_iodevice_read(vcpu, device, access.addr, access.len, load) :
			     kvm_iodevice_write(vcpu, device, access.addr, access.len, store)))
			return 0;
	}
	return -EOPNOTSUPP;
}

int kvm_io_bus_write(struct kvm_vcpu *vcpu, enum kvm_bus bus_idx, gpa_t addr, int len, const void *val)
{
	return access_bus(vcpu, bus_idx, (struct kvm_io_range){ .addr = addr, .len = len }, NULL, val);
}

int kvm_io_bus_read(struct kvm_vcpu *vcpu, enum kvm_bus bus_idx, gpa_t addr, int len, void *val)
{
	return access_bus(vcpu, bus_idx, (struct kvm_io_range){ .addr = addr, .len = len }, val, NULL);
}

/* The devices of a VM that the code has registered, with one place more than it needs. */
static struct kvm_io_bus *copy_bus(const struct kvm_io_bus *bus)
{
	struct kvm_io_bus *copy = kmalloc(sizeof(*copy) + (bus->dev_count + 1) * sizeof(bus->range[0]), GFP_KERNEL_ACCOUNT);

	if (copy)
		memcpy(copy, bus, sizeof(*bus) + bus->dev_count * sizeof(bus->range[0]));
	return copy;
}

static void install_bus(struct kvm *kvm, enum kvm_bus bus_idx, struct kvm_io_bus *bus)
{
	struct kvm_io_bus *old = kvm->buses[bus_idx];

	kvm->buses[bus_idx] = bus;
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 18, 0)
	synchronize_srcu_expedited(&kvm->srcu);
#endif
	kfree(old);
}

static void check_slots_lock(struct kvm *kvm, const char *function)
{
	if (!mutex_is_locked(&kvm->slots_lock))
		runtime_finding("%s without kvm->slots_lock: another thread may change the bus at the same time", function);
}

int kvm_io_bus_register_dev(struct kvm *kvm, enum kvm_bus bus_idx, gpa_t addr, int len, struct kvm_io_device *dev)
{
	struct kvm_io_range range = { .addr = addr, .len = len, .dev = dev };
	struct kvm_io_bus *bus = kvm->buses[bus_idx];
	int i;

	check_slots_lock(kvm, "kvm_io_bus_register_dev()");
	if (bus->dev_count - bus->ioeventfd_count > NR_IOBUS_DEVS - 1)
		return -ENOSPC;
	bus = copy_bus(bus);
	if (!bus)
		return -ENOMEM;
	for (i = 0; i < bus->dev_count && compare_ranges(&bus->range[i], &range) <= 0; i++)
		;
	memmove(&bus->range[i + 1], &bus->range[i], (bus->dev_count - i) * sizeof(range));
	bus->range[i] = range;
	bus->dev_count++;
	install_bus(kvm, bus_idx, bus);
	return 0;
}

int kvm_io_bus_unregister_dev(struct kvm *kvm, enum kvm_bus bus_idx, struct kvm_io_device *dev)
{
	struct kvm_io_bus *bus = kvm->buses[bus_idx];
	int i;

	check_slots_lock(kvm, "kvm_io_bus_unregister_dev()");
	for (i = 0; i < bus->dev_count && bus->range[i].dev != dev; i++)
		;
	if (i == bus->dev_count)
		return 0;
	bus = copy_bus(bus);
	if (!bus)
		return -ENOMEM;
	bus->dev_count--;
	memmove(&bus->range[i], &bus->range[i + 1], (bus->dev_count - i) * sizeof(bus->range[0]));
	install_bus(kvm, bus_idx, bus);
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
	kvm_iodevice_destructor(dev);
#endif
	return 0;
}

struct kvm_io_device *kvm_io_bus_get_dev(struct kvm *kvm, enum kvm_bus bus_idx, gpa_t addr)
{
	const struct kvm_io_bus *bus = kvm->buses[bus_idx];
	struct kvm_io_range access = { .addr = addr, .len = 1 };
	int i = bus ? first_device(bus, &access) : 0;

	return bus && i < bus->dev_count ? bus->range[i].dev : NULL;
}

/* --- io_mem_abort() of a hook that is one function */

/* Calls the user's function. The types of a pointer to it are those that hook-source.c has found. */
static int call_hook(struct kvm_vcpu *vcpu, phys_addr_t ipa, bool is_write, int length, unsigned long rt)
{
#define FUNCTION(type, ...) ((type (*)(struct kvm_vcpu *, ##__VA_ARGS__))hook_function.function)
	switch (hook_function.form) {
	case HOOK_INT_2:
		return FUNCTION(int, phys_addr_t)(vcpu, ipa);
	case HOOK_BOOL_2:
		return FUNCTION(bool, phys_addr_t)(vcpu, ipa);
	case HOOK_INT_2_LONG:
		return FUNCTION(int, unsigned long)(vcpu, ipa);
	case HOOK_BOOL_2_LONG:
		return FUNCTION(bool, unsigned long)(vcpu, ipa);
	case HOOK_INT_5:
		return FUNCTION(int, phys_addr_t, bool, int, unsigned long)(vcpu, ipa, is_write, length, rt);
	case HOOK_BOOL_5:
		return FUNCTION(bool, phys_addr_t, bool, int, unsigned long)(vcpu, ipa, is_write, length, rt);
	case HOOK_INT_5_LONG:
		return FUNCTION(int, unsigned long, bool, int, unsigned long)(vcpu, ipa, is_write, length, rt);
	case HOOK_BOOL_5_LONG:
		return FUNCTION(bool, unsigned long, bool, int, unsigned long)(vcpu, ipa, is_write, length, rt);
	default:
		return 0;
	}
#undef FUNCTION
}

/* Finishes a load that a device of the kernel has answered, or a store that the device has taken. */
static void complete_access(struct kvm_vcpu *vcpu, bool is_write, int length, unsigned long rt, unsigned long data)
{
	if (!is_write) {
		data = vcpu_data_host_to_guest(vcpu, data, length);
		if (kvm_vcpu_dabt_issext(vcpu) && length < 8)
			data = (long)(data << (64 - 8 * length)) >> (64 - 8 * length);
		if (!kvm_vcpu_dabt_issf(vcpu))
			data = (u32)data;
		vcpu_set_reg(vcpu, rt, data);
	}
	vcpu->stat.mmio_exit_kernel++;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 11, 0)
	kvm_incr_pc(vcpu);
#else
	kvm_skip_instr(vcpu, kvm_vcpu_trap_il_is32bit(vcpu));
#endif
}

int hook_io_mem_abort(struct kvm_vcpu *vcpu, phys_addr_t ipa)
{
	struct kvm_run *run = vcpu->run;
	bool is_write = kvm_vcpu_dabt_iswrite(vcpu);
	int length = kvm_vcpu_dabt_get_as(vcpu);
	unsigned long rt = kvm_vcpu_dabt_get_rd(vcpu);
	unsigned long data = 0;
	int result;

	if (!kvm_vcpu_dabt_isvalid(vcpu)) {
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 9, 0)
		kvm_pr_unimpl("Data abort outside memslots with no valid syndrome info\n");
#endif
		return -ENOSYS;
	}
	result = call_hook(vcpu, ipa, is_write, length, rt);
	if (result)
		return result;

	/* The access is not the hook's: a device of the kernel has it, or the VMM gets it. */
	if (is_write) {
		data = vcpu_data_guest_to_host(vcpu, vcpu_get_reg(vcpu, rt), length);
		result = kvm_io_bus_write(vcpu, KVM_MMIO_BUS, ipa, length, &data);
	} else {
		result = kvm_io_bus_read(vcpu, KVM_MMIO_BUS, ipa, length, &data);
	}
	if (!result) {
		complete_access(vcpu, is_write, length, rt, data);
		return 1;
	}
	run->exit_reason = KVM_EXIT_MMIO;
	run->mmio.is_write = is_write;
	run->mmio.phys_addr = ipa;
	run->mmio.len = length;
	memcpy(run->mmio.data, &data, sizeof(run->mmio.data));
	vcpu->mmio_needed = 1;
	vcpu->stat.mmio_exit_user++;
	return 0;
}
