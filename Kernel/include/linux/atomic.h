/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Counters that several calls change. */
#ifndef LINUX_ATOMIC_H
#define LINUX_ATOMIC_H

#include <linux/types.h>
#include <asm/barrier.h>

#define ATOMIC_INIT(value) { (value) }
#define ATOMIC64_INIT(value) { (value) }
#define ATOMIC_LONG_INIT(value) { (value) }

#define __ATOMIC_FUNCTIONS(prefix, atomic, integer) \
static inline integer prefix##_read(const atomic *v) { return __atomic_load_n(&v->counter, __ATOMIC_RELAXED); } \
static inline integer prefix##_read_acquire(const atomic *v) { return __atomic_load_n(&v->counter, __ATOMIC_ACQUIRE); } \
static inline void prefix##_set(atomic *v, integer i) { __atomic_store_n(&v->counter, i, __ATOMIC_RELAXED); } \
static inline void prefix##_set_release(atomic *v, integer i) { __atomic_store_n(&v->counter, i, __ATOMIC_RELEASE); } \
static inline void prefix##_add(integer i, atomic *v) { __atomic_fetch_add(&v->counter, i, __ATOMIC_RELAXED); } \
static inline void prefix##_sub(integer i, atomic *v) { __atomic_fetch_sub(&v->counter, i, __ATOMIC_RELAXED); } \
static inline void prefix##_and(integer i, atomic *v) { __atomic_fetch_and(&v->counter, i, __ATOMIC_RELAXED); } \
static inline void prefix##_or(integer i, atomic *v) { __atomic_fetch_or(&v->counter, i, __ATOMIC_RELAXED); } \
static inline void prefix##_xor(integer i, atomic *v) { __atomic_fetch_xor(&v->counter, i, __ATOMIC_RELAXED); } \
static inline void prefix##_inc(atomic *v) { prefix##_add(1, v); } \
static inline void prefix##_dec(atomic *v) { prefix##_sub(1, v); } \
static inline integer prefix##_add_return(integer i, atomic *v) { return __atomic_add_fetch(&v->counter, i, __ATOMIC_SEQ_CST); } \
static inline integer prefix##_sub_return(integer i, atomic *v) { return __atomic_sub_fetch(&v->counter, i, __ATOMIC_SEQ_CST); } \
static inline integer prefix##_inc_return(atomic *v) { return prefix##_add_return(1, v); } \
static inline integer prefix##_dec_return(atomic *v) { return prefix##_sub_return(1, v); } \
static inline integer prefix##_fetch_add(integer i, atomic *v) { return __atomic_fetch_add(&v->counter, i, __ATOMIC_SEQ_CST); } \
static inline integer prefix##_fetch_sub(integer i, atomic *v) { return __atomic_fetch_sub(&v->counter, i, __ATOMIC_SEQ_CST); } \
static inline integer prefix##_fetch_inc(atomic *v) { return prefix##_fetch_add(1, v); } \
static inline integer prefix##_fetch_dec(atomic *v) { return prefix##_fetch_sub(1, v); } \
static inline integer prefix##_fetch_and(integer i, atomic *v) { return __atomic_fetch_and(&v->counter, i, __ATOMIC_SEQ_CST); } \
static inline integer prefix##_fetch_or(integer i, atomic *v) { return __atomic_fetch_or(&v->counter, i, __ATOMIC_SEQ_CST); } \
static inline bool prefix##_sub_and_test(integer i, atomic *v) { return prefix##_sub_return(i, v) == 0; } \
static inline bool prefix##_inc_and_test(atomic *v) { return prefix##_inc_return(v) == 0; } \
static inline bool prefix##_dec_and_test(atomic *v) { return prefix##_dec_return(v) == 0; } \
static inline bool prefix##_add_negative(integer i, atomic *v) { return prefix##_add_return(i, v) < 0; } \
static inline integer prefix##_xchg(atomic *v, integer i) { return __atomic_exchange_n(&v->counter, i, __ATOMIC_SEQ_CST); } \
static inline integer prefix##_cmpxchg(atomic *v, integer old, integer i) \
{ \
	__atomic_compare_exchange_n(&v->counter, &old, i, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
	return old; \
} \
static inline bool prefix##_try_cmpxchg(atomic *v, integer *old, integer i) \
{ \
	return __atomic_compare_exchange_n(&v->counter, old, i, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
} \
static inline integer prefix##_fetch_add_unless(atomic *v, integer i, integer unless) \
{ \
	integer old = prefix##_read(v); \
	while (old != unless && !prefix##_try_cmpxchg(v, &old, old + i)) \
		; \
	return old; \
} \
static inline bool prefix##_add_unless(atomic *v, integer i, integer unless) \
{ \
	return prefix##_fetch_add_unless(v, i, unless) != unless; \
} \
static inline bool prefix##_inc_not_zero(atomic *v) { return prefix##_add_unless(v, 1, 0); } \
static inline integer prefix##_dec_if_positive(atomic *v) \
{ \
	integer old = prefix##_read(v); \
	while (old > 0 && !prefix##_try_cmpxchg(v, &old, old - 1)) \
		; \
	return old - 1; \
}

__ATOMIC_FUNCTIONS(atomic, atomic_t, int)
__ATOMIC_FUNCTIONS(atomic64, atomic64_t, s64)

#define atomic_long_read(v) ((long)atomic64_read(v))
#define atomic_long_set(v, i) atomic64_set(v, i)
#define atomic_long_add(i, v) atomic64_add(i, v)
#define atomic_long_sub(i, v) atomic64_sub(i, v)
#define atomic_long_inc(v) atomic64_inc(v)
#define atomic_long_dec(v) atomic64_dec(v)
#define atomic_long_inc_return(v) ((long)atomic64_inc_return(v))
#define atomic_long_dec_return(v) ((long)atomic64_dec_return(v))
#define atomic_long_add_return(i, v) ((long)atomic64_add_return(i, v))
#define atomic_long_cmpxchg(v, old, i) ((long)atomic64_cmpxchg(v, old, i))
#define atomic_long_dec_and_test(v) atomic64_dec_and_test(v)

#define xchg(pointer, value) __atomic_exchange_n(pointer, value, __ATOMIC_SEQ_CST)
#define cmpxchg(pointer, old, value) ({ \
	__typeof__(*(pointer)) __cmpxchg_old = (old); \
	__atomic_compare_exchange_n(pointer, &__cmpxchg_old, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
	__cmpxchg_old; })
#define xchg_relaxed(pointer, value) xchg(pointer, value)
#define cmpxchg_relaxed(pointer, old, value) cmpxchg(pointer, old, value)
#define cmpxchg64(pointer, old, value) cmpxchg(pointer, old, value)
#define try_cmpxchg(pointer, old, value) \
	__atomic_compare_exchange_n(pointer, old, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)

#endif
