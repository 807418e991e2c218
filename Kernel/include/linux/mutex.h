/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Locks with which a call may sleep. */
#ifndef LINUX_MUTEX_H
#define LINUX_MUTEX_H

#include <linux/kernel.h>
#include <linux/types.h>

struct mutex {
	void *owner;
	unsigned long pc;
	bool is_locked;
	/* mutex_init() or DEFINE_MUTEX() has been. */
	bool is_initialized;
};

#define __MUTEX_INITIALIZER(name) { .owner = NULL, .is_initialized = true }
#define DEFINE_MUTEX(name) struct mutex name = __MUTEX_INITIALIZER(name)

void mutex_init(struct mutex *lock);
void mutex_destroy(struct mutex *lock);
void mutex_lock(struct mutex *lock);
int __must_check mutex_lock_interruptible(struct mutex *lock);
int mutex_trylock(struct mutex *lock);
void mutex_unlock(struct mutex *lock);
bool mutex_is_locked(struct mutex *lock);
#define mutex_lock_killable(lock) mutex_lock_interruptible(lock)
#define mutex_lock_nested(lock, class) mutex_lock(lock)

#endif
