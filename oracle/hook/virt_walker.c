// SPDX-License-Identifier: GPL-2.0-only
/*
 * The hook of the original system, and the files for an observer of it, for Linux 5.10 and later.
 *
 * The hook claims three bytes of guest physical address space. A one-byte write to HIDE puts the byte into bits [58:51]
 * of the stage-2 entry of the first page of guest RAM; a one-byte read of SEEK gets it from there.
 *
 * The observer reads /sys/kernel/debug/virt_walker/:
 *   trace  a line for each stage-2 abort, stage-2 TLB invalidation and message of the hook; a write empties it
 *   leaf   write an IPA in hex, then read the level and the entry of its leaf in the newest VM, and the reference
 *          counts of the table pages on the way there, from the start level down
 */
#include <linux/bitfield.h>
#include <linux/debugfs.h>
#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <asm/kvm_emulate.h>
#include <asm/kvm_mmu.h>
#include <asm/kvm_pgtable.h>

#include "virt_walker.h"

#define HIDE		0x0b000000UL
#define SEEK		0x0b000001UL
#define CLAIM_END	0x0b000002UL	/* inclusive */
#define TARGET		0x40000000UL
#define HIDDEN_BITS	GENMASK_ULL(58, 51)
#define LAST_LEVEL	3
#define MOST_LEVELS	5	/* with LPA2 */

/* --- The trace */

static DEFINE_SPINLOCK(trace_lock);
static char trace_text[1 << 16];
static size_t trace_length;

static __printf(1, 2) void trace(const char *format, ...)
{
	unsigned long flags;
	va_list arguments;

	spin_lock_irqsave(&trace_lock, flags);
	va_start(arguments, format);
	/* A line that does not fit is cut off; the observer empties the trace after every step. */
	trace_length += vscnprintf(trace_text + trace_length, sizeof(trace_text) - trace_length,
				   format, arguments);
	va_end(arguments);
	spin_unlock_irqrestore(&trace_lock, flags);
}

void virt_walker_trace_abort(struct kvm_vcpu *vcpu)
{
	trace("abort esr=%08llx far=%016lx hpfar=%010llx\n", (u64)kvm_vcpu_get_esr(vcpu),
	      kvm_vcpu_get_hfar(vcpu), vcpu->arch.fault.hpfar_el2);
}

/* Level 0 stands for any level. From 6.8 on, KVM has TLBI_TTL_UNKNOWN for this, which is beyond all levels. */
static void trace_tlbi(u64 ipa, int level, const char *scope)
{
	trace("tlbi ipa=%010llx level=%d%s\n", ipa, level > LAST_LEVEL ? 0 : level, scope);
}

void virt_walker_trace_tlbi_ipa(u64 ipa, int level)
{
	trace_tlbi(ipa, level, "");
}

void virt_walker_trace_tlbi_ipa_nsh(u64 ipa, int level)
{
	trace_tlbi(ipa, level, " nsh");
}

void virt_walker_trace_tlbi_range(u64 ipa, unsigned long pages)
{
	trace("tlbi ipa=%010llx pages=%lx\n", ipa, pages);
}

void virt_walker_trace_tlbi_vmid(void)
{
	trace("tlbi all\n");
}

/* --- The form of a walker's callback, which depends on the version */

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
#define DEFINE_CALLBACK(name, visit)							\
	static int name(const struct kvm_pgtable_visit_ctx *ctx,			\
			enum kvm_pgtable_walk_flags flag)				\
	{										\
		return visit(ctx->addr, ctx->level, ctx->ptep, flag, ctx->arg);		\
	}
#else
#define DEFINE_CALLBACK(name, visit)							\
	static int name(u64 addr, u64 end, u32 level, kvm_pte_t *ptep,			\
			enum kvm_pgtable_walk_flags flag, void * const arg)		\
	{										\
		return visit(addr, level, ptep, flag, arg);				\
	}
#endif

static void skip_instruction(struct kvm_vcpu *vcpu)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 11, 0)
	kvm_incr_pc(vcpu);
#else
	kvm_skip_instr(vcpu, kvm_vcpu_trap_il_is32bit(vcpu));
#endif
}

/* --- The hook */

struct hide_seek {
	bool hide;
	bool found;
	u8 byte;
};

static int hide_seek_visit(u64 addr, int level, kvm_pte_t *ptep,
			   enum kvm_pgtable_walk_flags flag, void *arg)
{
	struct hide_seek *op = arg;

	if (flag != KVM_PGTABLE_WALK_LEAF || addr != TARGET)
		return 0;
	if (op->hide)
		WRITE_ONCE(*ptep, (*ptep & ~HIDDEN_BITS) | FIELD_PREP(HIDDEN_BITS, op->byte));
	else
		op->byte = FIELD_GET(HIDDEN_BITS, *ptep);
	op->found = true;
	return 0;
}

DEFINE_CALLBACK(hide_seek_callback, hide_seek_visit)

static int hide_seek(struct kvm_vcpu *vcpu, struct hide_seek *op)
{
	struct kvm_pgtable_walker walker = {
		.cb	= hide_seek_callback,
		.arg	= op,
		.flags	= KVM_PGTABLE_WALK_LEAF,
	};
	int ret = kvm_pgtable_walk(vcpu->arch.hw_mmu->pgt, TARGET, PAGE_SIZE, &walker);

	return ret || !op->found ? -EFAULT : 0;
}

int virt_walker_mmio(struct kvm_vcpu *vcpu, phys_addr_t ipa, bool is_write, int len,
		     unsigned long rt)
{
	struct hide_seek op = {};
	int ret = 0;

	if (ipa < HIDE || ipa > CLAIM_END)
		return 0;

	pr_info("MMIO to HIDE and SEEK register detected, len: %d\n", len);
	trace("log MMIO to HIDE and SEEK register detected, len: %d\n", len);
	if (len != 1) {
		pr_info("more than one byte being read/write, ERROR\n");
		trace("log more than one byte being read/write, ERROR\n");
		return -EINVAL;
	}

	if (is_write && ipa == HIDE) {
		op.hide = true;
		op.byte = vcpu_get_reg(vcpu, rt);
		ret = hide_seek(vcpu, &op);
	} else if (!is_write && ipa == SEEK) {
		ret = hide_seek(vcpu, &op);
		if (!ret)
			vcpu_set_reg(vcpu, rt, op.byte);
	}
	if (ret)
		return ret;

	skip_instruction(vcpu);
	return 1;
}

/* --- The observer's files */

/* Before 5.13, mmu_lock is a spinlock. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0)
#define lock_mmu(kvm)	write_lock(&(kvm)->mmu_lock)
#define unlock_mmu(kvm)	write_unlock(&(kvm)->mmu_lock)
#else
#define lock_mmu(kvm)	spin_lock(&(kvm)->mmu_lock)
#define unlock_mmu(kvm)	spin_unlock(&(kvm)->mmu_lock)
#endif

struct leaf {
	int level;
	kvm_pte_t pte;
	int tables;
	int counts[MOST_LEVELS];
};

static int leaf_visit(u64 addr, int level, kvm_pte_t *ptep, enum kvm_pgtable_walk_flags flag,
		      void *arg)
{
	struct leaf *leaf = arg;

	leaf->level = level;
	leaf->pte = READ_ONCE(*ptep);
	leaf->counts[leaf->tables++] = page_count(virt_to_page(ptep));
	return 0;
}

DEFINE_CALLBACK(leaf_callback, leaf_visit)

static u64 leaf_address;

static ssize_t leaf_write(struct file *file, const char __user *text, size_t count, loff_t *pos)
{
	int ret = kstrtou64_from_user(text, count, 16, &leaf_address);

	return ret ?: count;
}

static ssize_t leaf_read(struct file *file, char __user *buffer, size_t count, loff_t *pos)
{
	struct leaf leaf = {};
	struct kvm_pgtable_walker walker = {
		.cb	= leaf_callback,
		.arg	= &leaf,
		.flags	= KVM_PGTABLE_WALK_LEAF | KVM_PGTABLE_WALK_TABLE_PRE,
	};
	char text[128];
	size_t length;
	struct kvm *kvm;
	int i, ret = -ENOENT;

	mutex_lock(&kvm_lock);
	kvm = list_first_entry_or_null(&vm_list, struct kvm, vm_list);
	if (kvm) {
		lock_mmu(kvm);
		if (kvm->arch.mmu.pgt)
			ret = kvm_pgtable_walk(kvm->arch.mmu.pgt, leaf_address, PAGE_SIZE, &walker);
		unlock_mmu(kvm);
	}
	mutex_unlock(&kvm_lock);
	if (ret)
		return ret;

	length = scnprintf(text, sizeof(text), "level %d pte %016llx counts", leaf.level, leaf.pte);
	for (i = 0; i < leaf.tables; i++)
		length += scnprintf(text + length, sizeof(text) - length, " %d", leaf.counts[i]);
	length += scnprintf(text + length, sizeof(text) - length, "\n");
	return simple_read_from_buffer(buffer, count, pos, text, length);
}

static ssize_t trace_read(struct file *file, char __user *buffer, size_t count, loff_t *pos)
{
	return simple_read_from_buffer(buffer, count, pos, trace_text, trace_length);
}

static ssize_t trace_write(struct file *file, const char __user *text, size_t count, loff_t *pos)
{
	unsigned long flags;

	spin_lock_irqsave(&trace_lock, flags);
	trace_length = 0;
	spin_unlock_irqrestore(&trace_lock, flags);
	return count;
}

static const struct file_operations leaf_operations = {
	.read	= leaf_read,
	.write	= leaf_write,
};

static const struct file_operations trace_operations = {
	.read	= trace_read,
	.write	= trace_write,
};

static int __init virt_walker_init(void)
{
	struct dentry *directory = debugfs_create_dir("virt_walker", NULL);

	debugfs_create_file("leaf", 0600, directory, NULL, &leaf_operations);
	debugfs_create_file("trace", 0600, directory, NULL, &trace_operations);
	return 0;
}
late_initcall(virt_walker_init);
