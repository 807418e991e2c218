/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef LINUX_RWSEM_H
#define LINUX_RWSEM_H

#include <linux/kernel.h>
#include <linux/types.h>

struct rw_semaphore {
	void *owner;
	unsigned long pc;
	int readers;
	bool is_written;
};

#define __RWSEM_INITIALIZER(name) { .owner = NULL }
#define DECLARE_RWSEM(name) struct rw_semaphore name = __RWSEM_INITIALIZER(name)

void init_rwsem(struct rw_semaphore *semaphore);
void down_read(struct rw_semaphore *semaphore);
int __must_check down_read_interruptible(struct rw_semaphore *semaphore);
int down_read_trylock(struct rw_semaphore *semaphore);
void up_read(struct rw_semaphore *semaphore);
void down_write(struct rw_semaphore *semaphore);
int __must_check down_write_killable(struct rw_semaphore *semaphore);
int down_write_trylock(struct rw_semaphore *semaphore);
void up_write(struct rw_semaphore *semaphore);
void downgrade_write(struct rw_semaphore *semaphore);

#endif
