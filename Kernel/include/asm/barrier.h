/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef ASM_BARRIER_H
#define ASM_BARRIER_H

#include <linux/compiler.h>

#define mb() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define rmb() mb()
#define wmb() mb()
#define smp_mb() mb()
#define smp_rmb() mb()
#define smp_wmb() mb()
#define dma_rmb() mb()
#define dma_wmb() mb()
#define dsb(option) mb()
#define dmb(option) mb()
#define isb() barrier()
#define smp_store_mb(x, value) do { WRITE_ONCE(x, value); mb(); } while (0)
#define smp_load_acquire(pointer) __atomic_load_n(pointer, __ATOMIC_ACQUIRE)
#define smp_store_release(pointer, value) __atomic_store_n(pointer, value, __ATOMIC_RELEASE)

#endif
