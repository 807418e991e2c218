/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef LINUX_MATH_H
#define LINUX_MATH_H

#include <linux/types.h>

#define __round_mask(x, y) ((__typeof__(x))((y) - 1))
#define round_up(x, y) ((((x) - 1) | __round_mask(x, y)) + 1)
#define round_down(x, y) ((x) & ~__round_mask(x, y))
#define DIV_ROUND_UP(n, d) (((n) + (d) - 1) / (d))
#define DIV_ROUND_UP_ULL(n, d) DIV_ROUND_UP((u64)(n), (u64)(d))
#define DIV_ROUND_DOWN_ULL(n, d) ((u64)(n) / (d))
#define DIV_ROUND_CLOSEST(x, d) ({ __typeof__(x) __dx = (x); __typeof__(d) __dd = (d); \
	(((__typeof__(x))-1) > 0 || ((__typeof__(d))-1) > 0 || ((__dx > 0) == (__dd > 0))) ? \
	((__dx + (__dd / 2)) / __dd) : ((__dx - (__dd / 2)) / __dd); })
#define roundup(x, y) ({ __typeof__(y) __ry = (y); ((((x) + (__ry - 1)) / __ry) * __ry); })
#define rounddown(x, y) ({ __typeof__(x) __rx = (x); __rx - (__rx % (y)); })
#define abs(x) ({ __typeof__(x) __ax = (x); __ax < 0 ? -__ax : __ax; })
#define do_div(n, base) ({ u32 __base = (base); u32 __rest = (u64)(n) % __base; (n) = (u64)(n) / __base; __rest; })

static inline u64 div_u64(u64 dividend, u32 divisor)
{
	return dividend / divisor;
}

static inline u64 div64_u64(u64 dividend, u64 divisor)
{
	return dividend / divisor;
}

static inline s64 div_s64(s64 dividend, s32 divisor)
{
	return dividend / divisor;
}

static inline u64 div_u64_rem(u64 dividend, u32 divisor, u32 *remainder)
{
	*remainder = dividend % divisor;
	return dividend / divisor;
}

#endif
