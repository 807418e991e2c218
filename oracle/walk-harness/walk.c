/*
 * Walks random tables with the kernel's kvm_pgtable_walk() and with the one of Kernel/runtime, and compares: the calls of the visitor with
 * all of their arguments, the results, and the visits that the runtime reports.
 */
#include <linux/kernel.h>
#include <linux/kvm_host.h>
#include <linux/string.h>
#include <asm/kvm_pgtable.h>
#include <asm/stage2_pgtable.h>

/* The C library's */
int printf(const char *format, ...);
void *malloc(size_t size);
void exit(int status);
int memcmp(const void *a, const void *b, size_t size);

#define BASE		0x100000000ULL
#define PAGES		64
#define MOST_EVENTS	(1 << 20)

int kernel_walk(struct kvm_pgtable *pgt, u64 addr, u64 size, struct kvm_pgtable_walker *walker);
int kernel_get_leaf(struct kvm_pgtable *pgt, u64 addr, kvm_pte_t *ptep, hook_level_t *level);

struct event {
	u64 addr, end, start, old, entry, offset;
	int level, flag;
};

/* An entry that the visitor has changed. */
struct change {
	u64 offset;
	u64 before;
	u64 after;
};

struct record {
	struct event *events;
	unsigned int count;
	struct change *changes;
	unsigned int change_count;
	/* The visits that the runtime has reported. */
	u64 visits;
	int result;
};

static u8 *memory;
static struct record kernel, runtime, *current_record;
static bool has_changes;
static u64 seed;

static u64 mix(u64 value)
{
	value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9ULL;
	value = (value ^ value >> 27) * 0x94d049bb133111ebULL;
	return value ^ value >> 31;
}

static u64 state;

static u64 next(void)
{
	return mix(state += 0x9e3779b97f4a7c15ULL);
}

void *hook_phys_to_virt(phys_addr_t phys)
{
	return memory + (phys - BASE) % (PAGES * PAGE_SIZE);
}

phys_addr_t hook_virt_to_phys(const volatile void *address)
{
	return BASE + ((const volatile u8 *)address - memory);
}

void hook_report_visit(const kvm_pte_t *ptep, int level)
{
	u64 place = (const u8 *)ptep - memory;

	runtime.visits = mix(runtime.visits ^ (place << 3 | (u64)level)) + 1;
}

/* The runtime's findings are no part of the comparison. */
void runtime_finding(const char *fmt, ...)
{
	(void)fmt;
}

/* WARN_ON() of the kernel's walk. */
void __warn_printf(const char *file, int line, const char *function, const char *fmt, ...)
{
	(void)fmt;
	printf("a warning of %s() at %s:%d\n", function, file, line);
	exit(1);
}

static u64 random_entry(void)
{
	u64 kind = next() % 8;
	u64 page = BASE + next() % PAGES * PAGE_SIZE;

	switch (kind) {
	case 0 ... 3:
		return page | (next() & 0xff80000000000000ULL) | 3;
	case 4:
	case 5:
		return page | (next() & 0xff80000000000000ULL) | 0x7fd;
	case 6:
		return next() & ~1ULL;
	default:
		return 0;
	}
}

static int visit(struct event event, kvm_pte_t *ptep)
{
	struct record *record = current_record;
	u64 choice = mix(seed ^ record->count * 0x9e3779b97f4a7c15ULL);
	u64 kept = state;

	event.offset = (u8 *)ptep - memory;
	event.entry = *ptep;
	if (record->count == MOST_EVENTS)
		return -ENOSPC;
	record->events[record->count++] = event;
	if (has_changes && choice % 16 == 0) {
		struct change change = { .offset = event.offset, .before = *ptep };

		state = choice;
		change.after = *ptep = random_entry();
		state = kept;
		record->changes[record->change_count++] = change;
	}
	switch (choice >> 16 & 4095) {
	case 0:
		return -EINVAL;
	case 1 ... 40:
		return -EAGAIN;
	case 41:
		return 1;
	default:
		return 0;
	}
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
static int callback(const struct kvm_pgtable_visit_ctx *ctx, enum kvm_pgtable_walk_flags flag)
{
	struct event event = { .addr = ctx->addr, .end = ctx->end, .old = ctx->old, .level = ctx->level, .flag = flag };

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	event.start = ctx->start;
#endif
	return visit(event, ctx->ptep);
}
#else
static int callback(u64 addr, u64 end, u32 level, kvm_pte_t *ptep, enum kvm_pgtable_walk_flags flag, void * const arg)
{
	(void)arg;
	return visit((struct event){ .addr = addr, .end = end, .level = level, .flag = flag }, ptep);
}
#endif

static void fill_tables(void)
{
	memset(memory, 0, PAGES * PAGE_SIZE);
	for (int page = 0; page < PAGES; page++) {
		for (int i = next() % 6; i > 0; i--)
			*(u64 *)(memory + page * PAGE_SIZE + next() % PTRS_PER_PTE * 8) = random_entry();
		/* The first entries are on the way to most addresses. */
		for (int i = 0; i < 4; i++)
			*(u64 *)(memory + page * PAGE_SIZE + i * 8) = random_entry();
	}
}

static u64 random_address(unsigned int ia_bits)
{
	u64 address = 0;

	/* Small indexes in each table are where the entries are. */
	for (int level = 0; level < 4; level++)
		address |= (next() % 3 ? next() % 4 : next() % PTRS_PER_PTE) << ARM64_HW_PGTABLE_LEVEL_SHIFT(level);
	address |= next() % PAGE_SIZE;
	return next() % 64 ? address & (BIT_ULL(ia_bits) - 1) : address;
}

static u64 random_size(void)
{
	switch (next() % 16) {
	case 0:
		return 0;
	case 1:
		return next();
	case 2:
		return BIT_ULL(ARM64_HW_PGTABLE_LEVEL_SHIFT(1)) * (1 + next() % 3);
	case 3 ... 5:
		return BIT_ULL(ARM64_HW_PGTABLE_LEVEL_SHIFT(2)) * (1 + next() % 5) + next() % PAGE_SIZE;
	case 6 ... 9:
		return PAGE_SIZE * (next() % (2 * PTRS_PER_PTE)) + next() % PAGE_SIZE;
	default:
		return next() % (3 * PAGE_SIZE);
	}
}

/* Makes a walk, and takes the changes of its visitor back. */
static void perform(struct record *record, int (*walk)(struct kvm_pgtable *, u64, u64, struct kvm_pgtable_walker *),
		    struct kvm_pgtable *pgt, u64 addr, u64 size, struct kvm_pgtable_walker *walker)
{
	record->count = record->change_count = 0;
	record->visits = 0;
	current_record = record;
	record->result = walk(pgt, addr, size, walker);
	for (unsigned int i = record->change_count; i > 0; i--)
		*(u64 *)(memory + record->changes[i - 1].offset) = record->changes[i - 1].before;
}

int main(int count, char **arguments)
{
	u64 walks = 0, wanted = 0, calls = 0, errors = 0, descents = 0;

	if (count != 2)
		return printf("usage: walk NUMBER\n"), 2;
	for (const char *digit = arguments[1]; *digit >= '0' && *digit <= '9'; digit++)
		wanted = 10 * wanted + (*digit - '0');
	memory = malloc(PAGES * PAGE_SIZE);
	kernel.events = malloc(MOST_EVENTS * sizeof(struct event));
	runtime.events = malloc(MOST_EVENTS * sizeof(struct event));
	kernel.changes = malloc(MOST_EVENTS * sizeof(struct change));
	runtime.changes = malloc(MOST_EVENTS * sizeof(struct change));
	if (!memory || !kernel.events || !runtime.events || !kernel.changes || !runtime.changes)
		return printf("no memory\n"), 2;

	for (; walks < wanted; walks++) {
		u32 ia_bits = 32 + next() % 17;
		int levels = stage2_pgtable_levels(ia_bits);
		struct kvm_pgtable pgt = { .ia_bits = ia_bits, .start_level = 4 - levels };
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0)
		struct kvm_pgtable_mm_ops mm_ops = { .phys_to_virt = hook_phys_to_virt };
#endif
		/* All flags of the versions; from 6.5 on SHARED only takes a lock. */
		enum kvm_pgtable_walk_flags flags = next() & (LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0) ? 0x17 : 7);
		struct kvm_pgtable_walker walker = { .cb = callback, .flags = flags };
		u64 addr = random_address(ia_bits), size = random_size();

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0)
		pgt.mm_ops = &mm_ops;
#endif
		if (walks % 16 == 0)
			fill_tables();
		pgt.pgd = next() % 1024 ? (kvm_pte_t *)memory : NULL;
		has_changes = next() % 2;
		seed = next();

		perform(&kernel, kernel_walk, &pgt, addr, size, &walker);
		perform(&runtime, kvm_pgtable_walk, &pgt, addr, size, &walker);
		if (kernel.result != runtime.result || kernel.count != runtime.count ||
		    memcmp(kernel.events, runtime.events, kernel.count * sizeof(struct event)) ||
		    kernel.change_count != runtime.change_count ||
		    memcmp(kernel.changes, runtime.changes, kernel.change_count * sizeof(struct change))) {
			printf("walk %llu differs: ia_bits %u, address 0x%llx, size 0x%llx, flags %d: kernel %d after %u calls, runtime %d after %u\n",
			       walks, ia_bits, addr, size, flags, kernel.result, kernel.count, runtime.result, runtime.count);
			return 1;
		}
		/* With these flags, and without changes, the calls of the visitor are the visits. */
		if ((flags & 7) == 3 && !has_changes) {
			u64 visits = 0;

			for (unsigned int i = 0; i < kernel.count; i++)
				visits = mix(visits ^ ((u64)kernel.events[i].offset << 3 | (u64)kernel.events[i].level)) + 1;
			if (visits != runtime.visits) {
				printf("walk %llu reports other visits than the kernel makes\n", walks);
				return 1;
			}
		}
		for (unsigned int i = 0; i < kernel.count; i++)
			descents += kernel.events[i].level > (int)pgt.start_level;
		calls += kernel.count;
		errors += kernel.result != 0;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 15, 0)
		kvm_pte_t pte[2] = { 1, 1 };
		hook_level_t level[2] = { 9, 9 };
		int result[2];

		result[0] = kernel_get_leaf(&pgt, addr, &pte[0], &level[0]);
		result[1] = kvm_pgtable_get_leaf(&pgt, addr, &pte[1], &level[1]);
		if (result[0] != result[1] || pte[0] != pte[1] || level[0] != level[1]) {
			printf("leaf %llu differs\n", walks);
			return 1;
		}
#endif
	}
	printf("%llu walks, %llu calls of the visitor (%llu below the start level), %llu errors: no difference\n", walks, calls, descents,
	       errors);
	return 0;
}
