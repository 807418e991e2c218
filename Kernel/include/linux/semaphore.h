/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef LINUX_SEMAPHORE_H
#define LINUX_SEMAPHORE_H

#include <linux/kernel.h>
#include <linux/types.h>

struct semaphore {
	int count;
};

#define __SEMAPHORE_INITIALIZER(name, n) { .count = n }
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
#define DEFINE_SEMAPHORE(name) struct semaphore name = __SEMAPHORE_INITIALIZER(name, 1)
#else
#define DEFINE_SEMAPHORE(name, n) struct semaphore name = __SEMAPHORE_INITIALIZER(name, n)
#endif

void sema_init(struct semaphore *semaphore, int count);
void down(struct semaphore *semaphore);
int __must_check down_interruptible(struct semaphore *semaphore);
int __must_check down_trylock(struct semaphore *semaphore);
int __must_check down_timeout(struct semaphore *semaphore, long ticks);
void up(struct semaphore *semaphore);
#define down_killable(semaphore) down_interruptible(semaphore)

#endif
