// SPDX-License-Identifier: GPL-2.0-only
/*
 * Measures the time of the kernel's arch/arm64/kvm/hyp/pgtable.c of one version in user space
 * (oracle/pgtable --benchmark builds it). The file is under the kernel's license for the reason that stub.h
 * gives.
 *
 * usage: pgtable-bench MIB ROUNDS
 *
 * model-bench performs the same operations, in the same order, at the same addresses, and with
 * the same names. Both print JSON: the nanoseconds of each operation in the median round, and
 * sums. Equal sums on both sides show that both sides have done the same.
 */
#include <inttypes.h>
#include <time.h>

#include "harness.c"

#define IPA		0x40000000UL	/* HideSeek.target */
/* The address is one page off the alignment of a block, so that a range is mapped by pages. */
#define PAGES_PHYS	(IPA + (1UL << 41) + PAGE_SIZE)
#define BLOCKS_PHYS	(IPA + (1UL << 41))
#define BLOCK_SIZE	(PAGE_SIZE * (PAGE_SIZE / 8))
#define PROT		(KVM_PGTABLE_PROT_R | KVM_PGTABLE_PROT_W)
#define MAX_ROUNDS	1000

static u64 now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000UL + time.tv_nsec;
}

/* SplitMix64 */
static u64 next_random(u64 *random)
{
	u64 z = *random += 0x9e3779b97f4a7c15UL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9UL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebUL;
	return z ^ (z >> 31);
}

static void check(int error)
{
	if (error) {
		fprintf(stderr, "pgtable-bench: an operation failed: %s\n", strerror(-error));
		exit(70);
	}
}

static void map(u64 addr, u64 size, u64 phys)
{
	static char memcache; /* only its existence counts */
	void *mc = &memcache;

#if LINUX_VERSION >= KERNEL_VERSION(6, 2)
	check(kvm_pgtable_stage2_map(&pgt, addr, size, phys, PROT, mc, 0));
#else
	check(kvm_pgtable_stage2_map(&pgt, addr, size, phys, PROT, mc));
#endif
}

/* --- The timed operations. Each function returns a sum. */

static u64 map_page(u64 pages)
{
	u64 i;

	for (i = 0; i < pages; i++)
		map(IPA + i * PAGE_SIZE, PAGE_SIZE, PAGES_PHYS + i * PAGE_SIZE);
	return state.pages_in_use;
}

static u64 leaf(u64 pages)
{
	u64 i, random = 1, sum = 0;

	for (i = 0; i < pages; i++) {
		u64 addr = IPA + next_random(&random) % pages * PAGE_SIZE;
#if LINUX_VERSION >= KERNEL_VERSION(5, 15)
		kvm_pte_t pte;
#if LINUX_VERSION >= KERNEL_VERSION(6, 9)
		s8 level;
#else
		u32 level;
#endif

		check(kvm_pgtable_get_leaf(&pgt, addr, &pte, &level));
		sum += pte + level;
#else
		struct pgtable_result result;

		check(get_leaf(addr, &result));
		sum += result.value + result.level;
#endif
	}
	return sum;
}

static u64 hide_and_seek(u64 pages)
{
	u64 i, sum = 0;

	for (i = 0; i < pages; i++) {
		struct hide_seek hide = { .target = IPA, .hide = true, .byte = i };
		struct hide_seek seek = { .target = IPA };

		check(hide_seek(&hide));
		check(hide_seek(&seek));
		sum += seek.byte;
	}
	return sum;
}

static u64 write_protect(u64 pages)
{
	check(kvm_pgtable_stage2_wrprotect(&pgt, IPA, pages * PAGE_SIZE));
	return state.pages_in_use;
}

static u64 unmap(u64 pages)
{
	check(kvm_pgtable_stage2_unmap(&pgt, IPA, pages * PAGE_SIZE));
	return state.pages_in_use;
}

static u64 map_range(u64 pages)
{
	map(IPA, pages * PAGE_SIZE, PAGES_PHYS);
	return state.pages_in_use;
}

static u64 map_block(u64 blocks)
{
	u64 i;

	for (i = 0; i < blocks; i++)
		map(IPA + i * BLOCK_SIZE, BLOCK_SIZE, BLOCKS_PHYS + i * BLOCK_SIZE);
	return state.pages_in_use;
}

static u64 split_block(u64 blocks)
{
	u64 i;

	for (i = 0; i < blocks; i++)
		map(IPA + i * BLOCK_SIZE, PAGE_SIZE, BLOCKS_PHYS + i * BLOCK_SIZE);
	return state.pages_in_use;
}

/* The order matters: an operation needs the table that the operations before it have left. */
static struct row {
	const char *name;
	u64 (*run)(u64 count);
	u64 unit; /* the bytes for each operation */
	u64 sum;
	double samples[MAX_ROUNDS];
} rows[] = {
	{ "map_page", map_page, PAGE_SIZE },
	{ "leaf", leaf, PAGE_SIZE },
	{ "hide_seek", hide_and_seek, PAGE_SIZE },
	{ "write_protect", write_protect, PAGE_SIZE },
	{ "unmap", unmap, PAGE_SIZE },
	{ "map_range", map_range, PAGE_SIZE },
	{ "unmap_again", unmap, PAGE_SIZE },
	{ "map_block", map_block, BLOCK_SIZE },
	{ "split", split_block, BLOCK_SIZE },
	{ "unmap_split", unmap, PAGE_SIZE },
};

#define ROWS (sizeof(rows) / sizeof(*rows))

static void run_round(u64 size, int round)
{
	size_t row;

	for (row = 0; row < ROWS; row++) {
		u64 count = size / rows[row].unit, start = now();

		rows[row].sum = rows[row].run(count);
		rows[row].samples[round] = (double)(now() - start) / count;
	}
}

static int compare(const void *left, const void *right)
{
	double a = *(const double *)left, b = *(const double *)right;

	return (a > b) - (a < b);
}

int main(int count, char **arguments)
{
	int round_count = count == 3 ? atoi(arguments[2]) : 0, round;
	size_t row;
	u64 size = count == 3 ? strtoul(arguments[1], NULL, 10) << 20 : 0;

	if (!size || size % BLOCK_SIZE || round_count < 1 || round_count > MAX_ROUNDS) {
		fputs("usage: pgtable-bench MIB ROUNDS\n", stderr);
		return 64;
	}
	state.is_logging = 0;
	create(&(struct pgtable_machine){ .ipa_bits = 40 });
	/* The first round is not counted: the first use of memory takes extra time. */
	run_round(size, 0);
	for (round = 0; round < round_count; round++)
		run_round(size, round);
	if (state.misuses || state.warnings) {
		fputs("pgtable-bench: the kernel's code has warned\n", stderr);
		return 70;
	}
	for (row = 0; row < ROWS; row++) {
		qsort(rows[row].samples, round_count, sizeof(double), compare);
		printf("%s\"%s\": {\"ns\": %.3f, \"sum\": \"%" PRIu64 "\"}", row ? ", " : "{", rows[row].name,
		       rows[row].samples[round_count / 2], rows[row].sum);
	}
	puts("}");
	return 0;
}
