/* SPDX-License-Identifier: GPL-2.0 */
#ifndef LINUX_SEMAPHORE_H
#define LINUX_SEMAPHORE_H

#include <linux/kernel.h>
#include <linux/types.h>

struct semaphore {
	int count;
};

#define __SEMAPHORE_INITIALIZER(name, n) { .count = n }
#define DEFINE_SEMAPHORE_1(name) struct semaphore name = __SEMAPHORE_INITIALIZER(name, 1)
#define DEFINE_SEMAPHORE_2(name, n) struct semaphore name = __SEMAPHORE_INITIALIZER(name, n)
#define __SEMAPHORE_PICK(a, b, macro, ...) macro
/* One argument before Linux 6.4, two since. */
#define DEFINE_SEMAPHORE(...) __SEMAPHORE_PICK(__VA_ARGS__, DEFINE_SEMAPHORE_2, DEFINE_SEMAPHORE_1, )(__VA_ARGS__)

void sema_init(struct semaphore *semaphore, int count);
void down(struct semaphore *semaphore);
int __must_check down_interruptible(struct semaphore *semaphore);
int __must_check down_trylock(struct semaphore *semaphore);
int __must_check down_timeout(struct semaphore *semaphore, long ticks);
void up(struct semaphore *semaphore);
#define down_killable(semaphore) down_interruptible(semaphore)

#endif
