/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Delays: they move the clock of the process on. */
#ifndef LINUX_DELAY_H
#define LINUX_DELAY_H

#include <linux/jiffies.h>

void __delay_ns(u64 ns);
void __sleep_ns(u64 ns);
unsigned long msleep_interruptible(unsigned int ms);
#define ndelay(ns) __delay_ns(ns)
#define udelay(us) __delay_ns((us) * 1000ULL)
#define mdelay(ms) __delay_ns((ms) * 1000000ULL)
#define msleep(ms) __sleep_ns((ms) * 1000000ULL)
#define ssleep(seconds) __sleep_ns((seconds) * 1000000000ULL)
#define usleep_range(least, most) __sleep_ns((least) * 1000ULL)
#define fsleep(us) __sleep_ns((us) * 1000ULL)

#endif
