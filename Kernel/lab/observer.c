// SPDX-License-Identifier: GPL-2.0-only
/*
 * The observer in the host's kernel: /dev/virt_walker_observer gives the entries of the stage-2 table of a virtual machine. It walks by itself,
 * so that a user's changes of KVM's walker do not change the view. An entry may be damaged: a table is read only if its address is memory,
 * and the number of tables is limited. The module fits Linux 5.10 and later.
 *
 * For the recorder, /sys/kernel/debug/virt_walker/ has these files:
 *   trace  a line for each stage-2 abort, each stage-2 TLB invalidation, and each line that the recorder's own calls put into the kernel's log.
 *          A write empties the file, and the process that writes is the recorder from then on
 *   leaf   write an IPA in hex, then read the level and the entry of its leaf in the recorder's VM, and the reference counts of the table pages on
 *          the way there, from the start level down
 */
#include <linux/debugfs.h>
#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kvm_host.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/tracepoint.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <asm/esr.h>
#include <asm/kvm_asm.h>
#include <asm/kvm_pgtable.h>

#include "invalidation.h"
#include "observer.h"

#define MOST_VISITS (1u << 20)
#define MOST_TABLES 65536
#define ENTRY_BITS (PAGE_SHIFT - 3)
#define LAST_LEVEL 3

/* Bits [47:PAGE_SHIFT]. The rest of a 52-bit address of 64 KiB pages is in bits [15:12]. */
#define ADDRESS_MASK GENMASK_ULL(47, PAGE_SHIFT)

/* The type of mmu_lock depends on the version. */
#define has_rwlock(kvm) __builtin_types_compatible_p(typeof((kvm)->mmu_lock), rwlock_t)

static void lock_mmu(struct kvm *kvm)
{
	if (has_rwlock(kvm))
		write_lock((rwlock_t *)&kvm->mmu_lock);
	else
		spin_lock((spinlock_t *)&kvm->mmu_lock);
}

static void unlock_mmu(struct kvm *kvm)
{
	if (has_rwlock(kvm))
		write_unlock((rwlock_t *)&kvm->mmu_lock);
	else
		spin_unlock((spinlock_t *)&kvm->mmu_lock);
}

struct walk {
	const struct observer_walk *request;
	struct observer_visit *visits;
	u32 count;
	u32 tables;
};

static u64 entry_size(int level)
{
	return 1ULL << (PAGE_SHIFT + ENTRY_BITS * (LAST_LEVEL - level));
}

static u64 address_of(u64 entry)
{
	u64 address = entry & ADDRESS_MASK;

	if (PAGE_SHIFT == 16)
		address |= (entry & GENMASK_ULL(15, 12)) << 36;
	return address;
}

/* Puts the entries of a table into the walk: of one address, or all below `base`. Returns false if there is no room. */
static bool walk_table(struct walk *walk, u64 table, u64 entries, int level, u64 base)
{
	const struct observer_walk *request = walk->request;
	u64 size = entry_size(level), first = 0, last = entries - 1, index;

	if (!request->all)
		first = last = (request->address / size) & (entries - 1);
	for (index = first; index <= last; index++) {
		u64 where = table + index * sizeof(u64), entry;
		struct observer_visit *visit;

		/* The start level may have several pages. */
		if (!pfn_valid(where >> PAGE_SHIFT) ||
		    copy_from_kernel_nofault(&entry, phys_to_virt(where), sizeof(entry)))
			return true;
		if (request->all && !entry)
			continue;
		if (walk->count >= request->capacity) {
			walk->count++;
			return false;
		}
		visit = &walk->visits[walk->count++];
		visit->level = level;
		visit->index = index;
		visit->table = table;
		visit->entry = entry;
		visit->references = page_count(pfn_to_page(where >> PAGE_SHIFT));
		visit->address = base + index * size;
		if (level == LAST_LEVEL || (entry & 3) != 3)
			continue;
		if (walk->tables++ >= MOST_TABLES)
			return false;
		if (!walk_table(walk, address_of(entry), 1ULL << ENTRY_BITS, level + 1, visit->address))
			return false;
	}
	return true;
}

static void walk_pgt(struct walk *walk, struct kvm_pgtable *pgt)
{
	int level = pgt->start_level;
	u64 table = virt_to_phys((void *)(uintptr_t)pgt->pgd);

	if (pgt->ia_bits > 52 || level < -1 || level > LAST_LEVEL)
		return;
	if (!walk->request->all && walk->request->address >> pgt->ia_bits)
		return;
	walk_table(walk, table, max_t(u64, (1ULL << pgt->ia_bits) / entry_size(level), 1), level, 0);
}

static void walk_vm(struct walk *walk, struct kvm *kvm)
{
	lock_mmu(kvm);
	if (kvm->arch.mmu.pgt)
		walk_pgt(walk, kvm->arch.mmu.pgt);
	unlock_mmu(kvm);
}

static bool is_vm(const struct file *file)
{
	return !strcmp(file->f_path.dentry->d_name.name, "kvm-vm");
}

static struct file *get_vm(int descriptor)
{
	struct file *file = fget(descriptor);

	if (file && !is_vm(file)) {
		fput(file);
		file = NULL;
	}
	return file;
}

static long observer_walk(void __user *argument)
{
	struct observer_walk request;
	struct walk walk = { .request = &request };
	struct file *file;
	long error = 0;

	if (copy_from_user(&request, argument, sizeof(request)))
		return -EFAULT;
	request.capacity = min(request.capacity, MOST_VISITS);
	walk.visits = vmalloc(array_size(max(request.capacity, 1u), sizeof(*walk.visits)));
	if (!walk.visits)
		return -ENOMEM;
	file = get_vm(request.vm);
	if (!file) {
		vfree(walk.visits);
		return -EBADF;
	}
	walk_vm(&walk, file->private_data);
	fput(file);

	request.count = walk.count;
	if (copy_to_user(u64_to_user_ptr(request.visits), walk.visits,
			 min(walk.count, request.capacity) * sizeof(*walk.visits)) ||
	    copy_to_user(argument, &request, sizeof(request)))
		error = -EFAULT;
	vfree(walk.visits);
	return error;
}

static long observer_fault(void __user *argument)
{
	struct observer_fault fault;
	struct kvm_vcpu *vcpu;
	struct file *file;
	long error = -ENOENT;

	if (copy_from_user(&fault, argument, sizeof(fault)))
		return -EFAULT;
	file = get_vm(fault.vm);
	if (!file)
		return -EBADF;
	vcpu = kvm_get_vcpu(file->private_data, 0);
	if (vcpu) {
		fault.esr = vcpu->arch.fault.esr_el2;
		fault.far = vcpu->arch.fault.far_el2;
		fault.hpfar = vcpu->arch.fault.hpfar_el2;
		error = copy_to_user(argument, &fault, sizeof(fault)) ? -EFAULT : 0;
	}
	fput(file);
	return error;
}

/* --- Events */

enum { ENTRIES, TRANSLATION, ACCESS_FLAG, PERMISSION, OTHER, INVALIDATIONS, INVALIDATIONS_OF_ALL, COUNTS };

/* In the order of struct observer_counts. */
static atomic64_t counts[COUNTS];
static_assert(sizeof(struct observer_counts) == COUNTS * sizeof(u64));

static DEFINE_SPINLOCK(trace_lock);
static char trace_text[1 << 16];
static size_t trace_length;
static pid_t recorder; /* 0: there is none */

static __printf(1, 2) void trace(const char *format, ...)
{
	unsigned long flags;
	va_list arguments;

	if (!READ_ONCE(recorder))
		return;
	spin_lock_irqsave(&trace_lock, flags);
	va_start(arguments, format);
	/* A line that does not fit is cut off; the recorder empties the trace after every step. */
	trace_length += vscnprintf(trace_text + trace_length, sizeof(trace_text) - trace_length, format, arguments);
	va_end(arguments);
	spin_unlock_irqrestore(&trace_lock, flags);
}

static void count_abort(u64 syndrome)
{
	/* Bits [5:2] of a fault status are the kind, and bits [1:0] are the level. */
	switch (syndrome & 0x3c) {
	case 0x04:
		atomic64_inc(&counts[TRANSLATION]);
		break;
	case 0x08:
		atomic64_inc(&counts[ACCESS_FLAG]);
		break;
	case 0x0c:
		atomic64_inc(&counts[PERMISSION]);
		break;
	default:
		atomic64_inc(&counts[OTHER]);
	}
}

/* The tracepoint kvm_entry. */
static void see_entry(void *data, unsigned long pc)
{
	atomic64_inc(&counts[ENTRIES]);
}

/* The tracepoint kvm_exit, before KVM handles the exit. An abort beyond the IPA range has no tracepoint of its own. */
static void see_exit(void *data, int exception, unsigned int class, unsigned long pc)
{
	struct kvm_vcpu *vcpu = virt_walker_running_vcpu();
	u64 syndrome;

	if (!vcpu || ARM_EXCEPTION_CODE(exception) != ARM_EXCEPTION_TRAP)
		return;
	syndrome = vcpu->arch.fault.esr_el2;
	switch (ESR_ELx_EC(syndrome)) {
	case ESR_ELx_EC_IABT_LOW:
	case ESR_ELx_EC_DABT_LOW:
		count_abort(syndrome);
		/* Recent versions have a flag of their own in bit 63 of HPFAR_EL2. */
		trace("abort esr=%08llx far=%016llx hpfar=%010llx\n", syndrome, (u64)vcpu->arch.fault.far_el2,
		      (u64)vcpu->arch.fault.hpfar_el2 & ~BIT_ULL(63));
	}
}

static void see_invalidation(const char *function, u64 address, u64 number)
{
	bool is_range = strstr(function, "_vmid_range");
	int level = number;

	if (!is_range && !strstr(function, "_vmid_ipa")) {
		atomic64_inc(&counts[INVALIDATIONS_OF_ALL]);
		trace("tlbi all\n");
		return;
	}
	atomic64_inc(&counts[INVALIDATIONS]);
	if (is_range)
		trace("tlbi ipa=%010llx pages=%llx\n", address, number);
	else
		/* Level 0 stands for any level. From 6.8 on, KVM has TLBI_TTL_UNKNOWN for this, which is beyond all levels. */
		trace("tlbi ipa=%010llx level=%d%s\n", address, level > LAST_LEVEL ? 0 : level,
		      strstr(function, "_ipa_nsh") ? " nsh" : "");
}

/* The tracepoint console: a text for the kernel's log. Linux 5.10 has put the time in front of it. */
static void see_text(void *data, const char *text, size_t length)
{
	const char *end = text + length, *line_end;

	if (!READ_ONCE(recorder) || !in_task() || current->tgid != recorder)
		return;
	for (; text < end; text = line_end + 1) {
		const char *bracket;

		line_end = memchr(text, '\n', end - text) ?: end;
		bracket = *text == '[' ? memchr(text, ']', line_end - text) : NULL;
		if (bracket && text + strspn(text, "[ .0123456789") == bracket && bracket + 1 < line_end)
			text = bracket + 2;
		/* KVM's own line about an access without a syndrome is no line of a hook, and recordings do not have it. */
		if (!strnstr(text, "Data abort outside memslots", line_end - text))
			trace("log %.*s\n", (int)(line_end - text), text);
	}
}

static long observer_counts(void __user *argument)
{
	struct observer_counts copy;
	int i;

	for (i = 0; i < COUNTS; i++)
		((u64 *)&copy)[i] = atomic64_read(&counts[i]);
	return copy_to_user(argument, &copy, sizeof(copy)) ? -EFAULT : 0;
}

static long observer_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	switch (command) {
	case OBSERVER_WALK:
		return observer_walk((void __user *)argument);
	case OBSERVER_FAULT:
		return observer_fault((void __user *)argument);
	case OBSERVER_COUNTS:
		return observer_counts((void __user *)argument);
	default:
		return -ENOTTY;
	}
}

static const struct file_operations observer_operations = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = observer_ioctl,
};

static struct miscdevice observer = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "virt_walker_observer",
	.fops = &observer_operations,
	.mode = 0600,
};

/* --- The recorder's files */

static ssize_t trace_read(struct file *file, char __user *buffer, size_t count, loff_t *position)
{
	return simple_read_from_buffer(buffer, count, position, trace_text, trace_length);
}

static ssize_t trace_write(struct file *file, const char __user *text, size_t count, loff_t *position)
{
	unsigned long flags;

	spin_lock_irqsave(&trace_lock, flags);
	trace_length = 0;
	spin_unlock_irqrestore(&trace_lock, flags);
	WRITE_ONCE(recorder, current->tgid);
	return count;
}

static u64 leaf_address;

static ssize_t leaf_write(struct file *file, const char __user *text, size_t count, loff_t *position)
{
	return kstrtou64_from_user(text, count, 16, &leaf_address) ?: count;
}

static int find_vm(const void *found, struct file *file, unsigned int descriptor)
{
	if (!is_vm(file))
		return 0;
	*(struct file **)found = get_file(file);
	return 1;
}

static ssize_t leaf_read(struct file *file, char __user *buffer, size_t count, loff_t *position)
{
	struct observer_walk request = { .address = leaf_address, .capacity = 8 };
	struct observer_visit visits[8];
	struct walk walk = { .request = &request, .visits = visits };
	struct file *vm = NULL;
	char text[160];
	size_t length;
	u32 i;

	iterate_fd(current->files, 0, find_vm, &vm);
	if (!vm)
		return -ENOENT;
	walk_vm(&walk, vm->private_data);
	fput(vm);
	if (!walk.count || walk.count > request.capacity)
		return -ENOENT;
	length = scnprintf(text, sizeof(text), "level %u pte %016llx counts", visits[walk.count - 1].level, visits[walk.count - 1].entry);
	for (i = 0; i < walk.count; i++)
		length += scnprintf(text + length, sizeof(text) - length, " %llu", visits[i].references);
	length += scnprintf(text + length, sizeof(text) - length, "\n");
	return simple_read_from_buffer(buffer, count, position, text, length);
}

static const struct file_operations leaf_operations = {
	.owner = THIS_MODULE,
	.read = leaf_read,
	.write = leaf_write,
};

static const struct file_operations trace_operations = {
	.owner = THIS_MODULE,
	.read = trace_read,
	.write = trace_write,
};

static void find_tracepoint(struct tracepoint *tracepoint, void *data)
{
	void *probe = !strcmp(tracepoint->name, "kvm_entry") ? (void *)see_entry :
		      !strcmp(tracepoint->name, "kvm_exit")  ? (void *)see_exit :
		      !strcmp(tracepoint->name, "console")   ? (void *)see_text :
							       NULL;

	if (probe && !tracepoint_probe_register(tracepoint, probe, NULL))
		++*(int *)data;
}

static int __init observer_init(void)
{
	struct dentry *directory = debugfs_create_dir("virt_walker", NULL);
	int error = misc_register(&observer), probes = 0;

	if (error)
		return error;
	debugfs_create_file("leaf", 0600, directory, NULL, &leaf_operations);
	debugfs_create_file("trace", 0600, directory, NULL, &trace_operations);
	for_each_kernel_tracepoint(find_tracepoint, &probes);
	if (probes != 3)
		pr_warn("this kernel lacks one of the tracepoints kvm_entry, kvm_exit and console: some events are not observed\n");
	WRITE_ONCE(virt_walker_invalidation, see_invalidation);
	return 0;
}
/* There is no exit function: the module stays. */
module_init(observer_init);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Shows the stage-2 tables of a virtual machine");
