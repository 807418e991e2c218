/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <linux/srcu.h>: readers that may sleep, and an update that waits for them. */
#ifndef _LINUX_SRCU_H
#define _LINUX_SRCU_H

#include <linux/rcupdate.h>
#include <linux/types.h>

struct srcu_struct {
	/* The hook has one thread, so that a wait for a reader has no end. */
	int readers;
};

#define DEFINE_SRCU(name)		struct srcu_struct name
#define DEFINE_STATIC_SRCU(name)	static struct srcu_struct name

static inline int init_srcu_struct(struct srcu_struct *ssp)
{
	ssp->readers = 0;
	return 0;
}

static inline void cleanup_srcu_struct(struct srcu_struct *ssp)
{
	(void)ssp;
}

static inline int srcu_read_lock(struct srcu_struct *ssp)
{
	ssp->readers++;
	return 0;
}

static inline void srcu_read_unlock(struct srcu_struct *ssp, int idx)
{
	(void)idx;
	ssp->readers--;
}

static inline int srcu_read_lock_held(const struct srcu_struct *ssp)
{
	return ssp->readers > 0;
}

/* A fault of the code, if a reader is under way: Kernel/runtime/kvm.c. */
void synchronize_srcu(struct srcu_struct *ssp);
#define synchronize_srcu_expedited(ssp)		synchronize_srcu(ssp)
#define srcu_dereference(p, ssp)		({ (void)(ssp); (p); })
#define srcu_dereference_check(p, ssp, c)	({ (void)(ssp); (void)(c); (p); })

#endif
