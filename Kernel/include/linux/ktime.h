/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef LINUX_KTIME_H
#define LINUX_KTIME_H

#include <linux/jiffies.h>
#include <linux/time.h>
#include <linux/types.h>

typedef s64 ktime_t;

ktime_t ktime_get(void);
ktime_t ktime_get_real(void);
#define ktime_get_boottime() ktime_get()
#define ktime_get_raw() ktime_get()
#define ktime_get_ns() ((u64)ktime_get())
#define ktime_get_real_ns() ((u64)ktime_get_real())
#define ktime_get_boottime_ns() ((u64)ktime_get())
#define ktime_get_raw_ns() ((u64)ktime_get())
#define ktime_get_seconds() (ktime_get() / NSEC_PER_SEC)
#define ktime_get_real_seconds() (ktime_get_real() / NSEC_PER_SEC)
#define sched_clock() ktime_get_ns()
#define local_clock() ktime_get_ns()
#define ktime_set(seconds, ns) ((ktime_t)(seconds) * NSEC_PER_SEC + (ns))
#define ktime_sub(a, b) ((a) - (b))
#define ktime_add(a, b) ((a) + (b))
#define ktime_add_ns(a, ns) ((a) + (ns))
#define ktime_add_us(a, us) ((a) + (us) * NSEC_PER_USEC)
#define ktime_add_ms(a, ms) ((a) + (ms) * NSEC_PER_MSEC)
#define ktime_to_ns(a) (a)
#define ktime_to_us(a) ((a) / NSEC_PER_USEC)
#define ktime_to_ms(a) ((a) / NSEC_PER_MSEC)
#define ktime_us_delta(a, b) ktime_to_us((a) - (b))
#define ktime_ms_delta(a, b) ktime_to_ms((a) - (b))
#define ns_to_ktime(ns) ((ktime_t)(ns))
#define ms_to_ktime(ms) ((ktime_t)(ms) * NSEC_PER_MSEC)
#define ktime_compare(a, b) ((a) < (b) ? -1 : (a) > (b))
#define ktime_after(a, b) ((a) > (b))
#define ktime_before(a, b) ((a) < (b))

#endif
