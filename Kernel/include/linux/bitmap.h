/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Arrays of bits. */
#ifndef LINUX_BITMAP_H
#define LINUX_BITMAP_H

#include <linux/bitops.h>
#include <linux/string.h>

static inline void bitmap_zero(unsigned long *words, unsigned int size)
{
	memset(words, 0, BITS_TO_LONGS(size) * sizeof(long));
}

static inline void bitmap_set(unsigned long *words, unsigned int from, unsigned int count)
{
	for (; count; count--)
		set_bit(from++, words);
}

static inline void bitmap_clear(unsigned long *words, unsigned int from, unsigned int count)
{
	for (; count; count--)
		clear_bit(from++, words);
}

static inline bool bitmap_empty(const unsigned long *words, unsigned int size)
{
	return find_first_bit(words, size) == size;
}

static inline bool bitmap_full(const unsigned long *words, unsigned int size)
{
	return find_first_zero_bit(words, size) == size;
}

static inline unsigned int bitmap_weight(const unsigned long *words, unsigned int size)
{
	unsigned int bit, count = 0;

	for_each_set_bit(bit, words, size)
		count++;
	return count;
}

#endif
