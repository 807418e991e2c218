/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Atomic context. */
#ifndef LINUX_PREEMPT_H
#define LINUX_PREEMPT_H

void preempt_disable(void);
void preempt_enable(void);
void local_irq_disable(void);
void local_irq_enable(void);
unsigned long __local_irq_save(void);
void local_irq_restore(unsigned long flags);
#define local_irq_save(flags) do { (flags) = __local_irq_save(); } while (0)
int irqs_disabled(void);
int preempt_count(void);
#define in_atomic() (preempt_count() != 0)
#define in_interrupt() 0
#define in_irq() 0
#define in_task() 1
#define in_softirq() 0
#define rcu_read_lock() preempt_disable()
#define rcu_read_unlock() preempt_enable()
#define synchronize_rcu() do { } while (0)
#define rcu_dereference(pointer) READ_ONCE(pointer)
#define rcu_assign_pointer(pointer, value) smp_store_release(&(pointer), value)
#define get_cpu() ({ preempt_disable(); 0; })
#define put_cpu() preempt_enable()
#define smp_processor_id() 0
#define raw_smp_processor_id() 0

#endif
