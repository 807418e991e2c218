/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Bits in words, and in arrays of words. */
#ifndef LINUX_BITOPS_H
#define LINUX_BITOPS_H

#include <linux/bits.h>
#include <linux/types.h>

static inline void set_bit(long n, volatile unsigned long *words)
{
	__atomic_fetch_or(&words[BIT_WORD(n)], BIT_MASK(n), __ATOMIC_RELAXED);
}

static inline void clear_bit(long n, volatile unsigned long *words)
{
	__atomic_fetch_and(&words[BIT_WORD(n)], ~BIT_MASK(n), __ATOMIC_RELAXED);
}

static inline void change_bit(long n, volatile unsigned long *words)
{
	__atomic_fetch_xor(&words[BIT_WORD(n)], BIT_MASK(n), __ATOMIC_RELAXED);
}

static inline bool test_bit(long n, const volatile unsigned long *words)
{
	return (words[BIT_WORD(n)] >> (n % BITS_PER_LONG)) & 1;
}

static inline bool test_and_set_bit(long n, volatile unsigned long *words)
{
	return (__atomic_fetch_or(&words[BIT_WORD(n)], BIT_MASK(n), __ATOMIC_SEQ_CST) & BIT_MASK(n)) != 0;
}

static inline bool test_and_clear_bit(long n, volatile unsigned long *words)
{
	return (__atomic_fetch_and(&words[BIT_WORD(n)], ~BIT_MASK(n), __ATOMIC_SEQ_CST) & BIT_MASK(n)) != 0;
}

static inline bool test_and_change_bit(long n, volatile unsigned long *words)
{
	return (__atomic_fetch_xor(&words[BIT_WORD(n)], BIT_MASK(n), __ATOMIC_SEQ_CST) & BIT_MASK(n)) != 0;
}

#define __set_bit(n, words) set_bit(n, words)
#define __clear_bit(n, words) clear_bit(n, words)
#define __change_bit(n, words) change_bit(n, words)
#define __test_and_set_bit(n, words) test_and_set_bit(n, words)
#define __test_and_clear_bit(n, words) test_and_clear_bit(n, words)
#define test_and_set_bit_lock(n, words) test_and_set_bit(n, words)
#define clear_bit_unlock(n, words) clear_bit(n, words)
#define smp_mb__before_atomic() barrier()
#define smp_mb__after_atomic() barrier()

static inline unsigned long __ffs(unsigned long word)
{
	return __builtin_ctzl(word);
}

static inline unsigned long ffz(unsigned long word)
{
	return __builtin_ctzl(~word);
}

static inline unsigned long __fls(unsigned long word)
{
	return BITS_PER_LONG - 1 - __builtin_clzl(word);
}

static inline int ffs(int word)
{
	return __builtin_ffs(word);
}

static inline int fls(unsigned int word)
{
	return word ? 32 - __builtin_clz(word) : 0;
}

static inline int fls64(u64 word)
{
	return word ? 64 - __builtin_clzll(word) : 0;
}

static inline unsigned int hweight32(u32 word)
{
	unsigned int count = 0;

	for (; word; word &= word - 1)
		count++;
	return count;
}

static inline unsigned int hweight64(u64 word)
{
	return hweight32(word) + hweight32(word >> 32);
}

#define hweight8(word) hweight32((u8)(word))
#define hweight16(word) hweight32((u16)(word))
#define hweight_long(word) hweight64(word)

static inline u64 rol64(u64 word, unsigned int shift)
{
	return (word << (shift & 63)) | (word >> ((-shift) & 63));
}

static inline u64 ror64(u64 word, unsigned int shift)
{
	return (word >> (shift & 63)) | (word << ((-shift) & 63));
}

static inline u32 rol32(u32 word, unsigned int shift)
{
	return (word << (shift & 31)) | (word >> ((-shift) & 31));
}

static inline u32 ror32(u32 word, unsigned int shift)
{
	return (word >> (shift & 31)) | (word << ((-shift) & 31));
}

static inline u8 rol8(u8 word, unsigned int shift)
{
	return (u8)((word << (shift & 7)) | (word >> ((-shift) & 7)));
}

static inline u8 ror8(u8 word, unsigned int shift)
{
	return (u8)((word >> (shift & 7)) | (word << ((-shift) & 7)));
}

static inline s64 sign_extend64(u64 value, int index)
{
	return (s64)(value << (63 - index)) >> (63 - index);
}

static inline s32 sign_extend32(u32 value, int index)
{
	return (s32)(value << (31 - index)) >> (31 - index);
}

static inline unsigned long find_next_bit(const unsigned long *words, unsigned long size, unsigned long from)
{
	while (from < size && !test_bit(from, words))
		from++;
	return from < size ? from : size;
}

static inline unsigned long find_next_zero_bit(const unsigned long *words, unsigned long size, unsigned long from)
{
	while (from < size && test_bit(from, words))
		from++;
	return from < size ? from : size;
}

#define find_first_bit(words, size) find_next_bit(words, size, 0)
#define find_first_zero_bit(words, size) find_next_zero_bit(words, size, 0)
#define for_each_set_bit(bit, words, size) \
	for ((bit) = find_first_bit(words, size); (bit) < (size); (bit) = find_next_bit(words, size, (bit) + 1))
#define for_each_clear_bit(bit, words, size) \
	for ((bit) = find_first_zero_bit(words, size); (bit) < (size); (bit) = find_next_zero_bit(words, size, (bit) + 1))

static inline bool is_power_of_2(unsigned long n)
{
	return n && !(n & (n - 1));
}

#define ilog2(n) (fls64(n) - 1)

static inline unsigned long roundup_pow_of_two(unsigned long n)
{
	return n <= 1 ? 1 : 1UL << fls64(n - 1);
}

static inline unsigned long rounddown_pow_of_two(unsigned long n)
{
	return n ? 1UL << (fls64(n) - 1) : 0;
}

static inline int get_order(unsigned long size)
{
	return size <= 4096 ? 0 : fls64((size - 1) >> 12);
}

#endif
