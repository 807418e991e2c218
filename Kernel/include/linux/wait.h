/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Queues of calls that wait. */
#ifndef LINUX_WAIT_H
#define LINUX_WAIT_H

#include <linux/list.h>
#include <linux/sched.h>
#include <linux/spinlock.h>

/*
 * After a wake-up, the daemon lets each call that waits look at its condition again. A queue is therefore a name for the conditions only;
 * its list is that of prepare_to_wait().
 */
typedef struct wait_queue_head {
	spinlock_t lock;
	struct list_head head;
	bool is_initialized;
	int waiters;
} wait_queue_head_t;

typedef struct wait_queue_entry {
	unsigned int flags;
	void *private;
	int (*func)(struct wait_queue_entry *entry, unsigned int mode, int flags, void *key);
	struct list_head entry;
} wait_queue_entry_t;

#define __WAIT_QUEUE_HEAD_INITIALIZER(name) { .head = LIST_HEAD_INIT(name.head), .is_initialized = true }
#define DECLARE_WAIT_QUEUE_HEAD(name) wait_queue_head_t name = __WAIT_QUEUE_HEAD_INITIALIZER(name)
#define DECLARE_WAIT_QUEUE_HEAD_ONSTACK(name) DECLARE_WAIT_QUEUE_HEAD(name)
#define DEFINE_WAIT(name) wait_queue_entry_t name = { .private = current, .entry = LIST_HEAD_INIT(name.entry) }
#define DECLARE_WAITQUEUE(name, task) wait_queue_entry_t name = { .private = task, .entry = LIST_HEAD_INIT(name.entry) }

void init_waitqueue_head(wait_queue_head_t *queue);
void init_waitqueue_entry(wait_queue_entry_t *entry, struct task_struct *task);
void init_wait_entry(wait_queue_entry_t *entry, int flags);
void add_wait_queue(wait_queue_head_t *queue, wait_queue_entry_t *entry);
void remove_wait_queue(wait_queue_head_t *queue, wait_queue_entry_t *entry);
void prepare_to_wait(wait_queue_head_t *queue, wait_queue_entry_t *entry, int state);
void prepare_to_wait_exclusive(wait_queue_head_t *queue, wait_queue_entry_t *entry, int state);
long prepare_to_wait_event(wait_queue_head_t *queue, wait_queue_entry_t *entry, int state);
void finish_wait(wait_queue_head_t *queue, wait_queue_entry_t *entry);
int autoremove_wake_function(wait_queue_entry_t *entry, unsigned int mode, int sync, void *key);
int waitqueue_active(wait_queue_head_t *queue);
#define wq_has_sleeper(queue) waitqueue_active(queue)

void __wake_up(wait_queue_head_t *queue);
#define wake_up(queue) __wake_up(queue)
#define wake_up_nr(queue, count) __wake_up(queue)
#define wake_up_all(queue) __wake_up(queue)
#define wake_up_interruptible(queue) __wake_up(queue)
#define wake_up_interruptible_nr(queue, count) __wake_up(queue)
#define wake_up_interruptible_all(queue) __wake_up(queue)
#define wake_up_interruptible_sync(queue) __wake_up(queue)
#define wake_up_locked(queue) __wake_up(queue)
#define wake_up_poll(queue, mask) __wake_up(queue)
#define wake_up_interruptible_poll(queue, mask) __wake_up(queue)

/* Begins a wait: the place of a call that waits. */
void __wait_begin(wait_queue_head_t *queue, const char *file, int line);
/*
 * Waits for the next wake-up. Returns 0, or -ERESTARTSYS if a signal has come and "is_interruptible" is set. "ticks" is what is left of the
 * time, MAX_SCHEDULE_TIMEOUT for ever.
 */
int __wait_once(wait_queue_head_t *queue, int is_interruptible, long *ticks);
void __wait_end(wait_queue_head_t *queue);

/* "left" becomes 0 if the time is over, and -ERESTARTSYS with a signal; otherwise it is at least 1. */
#define __wait_loop(queue, condition, is_interruptible, left, unlock, relock) ({ \
	wait_queue_head_t *__queue = (queue); \
	int __error = 0; \
	bool __met; \
	__wait_begin(__queue, __FILE__, __LINE__); \
	while (!(__met = !!(condition)) && !__error && (left)) { \
		unlock; \
		__error = __wait_once(__queue, is_interruptible, &(left)); \
		relock; \
	} \
	__wait_end(__queue); \
	if (__met && !(left)) \
		(left) = 1; \
	else if (!__met && __error) \
		(left) = __error; })
#define __wait_for(queue, condition, is_interruptible, unlock, relock) ({ \
	long __left = MAX_SCHEDULE_TIMEOUT; \
	__wait_loop(queue, condition, is_interruptible, __left, unlock, relock); \
	__left < 0 ? (int)__left : 0; })
#define __wait_time(queue, condition, is_interruptible, time) ({ \
	long __left = (time); \
	__wait_loop(queue, condition, is_interruptible, __left, (void)0, (void)0); \
	__left; })

#define wait_event(queue, condition) do { (void)__wait_for(&(queue), condition, 0, (void)0, (void)0); } while (0)
#define wait_event_interruptible(queue, condition) __wait_for(&(queue), condition, 1, (void)0, (void)0)
#define wait_event_killable(queue, condition) wait_event_interruptible(queue, condition)
#define wait_event_freezable(queue, condition) wait_event_interruptible(queue, condition)
#define wait_event_interruptible_exclusive(queue, condition) wait_event_interruptible(queue, condition)
#define wait_event_exclusive(queue, condition) wait_event(queue, condition)
#define io_wait_event(queue, condition) wait_event(queue, condition)
#define wait_event_timeout(queue, condition, time) __wait_time(&(queue), condition, 0, time)
#define wait_event_interruptible_timeout(queue, condition, time) __wait_time(&(queue), condition, 1, time)
#define wait_event_killable_timeout(queue, condition, time) __wait_time(&(queue), condition, 1, time)
#define wait_event_lock_irq(queue, condition, lock) \
	do { (void)__wait_for(&(queue), condition, 0, spin_unlock_irq(&(lock)), spin_lock_irq(&(lock))); } while (0)
#define wait_event_interruptible_lock_irq(queue, condition, lock) \
	__wait_for(&(queue), condition, 1, spin_unlock_irq(&(lock)), spin_lock_irq(&(lock)))
#define wait_event_interruptible_locked(queue, condition) \
	__wait_for(&(queue), condition, 1, spin_unlock(&(queue).lock), spin_lock(&(queue).lock))

#endif
