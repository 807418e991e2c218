/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef LINUX_RANDOM_H
#define LINUX_RANDOM_H

#include <linux/types.h>

void get_random_bytes(void *to, size_t size);
u32 get_random_u32(void);
u64 get_random_u64(void);
#define get_random_int() get_random_u32()
#define get_random_long() ((unsigned long)get_random_u64())
#define prandom_u32() get_random_u32()

static inline u32 get_random_u32_below(u32 limit)
{
	return limit ? get_random_u32() % limit : 0;
}

#define prandom_u32_max(limit) get_random_u32_below(limit)

#endif
