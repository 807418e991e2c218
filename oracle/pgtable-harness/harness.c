// SPDX-License-Identifier: GPL-2.0-only
/*
 * The kernel's arch/arm64/kvm/hyp/pgtable.c as a library for pgtable-fuzz (oracle/pgtable). The
 * file is under the kernel's license for the reason that stub.h gives.
 *
 * Tables are in one arena. Fresh pages are given out in ascending order, and freed pages last
 * in, first out, as in the model's TableMemory. So both sides have their tables at the same
 * physical addresses, even if a page was freed too early and is in use twice.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <asm/kvm_arm.h>
#include <asm/kvm_pgtable.h>
#include <asm/stage2_pgtable.h>

#include "harness.h"

#define BASE		0x100000000UL	/* TableMemory.base */
#define ARENA_SIZE	(1UL << 30)
#define ARENA_PAGES	(ARENA_SIZE / PAGE_SIZE)
#define HIDDEN_BITS	GENMASK(58, 51)
/*
 * The apparent addresses of all physical memory outside the arena. A user program never has such
 * addresses, on x86-64 and on arm64. The code computes some for cache maintenance. If it follows
 * one, it has taken an entry for a table entry.
 */
#define ELSEWHERE	0x00f0000000000000UL

bool cpu_has[4], cpu_has_tlb_range, cpu_has_52_bits;

static u64 *arena;
static uint32_t counts[ARENA_PAGES];
/* A page that is freed twice is in the list twice. */
static uint32_t *free_pages;
static size_t free_count, free_capacity;
static struct pgtable_event *events;
static size_t event_capacity;
static struct pgtable_state state = { .counts = counts, .is_logging = 1 };

static struct kvm_pgtable pgt;

/* The tables that the code has replaced, and those that it has made without an entry for them. */
struct unlinked_table {
	void *table;
	int level;
};
static struct unlinked_table *replaced, *unlinked;
static size_t replaced_count, replaced_capacity, unlinked_count, unlinked_capacity;

static jmp_buf lost;
static volatile sig_atomic_t is_running;

#if LINUX_VERSION >= KERNEL_VERSION(5, 11)
static struct kvm_arch arch;
static struct kvm_s2_mmu mmu = { .pgt = &pgt, .arch = &arch };
#endif

static void *grow(void *array, size_t *capacity, size_t element)
{
	*capacity = *capacity ? *capacity * 2 : 1024;
	array = realloc(array, *capacity * element);
	if (!array) {
		perror("pgtable library: realloc");
		abort();
	}
	return array;
}

/* --- The functions that the code calls */

void warn(void)
{
	state.warnings++;
}

static void log_event(struct pgtable_event event)
{
	if (!state.is_logging)
		return;
	if (state.event_count == event_capacity)
		state.events = events = grow(events, &event_capacity, sizeof(*events));
	events[state.event_count++] = event;
}

/* Both 0, and in later versions TLBI_TTL_UNKNOWN, stand for any level. */
static u32 level_of(int level)
{
	return level == TLBI_TTL_UNKNOWN ? 0 : level;
}

void __kvm_tlb_flush_vmid_ipa(struct kvm_s2_mmu *mmu, phys_addr_t ipa, int level)
{
	log_event((struct pgtable_event){
		.kind = PGTABLE_INVALIDATE, .level = level_of(level), .address = ipa });
}

void __kvm_tlb_flush_vmid_ipa_nsh(struct kvm_s2_mmu *mmu, phys_addr_t ipa, int level)
{
	log_event((struct pgtable_event){
		.kind = PGTABLE_INVALIDATE_LOCAL, .level = level_of(level), .address = ipa });
}

void __kvm_tlb_flush_vmid_range(struct kvm_s2_mmu *mmu, phys_addr_t start, unsigned long pages)
{
	log_event((struct pgtable_event){
		.kind = PGTABLE_INVALIDATE_RANGE, .address = start, .size = pages });
}

void __kvm_tlb_flush_vmid(struct kvm_s2_mmu *mmu)
{
	log_event((struct pgtable_event){ .kind = PGTABLE_INVALIDATE_ALL });
}

/* --- The memory of the code */

static void lose(void)
{
	longjmp(lost, 1);
}

static size_t page_of(void *addr)
{
	size_t offset = (char *)addr - (char *)arena;

	if (offset >= state.pages * PAGE_SIZE)
		lose();
	return offset / PAGE_SIZE;
}

void *phys_to_virt(phys_addr_t phys)
{
	if (phys - BASE < state.pages * PAGE_SIZE)
		return (char *)arena + (phys - BASE);
	return (void *)(ELSEWHERE | phys);
}

phys_addr_t virt_to_phys(void *addr)
{
	u64 offset = (char *)addr - (char *)arena;

	return offset < ARENA_SIZE ? BASE + offset : (u64)addr & ~ELSEWHERE;
}

static void count_pages_in_use(void)
{
	state.pages_in_use = (int64_t)state.pages - (int64_t)free_count;
}

void *zalloc_pages_exact(size_t size)
{
	void *first = (char *)arena + state.pages * PAGE_SIZE;
	size_t page;

	if (state.pages * PAGE_SIZE + size > ARENA_SIZE)
		return NULL;
	memset(first, 0, size);
	for (page = 0; page < size / PAGE_SIZE; page++)
		counts[state.pages++] = 1;
	count_pages_in_use();
	return first;
}

void *zalloc_page(void *memcache)
{
	size_t page;

#if LINUX_VERSION >= KERNEL_VERSION(6, 4)
	if (memcache == &mmu.split_page_cache && mmu.split_page_cache.nobjs)
		mmu.split_page_cache.nobjs--;
#endif
	if (!free_count)
		return zalloc_pages_exact(PAGE_SIZE);
	page = free_pages[--free_count];
	counts[page] = 1;
	count_pages_in_use();
	return memset((char *)arena + page * PAGE_SIZE, 0, PAGE_SIZE);
}

static void give_back(size_t page)
{
	if (free_count == free_capacity)
		free_pages = grow(free_pages, &free_capacity, sizeof(*free_pages));
	free_pages[free_count++] = page;
	count_pages_in_use();
}

void free_pages_exact(void *addr, size_t size)
{
	size_t page, first = page_of(addr);

	for (page = first; page < first + size / PAGE_SIZE; page++) {
		counts[page] = 0;
		give_back(page);
	}
}

void get_page(void *addr)
{
	size_t page = page_of(addr);

	state.misuses += !counts[page];
	counts[page]++;
}

/* The count of a free page stays 0, as in the kernel, whose count saturates. */
void put_page(void *addr)
{
	size_t page = page_of(addr);

	if (!counts[page])
		state.misuses++;
	else if (!--counts[page])
		give_back(page);
}

int page_count(void *addr)
{
	return counts[page_of(addr)];
}

void dcache_clean_inval_poc(void *addr, size_t size)
{
	log_event((struct pgtable_event){
		.kind = PGTABLE_DATA_CACHE, .address = virt_to_phys(addr), .size = size });
}

#if LINUX_VERSION >= KERNEL_VERSION(5, 13)
static void icache_inval_pou(void *addr, size_t size)
{
	log_event((struct pgtable_event){
		.kind = PGTABLE_INSTRUCTION_CACHE, .address = virt_to_phys(addr), .size = size });
}
#endif

#if LINUX_VERSION >= KERNEL_VERSION(6, 2)
static void note(struct unlinked_table **list, size_t *count, size_t *capacity,
		 struct unlinked_table table)
{
	if (*count == *capacity)
		*list = grow(*list, capacity, sizeof(**list));
	(*list)[(*count)++] = table;
}

/* KVM leaves the table to RCU, which frees it after the walk. */
static void free_unlinked_table(void *addr, s8 level)
{
	note(&replaced, &replaced_count, &replaced_capacity,
	     (struct unlinked_table){ .table = addr, .level = level });
}
#endif

#if LINUX_VERSION >= KERNEL_VERSION(5, 13)
static struct kvm_pgtable_mm_ops mm_ops = {
	.zalloc_page		= zalloc_page,
	.zalloc_pages_exact	= zalloc_pages_exact,
	.free_pages_exact	= free_pages_exact,
	.get_page		= get_page,
	.put_page		= put_page,
	.page_count		= page_count,
	.phys_to_virt		= phys_to_virt,
	.virt_to_phys		= virt_to_phys,
	.dcache_clean_inval_poc	= dcache_clean_inval_poc,
	.icache_inval_pou	= icache_inval_pou,
#if LINUX_VERSION >= KERNEL_VERSION(6, 2)
	.free_unlinked_table	= free_unlinked_table,
#endif
};
#endif

static int init_table(u32 ipa_bits)
{
#if LINUX_VERSION < KERNEL_VERSION(5, 11)
	static struct kvm kvm;
	u32 levels = stage2_pgtable_levels(ipa_bits);

	kvm.arch.vtcr = VTCR_EL2_T0SZ(ipa_bits) | VTCR_EL2_LVLS_TO_SL0(levels < 2 ? 2 : levels);
	kvm.arch.mmu.pgt = &pgt;
	return kvm_pgtable_stage2_init(&pgt, &kvm);
#else
	arch.vtcr = mmu.vtcr = kvm_get_vtcr(ID_AA64MMFR0_EL1_PARANGE_MAX, 0, ipa_bits);
	return __kvm_pgtable_stage2_init(&pgt, &mmu, &mm_ops, 0, NULL);
#endif
}

/*
 * The code reads entries by plain pointers, so only the CPU detects an entry that points
 * elsewhere. An x86-64 CPU takes such an address in its frame pointer for a fault of the stack,
 * which is SIGBUS.
 */
static void address_fault(int signal_number)
{
	if (is_running)
		lose();
	signal(signal_number, SIG_DFL);
}

static void create(const struct pgtable_machine *machine)
{
	struct sigaction action = { .sa_handler = address_fault, .sa_flags = SA_NODEFER };

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	state.pages = 0;
	state.event_count = 0;
	state.is_lost = 0;
	free_count = replaced_count = unlinked_count = 0;
	cpu_has[ARM64_HAS_STAGE2_FWB] = machine->has_fwb;
	cpu_has[ARM64_HAS_XNX] = machine->has_xnx;
	cpu_has_tlb_range = machine->has_tlb_range;
	cpu_has_52_bits = machine->has_52_bits;
	pgt = (struct kvm_pgtable){};
	if (init_table(machine->ipa_bits)) {
		fputs("pgtable library: the kernel's code makes no table\n", stderr);
		abort();
	}
}

/* --- The model's flags and protections, which are the kernel's before 7.0 where the kernel has them */

static enum kvm_pgtable_prot protection(u64 model)
{
#if LINUX_VERSION >= KERNEL_VERSION(7, 0)
	enum kvm_pgtable_prot prot = (model & 0x1e) << 1 | (model & GENMASK(58, 55));

	if (model & BIT(0))
		prot |= KVM_PGTABLE_PROT_X;
	if (model & BIT(5))
		prot |= KVM_PGTABLE_PROT_PX;
	if (model & BIT(6))
		prot |= KVM_PGTABLE_PROT_UX;
	return prot;
#else
	return model;
#endif
}

#if LINUX_VERSION >= KERNEL_VERSION(5, 15)
static u64 model_protection(enum kvm_pgtable_prot prot)
{
#if LINUX_VERSION >= KERNEL_VERSION(7, 0)
	u64 model = (prot >> 1 & 0x1e) | (prot & GENMASK(58, 55));

	if ((prot & KVM_PGTABLE_PROT_X) == KVM_PGTABLE_PROT_X)
		return model | BIT(0);
	if (prot & KVM_PGTABLE_PROT_PX)
		return model | BIT(5);
	return prot & KVM_PGTABLE_PROT_UX ? model | BIT(6) : model;
#else
	return prot;
#endif
}
#endif

#if LINUX_VERSION >= KERNEL_VERSION(6, 2)
static enum kvm_pgtable_walk_flags walk_flags(u32 model)
{
#if LINUX_VERSION >= KERNEL_VERSION(7, 0)
	return (model & KVM_PGTABLE_WALK_SHARED) |
	       (model & BIT(7) ? KVM_PGTABLE_WALK_IGNORE_EAGAIN : 0);
#else
	return model;
#endif
}
#endif

/* --- The hook's walk, as hide_seek_visit and hide_seek in oracle/hook/virt_walker.c, for any address */

struct hide_seek {
	u64 target;
	bool hide;
	bool found;
	u8 byte;
};

static int visit(u64 addr, kvm_pte_t *ptep, enum kvm_pgtable_walk_flags flag, struct hide_seek *op)
{
	if (flag != KVM_PGTABLE_WALK_LEAF || addr != op->target)
		return 0;
	if (op->hide)
		WRITE_ONCE(*ptep, (*ptep & ~HIDDEN_BITS) | FIELD_PREP(HIDDEN_BITS, op->byte));
	else
		op->byte = FIELD_GET(HIDDEN_BITS, *ptep);
	op->found = true;
	return 0;
}

#if LINUX_VERSION >= KERNEL_VERSION(6, 2)
static int hide_seek_visit(const struct kvm_pgtable_visit_ctx *ctx, enum kvm_pgtable_walk_flags flag)
{
	return visit(ctx->addr, ctx->ptep, flag, ctx->arg);
}
#else
static int hide_seek_visit(u64 addr, u64 end, u32 level, kvm_pte_t *ptep,
			   enum kvm_pgtable_walk_flags flag, void * const arg)
{
	return visit(addr, ptep, flag, arg);
}
#endif

static int hide_seek(struct hide_seek *op)
{
	struct kvm_pgtable_walker walker = {
		.cb	= hide_seek_visit,
		.arg	= op,
		.flags	= KVM_PGTABLE_WALK_LEAF,
	};
	int ret = kvm_pgtable_walk(&pgt, op->target, PAGE_SIZE, &walker);

	return ret || !op->found ? -EFAULT : 0;
}

/* --- The leaf for an address, with its protection in versions that tell it */

#if LINUX_VERSION >= KERNEL_VERSION(5, 15)
static int get_leaf(u64 addr, struct pgtable_result *result)
{
#if LINUX_VERSION >= KERNEL_VERSION(6, 9)
	s8 level;
#else
	u32 level;
#endif
	kvm_pte_t pte;
	int ret = kvm_pgtable_get_leaf(&pgt, addr, &pte, &level);

	if (ret)
		return ret;
	result->value = pte;
	result->level = level;
	result->protection = model_protection(kvm_pgtable_stage2_pte_prot(pte));
	return 0;
}
#else
/* The version has no kvm_pgtable_get_leaf(). */
static int leaf_visit(u64 addr, u64 end, u32 level, kvm_pte_t *ptep,
		      enum kvm_pgtable_walk_flags flag, void * const arg)
{
	struct pgtable_result *result = arg;

	result->value = *ptep;
	result->level = level;
	return 0;
}

static int get_leaf(u64 addr, struct pgtable_result *result)
{
	struct kvm_pgtable_walker walker = {
		.cb	= leaf_visit,
		.arg	= result,
		.flags	= KVM_PGTABLE_WALK_LEAF,
	};

	return kvm_pgtable_walk(&pgt, addr, PAGE_SIZE, &walker);
}
#endif

/* --- Operations */

static void run_unguarded(const struct pgtable_operation *op, struct pgtable_result *result)
{
	static char memcache; /* only its existence counts */
	void *mc = op->can_allocate ? &memcache : NULL;
	struct hide_seek hide = { .target = op->address, .hide = op->kind == PGTABLE_HIDE, .byte = op->byte };
	int ret = 0;

	switch (op->kind) {
#if LINUX_VERSION >= KERNEL_VERSION(6, 2)
	case PGTABLE_MAP:
		ret = kvm_pgtable_stage2_map(&pgt, op->address, op->size, op->physical,
					     protection(op->protection), mc, walk_flags(op->flags));
		break;
#else
	case PGTABLE_MAP:
		ret = kvm_pgtable_stage2_map(&pgt, op->address, op->size, op->physical,
					     protection(op->protection), mc);
		break;
#endif
	case PGTABLE_UNMAP:
		ret = kvm_pgtable_stage2_unmap(&pgt, op->address, op->size);
		break;
	case PGTABLE_WRITE_PROTECT:
		ret = kvm_pgtable_stage2_wrprotect(&pgt, op->address, op->size);
		break;
	case PGTABLE_FLUSH:
		ret = kvm_pgtable_stage2_flush(&pgt, op->address, op->size);
		break;
	case PGTABLE_LEAF:
		ret = get_leaf(op->address, result);
		break;
	case PGTABLE_HIDE:
	case PGTABLE_SEEK:
		ret = hide_seek(&hide);
		if (!ret)
			result->value = hide.byte;
		break;
	case PGTABLE_DESTROY:
		kvm_pgtable_stage2_destroy(&pgt);
		break;
#if LINUX_VERSION >= KERNEL_VERSION(7, 0)
	case PGTABLE_MAKE_YOUNG:
		kvm_pgtable_stage2_mkyoung(&pgt, op->address, walk_flags(op->flags));
		break;
	case PGTABLE_RELAX:
		ret = kvm_pgtable_stage2_relax_perms(&pgt, op->address, protection(op->protection),
						     walk_flags(op->flags));
		break;
	case PGTABLE_ANNOTATE:
		ret = kvm_pgtable_stage2_annotate(&pgt, op->address, op->size, mc, op->byte, op->physical);
		break;
	case PGTABLE_DESTROY_RANGE:
		kvm_pgtable_stage2_destroy_range(&pgt, op->address, op->size);
		break;
#else
	case PGTABLE_MAKE_YOUNG:
		result->value = kvm_pgtable_stage2_mkyoung(&pgt, op->address);
		break;
	case PGTABLE_RELAX:
		ret = kvm_pgtable_stage2_relax_perms(&pgt, op->address, protection(op->protection));
		break;
#endif
#if LINUX_VERSION >= KERNEL_VERSION(5, 13) && LINUX_VERSION < KERNEL_VERSION(7, 0)
	case PGTABLE_SET_OWNER:
		ret = kvm_pgtable_stage2_set_owner(&pgt, op->address, op->size, mc, op->byte);
		break;
#endif
#if LINUX_VERSION >= KERNEL_VERSION(6, 5)
	case PGTABLE_TEST_YOUNG:
		result->value = kvm_pgtable_stage2_test_clear_young(&pgt, op->address, op->size, op->byte);
		break;
	case PGTABLE_SPLIT:
		mmu.split_page_cache.nobjs = op->count;
		ret = kvm_pgtable_stage2_split(&pgt, op->address, op->size, &mmu.split_page_cache);
		break;
	case PGTABLE_CREATE_UNLINKED: {
		struct unlinked_table made = { .level = op->byte };

		made.table = kvm_pgtable_stage2_create_unlinked(&pgt, op->physical, op->byte,
								protection(op->protection), mc, op->count);
		if (IS_ERR(made.table)) {
			ret = PTR_ERR(made.table);
			break;
		}
		result->value = virt_to_phys(made.table);
		note(&unlinked, &unlinked_count, &unlinked_capacity, made);
		break;
	}
	case PGTABLE_FREE_UNLINKED:
		if (!unlinked_count) {
			ret = -ENOENT;
			break;
		}
		unlinked_count--;
		kvm_pgtable_stage2_free_unlinked(&mm_ops, unlinked[unlinked_count].table,
						 unlinked[unlinked_count].level);
		break;
#else
	case PGTABLE_MAKE_OLD:
		result->value = kvm_pgtable_stage2_mkold(&pgt, op->address);
		break;
	case PGTABLE_IS_YOUNG:
		result->value = kvm_pgtable_stage2_is_young(&pgt, op->address);
		break;
#endif
	default:
		fprintf(stderr, "pgtable library: this version has no operation %u\n", op->kind);
		abort();
	}
#if LINUX_VERSION >= KERNEL_VERSION(6, 2)
	for (size_t i = 0; i < replaced_count; i++)
		kvm_pgtable_stage2_free_unlinked(&mm_ops, replaced[i].table, replaced[i].level);
	replaced_count = 0;
#endif
	result->error = -ret;
}

static void run(const struct pgtable_operation *op, struct pgtable_result *result)
{
	memset(result, 0, sizeof(*result));
	state.event_count = 0;
	if (_setjmp(lost)) {
		state.is_lost = 1;
	} else {
		is_running = 1;
		run_unguarded(op, result);
	}
	is_running = 0;
}

static int run_in_child(void (*body)(void *), void *context)
{
	static const int traps[] = { SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE };
	size_t i;
	int status;
	pid_t child;

	fflush(NULL);
	child = fork();
	if (child == -1)
		return -1;
	if (child == 0) {
		/* The default actions replace Swift's backtrace, which takes longer than most children. */
		for (i = 0; i < sizeof(traps) / sizeof(*traps); i++)
			signal(traps[i], SIG_DFL);
		body(context);
		fflush(NULL);
		_exit(0);
	}
	return waitpid(child, &status, 0) == child ? status : -1;
}

static void limit_time(uint32_t seconds)
{
	setitimer(ITIMER_VIRTUAL, &(struct itimerval){ .it_value.tv_sec = seconds }, NULL);
}

__attribute__((visibility("default"))) struct pgtable_library pgtable_library = {
	.page_shift	= PAGE_SHIFT,
	.version	= LINUX_VERSION,
	.state		= &state,
	.create		= create,
	.run		= run,
	.run_in_child	= run_in_child,
	.limit_time	= limit_time,
};

static void *map_memory(size_t size, int flags)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);

	if (memory == MAP_FAILED) {
		perror("pgtable library: mmap");
		abort();
	}
	return memory;
}

static void __attribute__((constructor)) initialize(void)
{
	arena = map_memory(ARENA_SIZE, MAP_PRIVATE | MAP_NORESERVE);
	state.words = arena;
	pgtable_library.shared = map_memory(4096, MAP_SHARED);
}
