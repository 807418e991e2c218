/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef LINUX_TIME_H
#define LINUX_TIME_H

#include <linux/types.h>

#define MSEC_PER_SEC 1000L
#define USEC_PER_MSEC 1000L
#define NSEC_PER_USEC 1000L
#define NSEC_PER_MSEC 1000000L
#define USEC_PER_SEC 1000000L
#define NSEC_PER_SEC 1000000000L

struct timespec64 {
	time64_t tv_sec;
	long tv_nsec;
};

void ktime_get_real_ts64(struct timespec64 *time);
void ktime_get_ts64(struct timespec64 *time);

#endif
