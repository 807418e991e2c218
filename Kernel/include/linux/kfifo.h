/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Queues in a ring. The size is a power of two. */
#ifndef LINUX_KFIFO_H
#define LINUX_KFIFO_H

#include <linux/bitops.h>
#include <linux/kernel.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

struct __kfifo {
	unsigned int in;
	unsigned int out;
	unsigned int mask;
	unsigned int esize;
	void *data;
};

/* "type" has the type of an element, and no memory. */
#define STRUCT_KFIFO_PTR(type_) struct { struct __kfifo kfifo; type_ type[0]; }
#define DECLARE_KFIFO_PTR(fifo, type) STRUCT_KFIFO_PTR(type) fifo
#define STRUCT_KFIFO(type_, size) struct { struct __kfifo kfifo; type_ type[0]; type_ buffer[size]; }
#define DECLARE_KFIFO(fifo, type, size) STRUCT_KFIFO(type, size) fifo
#define DEFINE_KFIFO(fifo, type, size) \
	DECLARE_KFIFO(fifo, type, size) = { .kfifo = { .mask = (size) - 1, .esize = sizeof(type), .data = (fifo).buffer } }
#define INIT_KFIFO(fifo) do { \
	(fifo).kfifo = (struct __kfifo){ .mask = ARRAY_SIZE((fifo).buffer) - 1, .esize = sizeof((fifo).type[0]), .data = (fifo).buffer }; \
} while (0)

struct kfifo {
	struct __kfifo kfifo;
	unsigned char type[0];
};

int __kfifo_alloc(struct __kfifo *fifo, unsigned int size, size_t esize, gfp_t flags);
int __kfifo_init(struct __kfifo *fifo, void *buffer, unsigned int size, size_t esize);
void __kfifo_free(struct __kfifo *fifo);
unsigned int __kfifo_in(struct __kfifo *fifo, const void *from, unsigned int count);
unsigned int __kfifo_out(struct __kfifo *fifo, void *to, unsigned int count, bool is_peek);
int __kfifo_from_user(struct __kfifo *fifo, const void __user *from, unsigned long size, unsigned int *copied);
int __kfifo_to_user(struct __kfifo *fifo, void __user *to, unsigned long size, unsigned int *copied);

#define kfifo_alloc(fifo, size, flags) __kfifo_alloc(&(fifo)->kfifo, size, sizeof((fifo)->type[0]), flags)
#define kfifo_init(fifo, buffer, size) __kfifo_init(&(fifo)->kfifo, buffer, size, sizeof((fifo)->type[0]))
#define kfifo_free(fifo) __kfifo_free(&(fifo)->kfifo)
#define kfifo_size(fifo) ((fifo)->kfifo.mask + 1)
#define kfifo_len(fifo) ((fifo)->kfifo.in - (fifo)->kfifo.out)
#define kfifo_is_empty(fifo) ((fifo)->kfifo.in == (fifo)->kfifo.out)
#define kfifo_is_full(fifo) (kfifo_len(fifo) > (fifo)->kfifo.mask)
#define kfifo_avail(fifo) (kfifo_size(fifo) - kfifo_len(fifo))
#define kfifo_reset(fifo) ((void)((fifo)->kfifo.in = (fifo)->kfifo.out = 0))
#define kfifo_initialized(fifo) ((fifo)->kfifo.data != NULL)
#define kfifo_put(fifo, value) ({ __typeof__((fifo)->type[0]) __value = (value); __kfifo_in(&(fifo)->kfifo, &__value, 1); })
#define kfifo_get(fifo, pointer) ({ __typeof__((fifo)->type[0]) *__to = (pointer); __kfifo_out(&(fifo)->kfifo, __to, 1, false); })
#define kfifo_peek(fifo, pointer) ({ __typeof__((fifo)->type[0]) *__to = (pointer); __kfifo_out(&(fifo)->kfifo, __to, 1, true); })
#define kfifo_in(fifo, from, count) __kfifo_in(&(fifo)->kfifo, from, count)
#define kfifo_out(fifo, to, count) __kfifo_out(&(fifo)->kfifo, to, count, false)
#define kfifo_out_peek(fifo, to, count) __kfifo_out(&(fifo)->kfifo, to, count, true)
#define kfifo_from_user(fifo, from, size, copied) __kfifo_from_user(&(fifo)->kfifo, from, size, copied)
#define kfifo_to_user(fifo, to, size, copied) __kfifo_to_user(&(fifo)->kfifo, to, size, copied)

#endif
