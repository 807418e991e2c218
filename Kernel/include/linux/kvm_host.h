/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <linux/kvm_host.h>: a virtual machine, its vCPUs, and its buses of devices. */
#ifndef __KVM_HOST_H
#define __KVM_HOST_H

#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/bug.h>
#include <linux/err.h>
#include <linux/kernel.h>
#include <linux/kvm.h>
#include <linux/kvm_para.h>
#include <linux/kvm_types.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/printk.h>
#include <linux/sched.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/srcu.h>
#include <linux/rbtree_types.h>
#include <linux/rcupdate.h>
#include <linux/string.h>
#include <linux/types.h>
#include <linux/version.h>

#include <asm/kvm_host.h>
#include <asm/memory.h>
#include <asm/pgtable.h>

/* Before the file includes "trace.h": if it stands in a tree of the kernel, that one is the tree's, and has the same guard. */
#include <trace.h>

#ifndef rcu_dereference_check
#define rcu_dereference_check(p, c)	({ (void)(c); (p); })
#endif
#ifndef rcu_dereference_raw
#define rcu_dereference_raw(p)		(p)
#endif
#ifndef rcu_read_lock_held
#define rcu_read_lock_held()		1
#endif

enum kvm_bus {
	KVM_MMIO_BUS,
	KVM_PIO_BUS,
	KVM_VIRTIO_CCW_NOTIFY_BUS,
	KVM_FAST_MMIO_BUS,
	KVM_NR_BUSES
};

#define NR_IOBUS_DEVS	1000

struct kvm_io_device;

struct kvm_io_range {
	gpa_t addr;
	int len;
	struct kvm_io_device *dev;
};

/* The ranges of the devices of a bus, in the order of their addresses. */
struct kvm_io_bus {
	int dev_count;
	int ioeventfd_count;
	struct kvm_io_range range[];
};

struct kvm_vcpu {
	struct kvm *kvm;
	int cpu;
	int vcpu_id;
	int vcpu_idx;
	int mode;
	u64 requests;
	unsigned long guest_debug;
	struct mutex mutex;
	struct kvm_run *run;
	int mmio_needed;
	int mmio_read_completed;
	int mmio_is_write;
	bool preempted;
	bool ready;
	struct kvm_vcpu_arch arch;
	struct kvm_vcpu_stat stat;
};

struct kvm {
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 18, 0)
	rwlock_t mmu_lock;
#else
	spinlock_t mmu_lock;
#endif
	struct mutex slots_lock;
	struct mutex slots_arch_lock;
	struct mm_struct *mm;
	struct kvm_vcpu *vcpus[KVM_MAX_VCPUS];
	atomic_t online_vcpus;
	int created_vcpus;
	struct list_head vm_list;
	struct mutex lock;
	struct kvm_io_bus *buses[KVM_NR_BUSES];
	struct kvm_vm_stat stat;
	struct kvm_arch arch;
	struct mutex irq_lock;
	struct srcu_struct srcu;
	struct srcu_struct irq_srcu;
	pid_t userspace_pid;
};

extern struct mutex kvm_lock;
extern struct list_head vm_list;

#define kvm_err(fmt, ...)	pr_err("kvm [%i]: " fmt, task_pid_nr(current), ##__VA_ARGS__)
#define kvm_info(fmt, ...)	pr_info("kvm [%i]: " fmt, task_pid_nr(current), ##__VA_ARGS__)
#define kvm_debug(fmt, ...)	pr_debug("kvm [%i]: " fmt, task_pid_nr(current), ##__VA_ARGS__)
#define kvm_pr_unimpl(fmt, ...)	pr_err_ratelimited("kvm [%i]: " fmt, task_pid_nr(current), ##__VA_ARGS__)
#define vcpu_debug(vcpu, fmt, ...) kvm_debug("vcpu%i " fmt, (vcpu)->vcpu_id, ##__VA_ARGS__)
#define vcpu_err(vcpu, fmt, ...) kvm_err("vcpu%i " fmt, (vcpu)->vcpu_id, ##__VA_ARGS__)

static inline struct kvm_vcpu *kvm_get_vcpu(struct kvm *kvm, int i)
{
	return i >= 0 && i < atomic_read(&kvm->online_vcpus) ? kvm->vcpus[i] : NULL;
}

#define kvm_for_each_vcpu(idx, vcpup, kvm) \
	for (idx = 0; ((vcpup) = kvm_get_vcpu((kvm), (idx))) != NULL; idx++)

static inline struct kvm_vcpu *kvm_get_vcpu_by_id(struct kvm *kvm, int id)
{
	struct kvm_vcpu *vcpu;
	int i;

	kvm_for_each_vcpu(i, vcpu, kvm) {
		if (vcpu->vcpu_id == id)
			return vcpu;
	}
	return NULL;
}

static inline int kvm_vcpu_get_idx(struct kvm_vcpu *vcpu)
{
	return vcpu->vcpu_idx;
}

static inline gpa_t gfn_to_gpa(gfn_t gfn)
{
	return (gpa_t)gfn << PAGE_SHIFT;
}

static inline gfn_t gpa_to_gfn(gpa_t gpa)
{
	return gpa >> PAGE_SHIFT;
}

static inline hpa_t pfn_to_hpa(kvm_pfn_t pfn)
{
	return (hpa_t)pfn << PAGE_SHIFT;
}

static inline struct kvm_io_bus *kvm_get_bus(struct kvm *kvm, enum kvm_bus idx)
{
	return kvm->buses[idx];
}

/* The pages of tables are the daemon's: a call of these functions ends the hook, and the message says why. */
struct page;
struct page *virt_to_page(const volatile void *address);
int page_count(struct page *page);
void get_page(struct page *page);
void put_page(struct page *page);
void *alloc_pages_exact(size_t size, gfp_t flags);
void free_pages_exact(void *address, size_t size);
void *kvm_mmu_memory_cache_alloc(struct kvm_mmu_memory_cache *cache);

/* The caches of the model are coherent. */
#define __flush_dcache_area(address, size)	((void)(address), (void)(size))

struct kvm_vcpu *kvm_get_running_vcpu(void);

int kvm_io_bus_write(struct kvm_vcpu *vcpu, enum kvm_bus bus_idx, gpa_t addr, int len, const void *val);
int kvm_io_bus_read(struct kvm_vcpu *vcpu, enum kvm_bus bus_idx, gpa_t addr, int len, void *val);
int kvm_io_bus_register_dev(struct kvm *kvm, enum kvm_bus bus_idx, gpa_t addr, int len, struct kvm_io_device *dev);
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 9, 0)
int kvm_io_bus_unregister_dev(struct kvm *kvm, enum kvm_bus bus_idx, struct kvm_io_device *dev);
#endif
struct kvm_io_device *kvm_io_bus_get_dev(struct kvm *kvm, enum kvm_bus bus_idx, gpa_t addr);

void kvm_flush_remote_tlbs(struct kvm *kvm);

/* The guest's memory is in the daemon, and the hook's process has no way to it. */
#define HOOK_NO_GUEST_MEMORY	HOOK_UNSUPPORTED("the model gives a hook no way to the guest's memory and its slots")
int kvm_read_guest(struct kvm *kvm, gpa_t gpa, void *data, unsigned long len) HOOK_NO_GUEST_MEMORY;
int kvm_write_guest(struct kvm *kvm, gpa_t gpa, const void *data, unsigned long len) HOOK_NO_GUEST_MEMORY;
int kvm_read_guest_page(struct kvm *kvm, gfn_t gfn, void *data, int offset, int len) HOOK_NO_GUEST_MEMORY;
int kvm_write_guest_page(struct kvm *kvm, gfn_t gfn, const void *data, int offset, int len) HOOK_NO_GUEST_MEMORY;
int kvm_vcpu_read_guest(struct kvm_vcpu *vcpu, gpa_t gpa, void *data, unsigned long len) HOOK_NO_GUEST_MEMORY;
int kvm_vcpu_write_guest(struct kvm_vcpu *vcpu, gpa_t gpa, const void *data, unsigned long len) HOOK_NO_GUEST_MEMORY;
unsigned long gfn_to_hva(struct kvm *kvm, gfn_t gfn) HOOK_NO_GUEST_MEMORY;
unsigned long kvm_vcpu_gfn_to_hva(struct kvm_vcpu *vcpu, gfn_t gfn) HOOK_NO_GUEST_MEMORY;
kvm_pfn_t gfn_to_pfn(struct kvm *kvm, gfn_t gfn) HOOK_NO_GUEST_MEMORY;
struct kvm_memory_slot *gfn_to_memslot(struct kvm *kvm, gfn_t gfn) HOOK_NO_GUEST_MEMORY;
struct kvm_memory_slot *kvm_vcpu_gfn_to_memslot(struct kvm_vcpu *vcpu, gfn_t gfn) HOOK_NO_GUEST_MEMORY;
bool kvm_is_visible_gfn(struct kvm *kvm, gfn_t gfn) HOOK_NO_GUEST_MEMORY;

#endif
