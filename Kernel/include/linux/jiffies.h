/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Time. A call that sleeps moves the clock of its process on, and does not wait. */
#ifndef LINUX_JIFFIES_H
#define LINUX_JIFFIES_H

#include <linux/limits.h>
#include <linux/math.h>
#include <linux/time.h>
#include <linux/types.h>

#define HZ 250
u64 get_jiffies_64(void);
#define jiffies ((unsigned long)get_jiffies_64())
#define jiffies_64 get_jiffies_64()
#define INITIAL_JIFFIES ((unsigned long)(unsigned int)(-300 * HZ))
#define MAX_JIFFY_OFFSET ((LONG_MAX >> 1) - 1)
#define time_after(a, b) ((long)((b) - (a)) < 0)
#define time_before(a, b) time_after(b, a)
#define time_after_eq(a, b) ((long)((a) - (b)) >= 0)
#define time_before_eq(a, b) time_after_eq(b, a)
#define time_is_before_jiffies(a) time_after(jiffies, a)
#define time_is_after_jiffies(a) time_before(jiffies, a)

static inline unsigned long msecs_to_jiffies(const unsigned int ms)
{
	return (int)ms < 0 ? MAX_JIFFY_OFFSET : DIV_ROUND_UP((unsigned long)ms * HZ, 1000);
}

static inline unsigned long usecs_to_jiffies(const unsigned int us)
{
	return DIV_ROUND_UP((unsigned long)us * HZ, 1000000);
}

static inline unsigned long secs_to_jiffies(const unsigned int seconds)
{
	return (unsigned long)seconds * HZ;
}

static inline unsigned int jiffies_to_msecs(const unsigned long j)
{
	return j * (1000 / HZ);
}

static inline unsigned int jiffies_to_usecs(const unsigned long j)
{
	return j * (1000000 / HZ);
}

#endif
