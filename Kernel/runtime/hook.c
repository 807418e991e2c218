// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The calls of the daemon for a user's hook. */
#include "hook.h"
#include "system.h"

#include <kvm/arm_psci.h>

/*
 * Physical addresses outside the tables' memory have virtual addresses from here on. Nothing is mapped there, so that an access faults. A
 * program has no memory there: it is loaded at low addresses, and its mappings are at high ones.
 */
#define ELSEWHERE	0x300000000000ULL
#define ELSEWHERE_SIZE	0x100000000000ULL

/* The functions of the user's file, if it has them. */
extern int io_mem_abort(struct kvm_vcpu *vcpu, phys_addr_t fault_ipa) __attribute__((weak));
extern int kvm_hvc_call_handler(struct kvm_vcpu *vcpu) __attribute__((weak));
extern int kvm_smccc_call_handler(struct kvm_vcpu *vcpu) __attribute__((weak));

static struct channel_geometry tables;
static u8 *tables_memory;

static struct kvm_pgtable pgtable;
static struct kvm_run run;
static struct kvm_io_bus *empty_bus;
struct kvm hook_vm;
struct kvm_vcpu hook_vcpu;

/* --- The memory of the tables */

void *hook_phys_to_virt(phys_addr_t phys)
{
	if (phys - tables.base < tables.size)
		return tables_memory + (phys - tables.base);
	return (void *)(ELSEWHERE + phys % ELSEWHERE_SIZE);
}

phys_addr_t hook_virt_to_phys(const volatile void *address)
{
	u64 value = (u64)address;

	if (value - (u64)tables_memory < tables.size)
		return tables.base + (value - (u64)tables_memory);
	if (value - ELSEWHERE < ELSEWHERE_SIZE)
		return value - ELSEWHERE;
	runtime_finding("virt_to_phys() of 0x%llx, which is no address of a stage-2 table: the result is no physical address", value);
	return value;
}

bool runtime_describe_address(struct channel_fault *fault)
{
	const char *action = fault->access == 2 ? "the code ran to" : fault->access ? "the store went to" : "the load went to";

	if (fault->address - ELSEWHERE < ELSEWHERE_SIZE) {
		/* The text has no words of the kernel, because the real kernel has memory there, and says nothing. */
		fault->kind = CHANNEL_FAULT_BUG;
		scnprintf(fault->text, sizeof(fault->text), "%s physical address 0x%llx, where no stage-2 table is (the tables are at 0x%llx to "
			  "0x%llx): has a walk taken the entry of a page or block for that of a table? If memory is there, e.g. a page of the "
			  "guest, the real kernel goes on with it, and says nothing", action, fault->address - ELSEWHERE, tables.base,
			  tables.base + tables.size);
		return true;
	}
	if (fault->address - ((u64)tables_memory + tables.size) < RUNTIME_GUARD_SIZE) {
		scnprintf(fault->text, sizeof(fault->text), "%s an address behind the end of the stage-2 tables", action);
		return true;
	}
	return false;
}

void hook_report_visit(const kvm_pte_t *ptep, int level)
{
	runtime_log(CHANNEL_RECORD_VISIT, level, (u64)ptep - (u64)tables_memory, NULL, 0);
}

static void __noreturn no_page_counts(const char *function)
{
	runtime_fault(CHANNEL_FAULT_BUG, "%s() for the pages of tables: the model counts and allocates these pages itself; run this hook on "
		      "the real kernel: --engine kernel", function);
}

struct page *virt_to_page(const volatile void *address)
{
	(void)address;
	no_page_counts(__func__);
}

int page_count(struct page *page)
{
	(void)page;
	no_page_counts(__func__);
}

void get_page(struct page *page)
{
	(void)page;
	no_page_counts(__func__);
}

void put_page(struct page *page)
{
	(void)page;
	no_page_counts(__func__);
}

void *alloc_pages_exact(size_t size, gfp_t flags)
{
	(void)size, (void)flags;
	no_page_counts(__func__);
}

void free_pages_exact(void *address, size_t size)
{
	(void)address, (void)size;
	no_page_counts(__func__);
}

void *kvm_mmu_memory_cache_alloc(struct kvm_mmu_memory_cache *cache)
{
	(void)cache;
	no_page_counts(__func__);
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0)
static void *zalloc_page(void *arg)
{
	(void)arg;
	no_page_counts("mm_ops->zalloc_page");
}

static void *zalloc_pages_exact(size_t size)
{
	(void)size;
	no_page_counts("mm_ops->zalloc_pages_exact");
}

static void change_count(void *address)
{
	(void)address;
	no_page_counts("mm_ops->get_page or put_page");
}

static int read_count(void *address)
{
	(void)address;
	no_page_counts("mm_ops->page_count");
}

static phys_addr_t mm_ops_virt_to_phys(void *address)
{
	return hook_virt_to_phys(address);
}

static void clean_cache(void *address, size_t size)
{
	(void)address, (void)size;
}

static struct kvm_pgtable_mm_ops mm_ops = {
	.zalloc_page = zalloc_page,
	.zalloc_pages_exact = zalloc_pages_exact,
	.free_pages_exact = free_pages_exact,
	.get_page = change_count,
	.put_page = change_count,
	.page_count = read_count,
	.phys_to_virt = hook_phys_to_virt,
	.virt_to_phys = mm_ops_virt_to_phys,
	.dcache_clean_inval_poc = clean_cache,
	.icache_inval_pou = clean_cache,
};
#endif

int hook_set_tables(int descriptor, const struct channel_geometry *geometry)
{
	long address;

	if (geometry->page_shift != PAGE_SHIFT) {
		runtime_finding_at(0, "this hook is compiled for pages of %lu KiB, and the machine has pages of %llu KiB: compile it with "
				   "-DPAGE_SHIFT=%u", PAGE_SIZE >> 10, 1ULL << (geometry->page_shift - 10), geometry->page_shift);
		return -EINVAL;
	}
	if (!geometry->size || geometry->pgd - geometry->base >= geometry->size)
		return -EINVAL;
	address = system(SYS_MMAP, NULL, geometry->size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
	if (IS_ERR_VALUE(address))
		return address;
	if (tables_memory)
		system(SYS_MUNMAP, tables_memory, tables.size);
	tables = *geometry;
	tables_memory = (u8 *)address;
	pgtable.ia_bits = geometry->ipa_bits;
	pgtable.start_level = geometry->start_level;
	pgtable.pgd = hook_phys_to_virt(geometry->pgd);
	pgtable.mmu = &hook_vm.arch.mmu;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0)
	pgtable.mm_ops = &mm_ops;
#endif
	hook_vm.arch.mmu.pgt = &pgtable;
	hook_vm.arch.mmu.pgd_phys = geometry->pgd;
	hook_vm.arch.vtcr = geometry->vtcr;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 8, 0)
	hook_vm.arch.mmu.vtcr = geometry->vtcr;
#endif
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 18, 0)
	atomic64_set(&hook_vm.arch.mmu.vmid.id, geometry->vmid);
#else
	hook_vm.arch.mmu.vmid.vmid = geometry->vmid;
#endif
	return 0;
}

/* --- The virtual machine */

static void create_vm(void)
{
	int i;

	empty_bus = runtime_allocate(sizeof(*empty_bus) * KVM_NR_BUSES);
	memset(empty_bus, 0, sizeof(*empty_bus) * KVM_NR_BUSES);
	for (i = 0; i < KVM_NR_BUSES; i++)
		hook_vm.buses[i] = &empty_bus[i];
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 18, 0)
	rwlock_init(&hook_vm.mmu_lock);
#else
	spin_lock_init(&hook_vm.mmu_lock);
#endif
	mutex_init(&hook_vm.lock);
	mutex_init(&hook_vm.slots_lock);
	mutex_init(&hook_vm.slots_arch_lock);
	mutex_init(&hook_vm.irq_lock);
	mutex_init(&hook_vm.arch.config_lock);
	hook_vm.arch.smccc_feat = (struct kvm_smccc_features){ ~0UL, ~0UL, ~0UL };
	INIT_LIST_HEAD(&hook_vm.vm_list);
	list_add(&hook_vm.vm_list, &vm_list);
	hook_vm.arch.flags = BIT(KVM_ARCH_FLAG_HAS_RAN_ONCE) | BIT(KVM_ARCH_FLAG_REG_WIDTH_CONFIGURED);
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 14, 0)
	hook_vm.arch.mmu.arch = &hook_vm.arch;
#else
	hook_vm.arch.mmu.kvm = &hook_vm;
#endif

	mutex_init(&hook_vcpu.mutex);
	hook_vcpu.kvm = &hook_vm;
	hook_vcpu.run = &run;
	hook_vcpu.arch.hw_mmu = &hook_vm.arch.mmu;
	__set_bit(KVM_ARM_VCPU_PSCI_0_2, hook_vcpu.arch.features);
	hook_vm.vcpus[0] = &hook_vcpu;
	hook_vm.created_vcpus = 1;
	atomic_set(&hook_vm.online_vcpus, 1);
}

static void load_vcpu(const struct channel_vcpu *vcpu)
{
	struct user_pt_regs *registers = vcpu_gp_regs(&hook_vcpu);

	memcpy(registers->regs, vcpu->x, sizeof(registers->regs));
	registers->pc = vcpu->pc;
	registers->pstate = vcpu->pstate;
	hook_vcpu.arch.ctxt.sp_el1 = vcpu->sp_el1;
	hook_vcpu.arch.fault.esr_el2 = vcpu->esr_el2;
	hook_vcpu.arch.fault.far_el2 = vcpu->far_el2;
	hook_vcpu.arch.fault.hpfar_el2 = vcpu->hpfar_el2;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 15, 0)
	/* KVM marks a valid address with this bit. */
	hook_vcpu.arch.fault.hpfar_el2 |= HPFAR_EL2_NS;
#endif
	hook_vcpu.arch.iflags = 0;
#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 19, 0)
	hook_vcpu.arch.flags = 0;
#endif
	hook_vcpu.mmio_needed = 0;
	hook_vcpu.stat.exits++;
	memset(&run, 0, sizeof(run));
}

/*
 * Gives the registers back. The daemon moves the program counter for "increments": from 5.11 on once, for 5.10 at each call. "pc" is
 * without these moves: it differs from the old one only if the code has changed it by hand (vcpu_pc()).
 */
static void store_vcpu(struct channel_vcpu *vcpu)
{
	const struct user_pt_regs *registers = vcpu_gp_regs(&hook_vcpu);

	memcpy(vcpu->x, registers->regs, sizeof(vcpu->x));
	vcpu->pc = registers->pc;
	vcpu->pstate = registers->pstate;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 11, 0)
	vcpu->increments = vcpu_get_flag(&hook_vcpu, INCREMENT_PC) != 0;
#else
	vcpu->increments = hook_call.increments;
	vcpu->pc -= 4 * (u64)hook_call.increments;
#endif
	vcpu->exit_reason = run.exit_reason;
	vcpu->exit_is_write = run.mmio.is_write;
	vcpu->exit_length = run.mmio.len;
	vcpu->exit_address = run.mmio.phys_addr;
	memcpy(&vcpu->exit_data, run.mmio.data, sizeof(vcpu->exit_data));
}

/* --- The calls */

/* Whether the function of --hook-function stands for a whole function of KVM. */
static bool is_hook_named(const char *name)
{
	return &hook_function && !strcmp(hook_function.name, name);
}

static bool is_hypercall_hook(void)
{
	return &hook_function && (hook_function.form == HOOK_INT_1 || hook_function.form == HOOK_BOOL_1);
}

static bool has_abort(void)
{
	return io_mem_abort || (&hook_function && !is_hypercall_hook());
}

static bool has_hypercall(void)
{
	return kvm_hvc_call_handler || kvm_smccc_call_handler || is_hypercall_hook();
}

/* The address of the function that is called for an abort; 0 if there is none. */
static u64 abort_address(void)
{
	if (&hook_function && !is_hypercall_hook() && !is_hook_named("io_mem_abort"))
		return (u64)hook_function.function;
	return (u64)io_mem_abort;
}

/* The address of the function that is called for a hypercall; 0 if there is none. */
static u64 hypercall_address(void)
{
	if (is_hypercall_hook())
		return (u64)hook_function.function;
	return kvm_smccc_call_handler ? (u64)kvm_smccc_call_handler : (u64)kvm_hvc_call_handler;
}

/* Tells what is wrong with the registers after an abort. The daemon looks at the result, the exit and the tables. */
static void check_abort(int result)
{
	struct kvm_vcpu *vcpu = &hook_vcpu;
	u64 moved = *vcpu_pc(vcpu) - runtime_channel->vcpu.pc;

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 11, 0)
	moved -= 4 * (u64)hook_call.increments;
#endif
	if (moved && hook_call.increments)
		runtime_finding_at(hook_call.increment_pc, "the program counter is moved by kvm_incr_pc() and by hand (vcpu_pc()): the guest "
				   "misses an instruction");
	if (result > 0 && hook_call.increments && kvm_vcpu_dabt_isvalid(vcpu) && !kvm_vcpu_dabt_iswrite(vcpu) &&
	    !hook_call.is_loaded && kvm_vcpu_dabt_get_rd(vcpu) != 31)
		runtime_finding_at(hook_call.increment_pc, "the guest's load from 0x%llx goes on without a value: no vcpu_set_reg() for x%d "
				   "has been called, so that the register keeps what it had", hook_call.ipa, kvm_vcpu_dabt_get_rd(vcpu));
}

static int call_abort(u64 ipa)
{
	int index, result;

	hook_call = (struct hook_call){ .is_abort = true, .ipa = ipa };
	load_vcpu(&runtime_channel->vcpu);
	index = srcu_read_lock(&hook_vm.srcu);
	if (&hook_function && !is_hypercall_hook() && !is_hook_named("io_mem_abort"))
		result = hook_io_mem_abort(&hook_vcpu, ipa);
	else
		result = io_mem_abort(&hook_vcpu, ipa);
	srcu_read_unlock(&hook_vm.srcu, index);
	check_abort(result);
	store_vcpu(&runtime_channel->vcpu);
	return result;
}

static int call_hypercall(void)
{
	int result;

	hook_call = (struct hook_call){ .is_hypercall = true };
	load_vcpu(&runtime_channel->vcpu);
	hook_vcpu.stat.hvc_exit_stat++;
	if (is_hypercall_hook()) {
		result = hook_function.form == HOOK_BOOL_1 ? ((bool (*)(struct kvm_vcpu *))hook_function.function)(&hook_vcpu) :
							    ((int (*)(struct kvm_vcpu *))hook_function.function)(&hook_vcpu);
		/* The call is not the hook's: KVM knows no other one either. */
		if (!result && !is_hook_named("kvm_hvc_call_handler") && !is_hook_named("kvm_smccc_call_handler"))
			result = kvm_psci_call(&hook_vcpu);
	}
	else if (kvm_smccc_call_handler)
		result = kvm_smccc_call_handler(&hook_vcpu);
	else
		result = kvm_hvc_call_handler(&hook_vcpu);
	store_vcpu(&runtime_channel->vcpu);
	return result;
}

static int set_tables(void)
{
	struct channel_geometry geometry = runtime_channel->geometry;
	int descriptor = runtime_take_descriptor();
	int result = hook_set_tables(descriptor, &geometry);

	system(SYS_CLOSE, descriptor);
	return result;
}

static int start(void)
{
	int result;

	if (!has_abort() && !has_hypercall())
		runtime_fault(CHANNEL_FAULT_BUG, "the file has neither io_mem_abort() nor a handler of hypercalls that is not static: name "
			      "your function with --hook-function");
	create_vm();
	result = set_tables();
	return result;
}

void runtime_call(struct runtime_task *task)
{
	struct channel_message *message = &task->message;

	message->length = 0;
	switch (message->kind) {
	case CHANNEL_START:
		message->result = start();
		/* The calls that the hook has. */
		message->arguments[0] = has_abort();
		message->arguments[1] = has_hypercall();
		message->arguments[2] = abort_address();
		message->arguments[3] = hypercall_address();
		break;
	case CHANNEL_TABLES:
		message->result = set_tables();
		break;
	case CHANNEL_ABORT:
		message->result = has_abort() ? call_abort(message->arguments[0]) : -ENOSYS;
		runtime_check_locks(task, "io_mem_abort()");
		break;
	case CHANNEL_HYPERCALL:
		message->result = has_hypercall() ? call_hypercall() : -ENOSYS;
		runtime_check_locks(task, "the handler of hypercalls");
		break;
	case CHANNEL_STOP:
		message->result = 0;
		break;
	default:
		message->result = -EINVAL;
		break;
	}
}
