// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * Memory of the user's code.
 *
 * Each allocation has pages of its own, and ends at a page that is never there: a byte behind its end is a fault at once, in the line that
 * touches it. (Up to 7 bytes for the alignment have a pattern, which is looked at when the memory is freed.) Freed memory is taken away, and
 * its addresses are used again as late as possible: so a use after free is a fault, too.
 */
#include <linux/mm.h>
#include "runtime.h"
#include "system.h"

#define ARENA_PAGES (1u << 17)
/* The most memory that the code can have. A process has at most 65530 mappings, and a page with its guard is two. */
#define MEMORY_LIMIT (96UL << 20)
#define PATTERN_BEFORE 0xbb
#define PATTERN_BEHIND 0xcc
#define PATTERN_NEW 0xa5
#define BEFORE_SIZE 64

enum state {
	NEVER_USED,
	LIVE,
	FREED,
};

struct allocation {
	u8 *memory;
	size_t size;
	unsigned long pc;
	unsigned long free_pc;
	/* With the page behind its end. */
	u32 pages;
	u8 state;
	/* The bytes that count for the limit. */
	size_t charged;
	/* An object of the runtime: it is not reported. */
	bool is_internal;
	/* The function that made it. */
	const char *function;
};

/* The allocation that begins in a page; and the first page of the allocation to which a page belongs. */
static struct allocation allocations[ARENA_PAGES];
#ifndef RUNTIME_SANITIZE
static u32 first_pages[ARENA_PAGES];
static u8 *arena;
static u32 cursor;
#endif
static size_t used;

void runtime_memory_open(void)
{
#ifndef RUNTIME_SANITIZE
	arena = runtime_map((size_t)ARENA_PAGES * PAGE_SIZE, false);
	if (!arena)
		runtime_exit(6);
#endif
}

/* The allocation, live or freed, to whose pages an address belongs. */
static struct allocation *find_near(u64 address)
{
#ifdef RUNTIME_SANITIZE
	for (u32 i = 0; i < ARENA_PAGES && allocations[i].state != NEVER_USED; i++) {
		if (allocations[i].state == LIVE && address >= (u64)allocations[i].memory &&
		    address < (u64)allocations[i].memory + max_t(size_t, allocations[i].size, 1))
			return &allocations[i];
	}
	return NULL;
#else
	u64 page = (address - (u64)arena) / PAGE_SIZE;
	struct allocation *allocation;

	if (address < (u64)arena || page >= ARENA_PAGES)
		return NULL;
	allocation = &allocations[first_pages[page]];
	return allocation->state != NEVER_USED && first_pages[page] + allocation->pages > page ? allocation : NULL;
#endif
}

#ifndef RUNTIME_SANITIZE
/* Finds pages in a row that no live allocation has. They are looked for behind those that were taken last. */
static long find_pages(u32 pages)
{
	u32 at = cursor, begin = cursor;
	u32 looked = 0;

	while (looked < 2 * ARENA_PAGES) {
		struct allocation *allocation;
		u32 step = 1;

		if (at + pages > ARENA_PAGES && begin == at) {
			looked += ARENA_PAGES - at;
			at = begin = 0;
			continue;
		}
		if (at >= ARENA_PAGES) {
			at = begin = 0;
			continue;
		}
		allocation = &allocations[first_pages[at]];
		if (allocation->state == LIVE && at - first_pages[at] < allocation->pages) {
			step = first_pages[at] + allocation->pages - at;
			at += step;
			begin = at;
		} else if (++at - begin == pages) {
			return begin;
		}
		looked += step;
	}
	return -1;
}
#endif

static void *out_of_memory(size_t size)
{
	static bool is_told;

	if (!is_told)
		runtime_finding("out of memory: %zu bytes are wanted, and %zu KiB of %lu KiB are used (an object has at least a page); the allocation "
				"fails", size, used >> 10, MEMORY_LIMIT >> 10);
	is_told = true;
	return NULL;
}

static void *allocate(size_t size, size_t align, const char *function, bool is_zero, bool is_internal)
{
	size_t room = ALIGN(max_t(size_t, size, 1), align);
	struct allocation *allocation;
#ifdef RUNTIME_SANITIZE
	u32 i = 0;

	if (room > MEMORY_LIMIT - used)
		return out_of_memory(size);
	while (i < ARENA_PAGES && allocations[i].state == LIVE)
		i++;
	if (i == ARENA_PAGES)
		return NULL;
	allocation = &allocations[i];
	/* The sanitizer sees each byte behind the end. */
	if (align >= PAGE_SIZE) {
		allocation->memory = malloc(room + align);
		allocation->memory = PTR_ALIGN(allocation->memory, align);
	} else {
		allocation->memory = malloc(size);
	}
	if (is_zero)
		memset(allocation->memory, 0, size);
#else
	u32 pages = DIV_ROUND_UP(room, PAGE_SIZE);
	u8 *begin;
	long at;

	if (pages * PAGE_SIZE > MEMORY_LIMIT - used)
		return out_of_memory(size);
	at = find_pages(pages + 1);
	if (at < 0)
		return NULL;
	begin = arena + at * PAGE_SIZE;
	if (system(SYS_MPROTECT, begin, pages * PAGE_SIZE, PROT_READ | PROT_WRITE) < 0)
		return NULL;
	cursor = at + pages + 1;
	for (u32 i = 0; i < pages + 1; i++)
		first_pages[at + i] = at;
	allocation = &allocations[at];
	allocation->pages = pages + 1;
	allocation->memory = begin + pages * PAGE_SIZE - room;
	memset(allocation->memory + size, PATTERN_BEHIND, room - size);
	memset(allocation->memory - min_t(size_t, allocation->memory - begin, BEFORE_SIZE), PATTERN_BEFORE,
	       min_t(size_t, allocation->memory - begin, BEFORE_SIZE));
	if (!is_zero)
		memset(allocation->memory, PATTERN_NEW, size);
#endif
	allocation->size = size;
	allocation->pc = is_internal ? 0 : runtime_caller();
	allocation->state = LIVE;
	allocation->is_internal = is_internal;
	allocation->function = function;
	allocation->charged = ALIGN(room, PAGE_SIZE);
	used += allocation->charged;
	return allocation->memory;
}

/* Finds writes over the ends of an allocation. */
static void check_ends(struct allocation *allocation, unsigned long pc)
{
#ifndef RUNTIME_SANITIZE
	u8 *end = allocation->memory + allocation->size;
	size_t behind = ALIGN((u64)end, PAGE_SIZE) - (u64)end;
	size_t before = min_t(size_t, offset_in_page(allocation->memory), BEFORE_SIZE);

	if (memchr_inv(end, PATTERN_BEHIND, min_t(size_t, behind, PAGE_SIZE - 1)))
		runtime_finding_at(pc, "out of bounds: the code has written behind the end of the %zu bytes of %s() at " RUNTIME_PLACE,
				   allocation->size, allocation->function, allocation->pc);
	if (memchr_inv(allocation->memory - before, PATTERN_BEFORE, before))
		runtime_finding_at(pc, "out of bounds: the code has written before the begin of the %zu bytes of %s() at " RUNTIME_PLACE,
				   allocation->size, allocation->function, allocation->pc);
#endif
}

static void release(struct allocation *allocation, unsigned long pc)
{
	check_ends(allocation, pc);
	allocation->state = FREED;
	allocation->free_pc = pc;
	used -= allocation->charged;
#ifdef RUNTIME_SANITIZE
	if (strcmp(allocation->function, "vmalloc") && strcmp(allocation->function, "get_free_pages"))
		free(allocation->memory);
#else
	u8 *begin = (u8 *)PTR_ALIGN(allocation->memory - PAGE_SIZE + 1, PAGE_SIZE);

	system(SYS_MADVISE, begin, (allocation->pages - 1) * PAGE_SIZE, MADV_DONTNEED);
	system(SYS_MPROTECT, begin, (allocation->pages - 1) * PAGE_SIZE, PROT_NONE);
#endif
}

static void free_memory(const void *memory, const char *function, const char *expected)
{
	unsigned long pc = runtime_caller();
	struct allocation *allocation = find_near((u64)memory);

#ifdef RUNTIME_SANITIZE
	if (!allocation) {
		/* The sanitizer has the report of a double free. */
		free((void *)memory);
		return;
	}
#endif
	if (!allocation) {
		runtime_finding_at(pc, "%s() of an address that is no result of %s()", function, expected[0] == '*' ? "kvmalloc" : expected);
	} else if (allocation->state == FREED) {
		runtime_finding_at(pc, "double free: %s() of the memory of %s() at " RUNTIME_PLACE ", which was freed at " RUNTIME_PLACE,
				   function, allocation->function, allocation->pc, allocation->free_pc);
	} else if (allocation->memory != memory) {
		runtime_finding_at(pc, "%s() of an address %ld bytes behind the begin of the memory of %s() at " RUNTIME_PLACE, function,
				   (long)((u8 *)memory - allocation->memory), allocation->function, allocation->pc);
	} else {
		if (expected[0] != '*' && strcmp(expected, allocation->function))
			runtime_finding_at(pc, "%s() of memory that was made by %s() at " RUNTIME_PLACE, function, allocation->function,
					   allocation->pc);
		release(allocation, pc);
	}
}

bool runtime_describe_memory(char *text, size_t size, u64 address)
{
	struct allocation *allocation = find_near(address);
	s64 offset;

	if (!allocation)
		return false;
	offset = address - (u64)allocation->memory;
	if (allocation->state == FREED)
		snprintf(text, size, "use after free: byte %lld of the %zu bytes of %s() at " RUNTIME_PLACE ", which were freed at " RUNTIME_PLACE,
			 offset, allocation->size, allocation->function, allocation->pc, allocation->free_pc);
	else if (offset >= (s64)allocation->size)
		snprintf(text, size, "out of bounds: %lld bytes behind the end of the %zu bytes of %s() at " RUNTIME_PLACE,
			 offset - (s64)allocation->size, allocation->size, allocation->function, allocation->pc);
	else
		return false;
	return true;
}

unsigned int runtime_report_memory(void)
{
	unsigned int count = 0;

	for (u32 i = 0; i < ARENA_PAGES; i++) {
		struct allocation *allocation = &allocations[i];

		if (allocation->state == LIVE && !allocation->is_internal) {
			check_ends(allocation, allocation->pc);
			runtime_finding_at(allocation->pc, "memory leak: %zu bytes of %s() are not freed", allocation->size,
					   allocation->function);
			count++;
			/* A list of all of thousands helps nobody. */
			if (count == 32)
				break;
		}
#ifdef RUNTIME_SANITIZE
		if (allocation->state == NEVER_USED)
			break;
#else
		if (allocation->state == LIVE)
			i += allocation->pages - 1;
#endif
	}
	return count;
}

void *runtime_allocate(size_t size)
{
	return allocate(size, 8, "kmalloc", true, true);
}

void runtime_free(void *memory)
{
	struct allocation *allocation = memory ? find_near((u64)memory) : NULL;

	if (allocation && allocation->state == LIVE && allocation->memory == memory)
		release(allocation, 0);
}

void *kmalloc(size_t size, gfp_t flags)
{
	if (gfpflags_allow_blocking(flags))
		runtime_may_sleep();
	if (!size)
		return ZERO_SIZE_PTR;
	if (size > KMALLOC_MAX_SIZE) {
		if (!(flags & __GFP_NOWARN))
			runtime_finding("kmalloc() of %zu bytes fails: it has at most %lu; vmalloc() can have more", size, KMALLOC_MAX_SIZE);
		return NULL;
	}
	return allocate(size, 8, "kmalloc", (flags & __GFP_ZERO) != 0, false);
}

void *kzalloc(size_t size, gfp_t flags)
{
	return kmalloc(size, flags | __GFP_ZERO);
}

void *kmalloc_array(size_t count, size_t size, gfp_t flags)
{
	size_t total;

	return check_mul_overflow(count, size, &total) ? NULL : kmalloc(total, flags);
}

void *kcalloc(size_t count, size_t size, gfp_t flags)
{
	return kmalloc_array(count, size, flags | __GFP_ZERO);
}

size_t ksize(const void *memory)
{
	struct allocation *allocation = ZERO_OR_NULL_PTR(memory) ? NULL : find_near((u64)memory);

	return allocation && allocation->state == LIVE ? allocation->size : 0;
}

void *krealloc(const void *memory, size_t size, gfp_t flags)
{
	void *result;

	if (!size) {
		kfree(memory);
		return ZERO_SIZE_PTR;
	}
	result = kmalloc(size, flags);
	if (result && !ZERO_OR_NULL_PTR(memory)) {
		memcpy(result, memory, min(size, ksize(memory)));
		kfree(memory);
	}
	return result;
}

void *krealloc_array(void *memory, size_t count, size_t size, gfp_t flags)
{
	size_t total;

	return check_mul_overflow(count, size, &total) ? NULL : krealloc(memory, total, flags);
}

void kfree(const void *memory)
{
	if (!ZERO_OR_NULL_PTR(memory))
		free_memory(memory, "kfree", "kmalloc");
}

void kfree_sensitive(const void *memory)
{
	if (!ZERO_OR_NULL_PTR(memory)) {
		memset((void *)memory, 0, ksize(memory));
		free_memory(memory, "kfree_sensitive", "kmalloc");
	}
}

void *kvmalloc(size_t size, gfp_t flags)
{
	return size > KMALLOC_MAX_SIZE ? vmalloc(size) : kmalloc(size, flags);
}

void *kvzalloc(size_t size, gfp_t flags)
{
	return size > KMALLOC_MAX_SIZE ? vzalloc(size) : kzalloc(size, flags);
}

void *kvmalloc_array(size_t count, size_t size, gfp_t flags)
{
	size_t total;

	return check_mul_overflow(count, size, &total) ? NULL : kvmalloc(total, flags);
}

void *kvcalloc(size_t count, size_t size, gfp_t flags)
{
	return kvmalloc_array(count, size, flags | __GFP_ZERO);
}

void kvfree(const void *memory)
{
	if (!ZERO_OR_NULL_PTR(memory))
		free_memory(memory, "kvfree", "*");
}

void *vmalloc(unsigned long size)
{
	runtime_may_sleep();
	return size ? allocate(size, PAGE_SIZE, "vmalloc", false, false) : NULL;
}

void *vzalloc(unsigned long size)
{
	runtime_may_sleep();
	return size ? allocate(size, PAGE_SIZE, "vmalloc", true, false) : NULL;
}

void *vmalloc_user(unsigned long size)
{
	return vzalloc(size);
}

void vfree(const void *memory)
{
	if (memory)
		free_memory(memory, "vfree", "vmalloc");
}

unsigned long __get_free_pages(gfp_t flags, unsigned int order)
{
	if (gfpflags_allow_blocking(flags))
		runtime_may_sleep();
	return order > 10 ? 0 : (unsigned long)allocate(PAGE_SIZE << order, PAGE_SIZE, "get_free_pages", (flags & __GFP_ZERO) != 0, false);
}

void free_pages(unsigned long address, unsigned int order)
{
	struct allocation *allocation = address ? find_near(address) : NULL;

	if (allocation && allocation->state == LIVE && (u64)allocation->memory == address && allocation->size != PAGE_SIZE << order)
		runtime_finding("free_pages() with order %u of %zu bytes", order, allocation->size);
	if (address)
		free_memory((void *)address, "free_pages", "get_free_pages");
}

struct kmem_cache {
	const char *name;
	unsigned int size;
	void (*constructor)(void *object);
	unsigned int live;
	unsigned long pc;
};

struct kmem_cache *kmem_cache_create(const char *name, unsigned int size, unsigned int align __maybe_unused,
				     slab_flags_t flags __maybe_unused, void (*constructor)(void *object))
{
	struct kmem_cache *cache = allocate(sizeof(*cache), 8, "kmem_cache_create", true, false);

	if (cache)
		*cache = (struct kmem_cache){ .name = name, .size = size, .constructor = constructor, .pc = runtime_caller() };
	return cache;
}

void kmem_cache_destroy(struct kmem_cache *cache)
{
	if (!cache)
		return;
	if (cache->live)
		runtime_finding("kmem_cache_destroy() of the cache \"%s\", which still has %u objects", cache->name, cache->live);
	free_memory(cache, "kmem_cache_destroy", "kmem_cache_create");
}

void *kmem_cache_alloc(struct kmem_cache *cache, gfp_t flags)
{
	void *object;

	if (gfpflags_allow_blocking(flags))
		runtime_may_sleep();
	object = allocate(cache->size, 8, "kmem_cache_alloc", (flags & __GFP_ZERO) != 0, false);
	if (object) {
		cache->live++;
		if (cache->constructor)
			cache->constructor(object);
	}
	return object;
}

void *kmem_cache_zalloc(struct kmem_cache *cache, gfp_t flags)
{
	return kmem_cache_alloc(cache, flags | __GFP_ZERO);
}

void kmem_cache_free(struct kmem_cache *cache, void *object)
{
	if (!object)
		return;
	cache->live -= cache->live != 0;
	free_memory(object, "kmem_cache_free", "kmem_cache_alloc");
}

char *kstrdup(const char *text, gfp_t flags)
{
	return text ? kmemdup(text, strlen(text) + 1, flags) : NULL;
}

char *kstrndup(const char *text, size_t size, gfp_t flags)
{
	return text ? kmemdup_nul(text, strnlen(text, size), flags) : NULL;
}

void *kmemdup(const void *from, size_t size, gfp_t flags)
{
	void *to = kmalloc(size, flags);

	if (!ZERO_OR_NULL_PTR(to))
		memcpy(to, from, size);
	return to;
}

char *kmemdup_nul(const char *from, size_t size, gfp_t flags)
{
	char *to = kmalloc(size + 1, flags);

	if (to) {
		memcpy(to, from, size);
		to[size] = 0;
	}
	return to;
}
