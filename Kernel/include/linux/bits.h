/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Masks of bits. */
#ifndef LINUX_BITS_H
#define LINUX_BITS_H

#include <linux/build_bug.h>
#include <linux/const.h>
#include <linux/types.h>

#define BIT(n) (1UL << (n))
#define BIT_ULL(n) (1ULL << (n))
#define BIT_MASK(n) (1UL << ((n) % BITS_PER_LONG))
#define BIT_WORD(n) ((n) / BITS_PER_LONG)
#define GENMASK_INPUT_CHECK(high, low) \
	(BUILD_BUG_ON_ZERO(__builtin_choose_expr(__builtin_constant_p((low) > (high)), (low) > (high), 0)))
#define GENMASK(high, low) \
	(GENMASK_INPUT_CHECK(high, low) + ((~0UL << (low)) & (~0UL >> (BITS_PER_LONG - 1 - (high)))))
#define GENMASK_ULL(high, low) \
	(GENMASK_INPUT_CHECK(high, low) + ((~0ULL << (low)) & (~0ULL >> (BITS_PER_LONG_LONG - 1 - (high)))))

#endif
