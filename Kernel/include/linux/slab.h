/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Memory for objects. */
#ifndef LINUX_SLAB_H
#define LINUX_SLAB_H

#include <linux/gfp.h>
#include <linux/overflow.h>
#include <linux/string.h>
#include <linux/types.h>

#define ZERO_SIZE_PTR ((void *)16)
#define ZERO_OR_NULL_PTR(pointer) ((unsigned long)(pointer) <= (unsigned long)ZERO_SIZE_PTR)
#define ARCH_KMALLOC_MINALIGN 8
#define KMALLOC_MAX_SIZE (4UL << 20)

void *kmalloc(size_t size, gfp_t flags) __malloc;
void *kzalloc(size_t size, gfp_t flags) __malloc;
void *kmalloc_array(size_t count, size_t size, gfp_t flags) __malloc;
void *kcalloc(size_t count, size_t size, gfp_t flags) __malloc;
void * __must_check krealloc(const void *memory, size_t size, gfp_t flags);
void * __must_check krealloc_array(void *memory, size_t count, size_t size, gfp_t flags);
void kfree(const void *memory);
void kfree_sensitive(const void *memory);
size_t ksize(const void *memory);
void *kvmalloc(size_t size, gfp_t flags) __malloc;
void *kvzalloc(size_t size, gfp_t flags) __malloc;
void *kvmalloc_array(size_t count, size_t size, gfp_t flags) __malloc;
void *kvcalloc(size_t count, size_t size, gfp_t flags) __malloc;
void kvfree(const void *memory);
#define kmalloc_node(size, flags, node) kmalloc(size, flags)
#define kzalloc_node(size, flags, node) kzalloc(size, flags)

/* Caches of objects of one size. */
struct kmem_cache;
#define SLAB_HWCACHE_ALIGN 0x2000u
#define SLAB_PANIC 0x40000u
#define SLAB_ACCOUNT 0x4000000u
struct kmem_cache *kmem_cache_create(const char *name, unsigned int size, unsigned int align, slab_flags_t flags,
				     void (*constructor)(void *object));
void kmem_cache_destroy(struct kmem_cache *cache);
void *kmem_cache_alloc(struct kmem_cache *cache, gfp_t flags) __malloc;
void *kmem_cache_zalloc(struct kmem_cache *cache, gfp_t flags) __malloc;
void kmem_cache_free(struct kmem_cache *cache, void *object);
#define KMEM_CACHE(name, flags) kmem_cache_create(#name, sizeof(struct name), __alignof__(struct name), flags, NULL)

#endif
