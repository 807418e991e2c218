// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Locks, wait queues, time, and the program that makes the call. */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/ktime.h>
#include <linux/mutex.h>
#include <linux/random.h>
#include <linux/rwsem.h>
#include <linux/semaphore.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include "runtime.h"
#include "system.h"

/* The owner of a lock whose call has returned. */
#define NO_TASK ((void *)1)

struct user_namespace init_user_ns;

struct task_struct *get_current(void)
{
	return &runtime_task->task;
}

bool capable(int capability __maybe_unused)
{
	return runtime_task->cred.euid.val == 0;
}

/*
 * Atomic context.
 */

static void begin_atomic(unsigned long pc)
{
	if (!runtime_task->atomic_depth++)
		runtime_task->atomic_pc = pc;
}

static void end_atomic(void)
{
	if (runtime_task->atomic_depth)
		runtime_task->atomic_depth--;
}

void runtime_may_sleep(void)
{
	if (runtime_task && (runtime_task->atomic_depth || runtime_task->irqs_are_off))
		runtime_finding("BUG: sleeping function called from invalid context: atomic since " RUNTIME_PLACE
				" (a spinlock is held, or preemption or interrupts are off)", runtime_task->atomic_pc);
}

void __might_sleep(const char *file __maybe_unused, int line __maybe_unused)
{
	runtime_may_sleep();
}

void __cond_resched(const char *file __maybe_unused, int line __maybe_unused)
{
	runtime_may_sleep();
}

void preempt_disable(void)
{
	begin_atomic(runtime_caller());
}

void preempt_enable(void)
{
	if (!runtime_task->atomic_depth)
		runtime_finding("preempt_enable() without preempt_disable()");
	end_atomic();
}

int preempt_count(void)
{
	return runtime_task->atomic_depth;
}

void local_irq_disable(void)
{
	if (!runtime_task->irqs_are_off && !runtime_task->atomic_depth)
		runtime_task->atomic_pc = runtime_caller();
	runtime_task->irqs_are_off = true;
}

void local_irq_enable(void)
{
	runtime_task->irqs_are_off = false;
}

unsigned long __local_irq_save(void)
{
	unsigned long flags = runtime_task->irqs_are_off;

	local_irq_disable();
	return flags;
}

void local_irq_restore(unsigned long flags)
{
	runtime_task->irqs_are_off = flags & 1;
}

int irqs_disabled(void)
{
	return runtime_task->irqs_are_off;
}

/*
 * Locks that a task holds.
 */

static const char *const lock_names[] = { "mutex", "spinlock", "rwlock", "rw_semaphore" };

static void hold(enum runtime_lock_kind kind, const void *lock, unsigned long pc)
{
	struct runtime_task *task = runtime_task;

	if (task->lock_count < RUNTIME_LOCKS)
		task->locks[task->lock_count++] = (struct runtime_lock){ .lock = lock, .pc = pc, .kind = kind };
}

/* Returns whether the task holds the lock. */
static bool let_go(const void *lock)
{
	struct runtime_task *task = runtime_task;

	for (int i = task->lock_count - 1; i >= 0; i--) {
		if (task->locks[i].lock == lock) {
			task->lock_count--;
			memmove(&task->locks[i], &task->locks[i + 1], (task->lock_count - i) * sizeof(task->locks[0]));
			return true;
		}
	}
	return false;
}

/* The place at which this task has taken the lock; 0 if it does not hold it. */
static unsigned long place_of(const void *lock)
{
	for (int i = 0; i < runtime_task->lock_count; i++) {
		if (runtime_task->locks[i].lock == lock)
			return runtime_task->locks[i].pc;
	}
	return 0;
}

void runtime_check_locks(struct runtime_task *task, const char *function)
{
	for (int i = 0; i < task->lock_count; i++) {
		struct runtime_lock *lock = &task->locks[i];

		runtime_finding_at(lock->pc, "WARNING: lock held when returning to user space: %s() has returned, and still holds the %s that it took here",
				   function, lock_names[lock->kind]);
		/* The next lock of it finds no task that could unlock it. */
		if (lock->kind == RUNTIME_MUTEX)
			((struct mutex *)lock->lock)->owner = NO_TASK;
		else if (lock->kind == RUNTIME_SPINLOCK)
			((spinlock_t *)lock->lock)->owner = NO_TASK;
		else if (lock->kind == RUNTIME_RWSEM)
			((struct rw_semaphore *)lock->lock)->owner = NO_TASK;
	}
	if (!task->lock_count && (task->atomic_depth || task->irqs_are_off))
		runtime_finding_at(task->atomic_pc, "BUG: %s() has returned in atomic context: preemption or interrupts are off since here", function);
	task->lock_count = 0;
	task->atomic_depth = 0;
	task->irqs_are_off = false;
}

static void wake_waiters(void)
{
	if (!list_empty(&runtime_tasks) && !list_is_singular(&runtime_tasks))
		runtime_has_woken = true;
}

static bool is_interrupted(bool is_interruptible)
{
	return is_interruptible && runtime_task->is_interrupted;
}

void spin_lock_init(spinlock_t *lock)
{
	*lock = (spinlock_t){ NULL, 0 };
}

static void take_spinlock(spinlock_t *lock, unsigned long pc)
{
	lock->owner = runtime_task;
	lock->pc = pc;
	begin_atomic(pc);
	hold(RUNTIME_SPINLOCK, lock, pc);
}

void spin_lock(spinlock_t *lock)
{
	unsigned long pc = runtime_caller();

	if (lock->owner == runtime_task)
		runtime_fault(CHANNEL_FAULT_BUG, "BUG: spinlock recursion: the call has taken the lock at " RUNTIME_PLACE
			      ", and waits for itself for ever (deadlock)", lock->pc);
	if (lock->owner)
		runtime_fault(CHANNEL_FAULT_BUG, "BUG: spinlock lockup: the lock was taken at " RUNTIME_PLACE
			      " by another call, which sleeps or has returned with it", lock->pc);
	take_spinlock(lock, pc);
}

void spin_unlock(spinlock_t *lock)
{
	if (!lock->owner)
		runtime_finding("BUG: spinlock already unlocked");
	else if (!let_go(lock))
		runtime_finding("BUG: spinlock wrong owner: it was taken at " RUNTIME_PLACE " by another call", lock->pc);
	else
		end_atomic();
	lock->owner = NULL;
}

int spin_trylock(spinlock_t *lock)
{
	if (lock->owner)
		return 0;
	take_spinlock(lock, runtime_caller());
	return 1;
}

int spin_is_locked(spinlock_t *lock)
{
	return lock->owner != NULL;
}

void rwlock_init(rwlock_t *lock)
{
	*lock = (rwlock_t){ { NULL, 0 }, 0 };
}

void read_lock(rwlock_t *lock)
{
	unsigned long pc = runtime_caller();

	if (lock->writer.owner)
		runtime_fault(CHANNEL_FAULT_BUG, "BUG: rwlock lockup: read_lock() waits for the writer that took the lock at " RUNTIME_PLACE,
			      lock->writer.pc);
	lock->readers++;
	lock->writer.pc = pc;
	begin_atomic(pc);
	hold(RUNTIME_RWLOCK, lock, pc);
}

void read_unlock(rwlock_t *lock)
{
	if (!let_go(lock)) {
		runtime_finding("read_unlock() of a lock that the call does not hold");
		return;
	}
	lock->readers--;
	end_atomic();
}

void write_lock(rwlock_t *lock)
{
	unsigned long pc = runtime_caller();

	if (lock->writer.owner || lock->readers)
		runtime_fault(CHANNEL_FAULT_BUG, "BUG: rwlock lockup: write_lock() waits for the lock that was taken at " RUNTIME_PLACE,
			      lock->writer.pc);
	lock->writer.owner = runtime_task;
	lock->writer.pc = pc;
	begin_atomic(pc);
	hold(RUNTIME_RWLOCK, lock, pc);
}

void write_unlock(rwlock_t *lock)
{
	if (!let_go(lock)) {
		runtime_finding("write_unlock() of a lock that the call does not hold");
		return;
	}
	lock->writer.owner = NULL;
	end_atomic();
}

void mutex_init(struct mutex *lock)
{
	*lock = (struct mutex){ .is_initialized = true };
}

void mutex_destroy(struct mutex *lock)
{
	if (lock->is_locked)
		runtime_finding("mutex_destroy() of a mutex that is locked since " RUNTIME_PLACE, lock->pc);
}

bool mutex_is_locked(struct mutex *lock)
{
	return lock->is_locked;
}

static int lock_mutex(struct mutex *lock, bool is_interruptible)
{
	unsigned long pc = runtime_caller();

	runtime_may_sleep();
	if (!lock->is_initialized) {
		runtime_finding("the mutex is used without mutex_init() or DEFINE_MUTEX()");
		mutex_init(lock);
	}
	if (lock->is_locked && lock->owner == runtime_task)
		runtime_fault(CHANNEL_FAULT_BUG, "possible recursive locking: the call has locked the mutex at " RUNTIME_PLACE
			      ", and waits for itself for ever (deadlock)", lock->pc);
	while (lock->is_locked) {
		if (is_interrupted(is_interruptible))
			return -EINTR;
		runtime_wait();
	}
	lock->is_locked = true;
	lock->owner = runtime_task;
	lock->pc = pc;
	hold(RUNTIME_MUTEX, lock, pc);
	return 0;
}

void mutex_lock(struct mutex *lock)
{
	lock_mutex(lock, false);
}

int mutex_lock_interruptible(struct mutex *lock)
{
	return lock_mutex(lock, true);
}

int mutex_trylock(struct mutex *lock)
{
	return lock->is_locked ? 0 : lock_mutex(lock, false) == 0;
}

void mutex_unlock(struct mutex *lock)
{
	if (!lock->is_locked)
		runtime_finding("mutex_unlock() of a mutex that is not locked");
	else if (!let_go(lock) && lock->owner != NO_TASK)
		runtime_finding("mutex_unlock() of a mutex that another call has locked at " RUNTIME_PLACE, lock->pc);
	lock->is_locked = false;
	lock->owner = NULL;
	wake_waiters();
}

void sema_init(struct semaphore *semaphore, int count)
{
	semaphore->count = count;
}

/* Waits for a time at most. Returns what is left of it. */
static long wait_some_time(long ticks)
{
	struct runtime_task *task = runtime_task;
	u64 now;

	if (ticks == MAX_SCHEDULE_TIMEOUT) {
		runtime_wait();
		return ticks;
	}
	task->deadline = runtime_now() + (u64)max(ticks, 0L) * (NSEC_PER_SEC / HZ);
	runtime_wait();
	now = runtime_now();
	ticks = task->deadline > now ? (long)DIV_ROUND_UP(task->deadline - now, (u64)(NSEC_PER_SEC / HZ)) : 0;
	task->deadline = 0;
	return ticks;
}

static int take_semaphore(struct semaphore *semaphore, bool is_interruptible, long ticks)
{
	runtime_may_sleep();
	while (semaphore->count <= 0) {
		if (is_interrupted(is_interruptible))
			return -EINTR;
		if (!ticks)
			return -ETIME;
		ticks = wait_some_time(ticks);
	}
	semaphore->count--;
	return 0;
}

void down(struct semaphore *semaphore)
{
	take_semaphore(semaphore, false, MAX_SCHEDULE_TIMEOUT);
}

int down_interruptible(struct semaphore *semaphore)
{
	return take_semaphore(semaphore, true, MAX_SCHEDULE_TIMEOUT);
}

int down_timeout(struct semaphore *semaphore, long ticks)
{
	return take_semaphore(semaphore, false, ticks);
}

int down_trylock(struct semaphore *semaphore)
{
	if (semaphore->count <= 0)
		return 1;
	semaphore->count--;
	return 0;
}

void up(struct semaphore *semaphore)
{
	semaphore->count++;
	wake_waiters();
}

void init_rwsem(struct rw_semaphore *semaphore)
{
	*semaphore = (struct rw_semaphore){ .owner = NULL };
}

static int take_rwsem(struct rw_semaphore *semaphore, bool is_write, bool is_interruptible)
{
	unsigned long pc = runtime_caller();

	runtime_may_sleep();
	while (semaphore->is_written || (is_write && semaphore->readers)) {
		unsigned long place = place_of(semaphore);

		if (place)
			runtime_fault(CHANNEL_FAULT_BUG, "possible recursive locking: the call has locked the rw_semaphore at " RUNTIME_PLACE
				      ", and waits for itself for ever (deadlock)", place);
		if (is_interrupted(is_interruptible))
			return -EINTR;
		runtime_wait();
	}
	if (is_write)
		semaphore->is_written = true;
	else
		semaphore->readers++;
	semaphore->owner = runtime_task;
	semaphore->pc = pc;
	hold(RUNTIME_RWSEM, semaphore, pc);
	return 0;
}

void down_read(struct rw_semaphore *semaphore)
{
	take_rwsem(semaphore, false, false);
}

int down_read_interruptible(struct rw_semaphore *semaphore)
{
	return take_rwsem(semaphore, false, true);
}

int down_read_trylock(struct rw_semaphore *semaphore)
{
	return semaphore->is_written ? 0 : take_rwsem(semaphore, false, false) == 0;
}

void up_read(struct rw_semaphore *semaphore)
{
	if (!let_go(semaphore) && semaphore->owner != NO_TASK)
		runtime_finding("up_read() of a semaphore that the call does not hold");
	if (semaphore->readers)
		semaphore->readers--;
	wake_waiters();
}

void down_write(struct rw_semaphore *semaphore)
{
	take_rwsem(semaphore, true, false);
}

int down_write_killable(struct rw_semaphore *semaphore)
{
	return take_rwsem(semaphore, true, true);
}

int down_write_trylock(struct rw_semaphore *semaphore)
{
	return semaphore->is_written || semaphore->readers ? 0 : take_rwsem(semaphore, true, false) == 0;
}

void up_write(struct rw_semaphore *semaphore)
{
	if (!let_go(semaphore) && semaphore->owner != NO_TASK)
		runtime_finding("up_write() of a semaphore that the call does not hold");
	semaphore->is_written = false;
	wake_waiters();
}

void downgrade_write(struct rw_semaphore *semaphore)
{
	semaphore->is_written = false;
	semaphore->readers = 1;
	wake_waiters();
}

/*
 * Wait queues.
 */

void init_waitqueue_head(wait_queue_head_t *queue)
{
	*queue = (wait_queue_head_t){ .is_initialized = true };
	INIT_LIST_HEAD(&queue->head);
}

static void check_queue(wait_queue_head_t *queue)
{
	if (!queue->is_initialized)
		runtime_fault(CHANNEL_FAULT_BUG, "the wait queue is used without init_waitqueue_head() or DECLARE_WAIT_QUEUE_HEAD()");
}

void __wait_begin(wait_queue_head_t *queue, const char *file __maybe_unused, int line __maybe_unused)
{
	check_queue(queue);
	runtime_may_sleep();
	queue->waiters++;
}

void __wait_end(wait_queue_head_t *queue)
{
	queue->waiters--;
}

int __wait_once(wait_queue_head_t *queue __maybe_unused, int is_interruptible, long *ticks)
{
	if (is_interrupted(is_interruptible))
		return -ERESTARTSYS;
	*ticks = wait_some_time(*ticks);
	return 0;
}

void __wake_up(wait_queue_head_t *queue)
{
	wait_queue_entry_t *entry;

	check_queue(queue);
	runtime_has_woken = true;
	list_for_each_entry(entry, &queue->head, entry)
		((struct task_struct *)entry->private)->__state = TASK_RUNNING;
}

int waitqueue_active(wait_queue_head_t *queue)
{
	check_queue(queue);
	return queue->waiters || !list_empty(&queue->head);
}

void init_waitqueue_entry(wait_queue_entry_t *entry, struct task_struct *task)
{
	*entry = (wait_queue_entry_t){ .private = task };
	INIT_LIST_HEAD(&entry->entry);
}

void init_wait_entry(wait_queue_entry_t *entry, int flags __maybe_unused)
{
	init_waitqueue_entry(entry, current);
}

void add_wait_queue(wait_queue_head_t *queue, wait_queue_entry_t *entry)
{
	check_queue(queue);
	list_add(&entry->entry, &queue->head);
}

void remove_wait_queue(wait_queue_head_t *queue __maybe_unused, wait_queue_entry_t *entry)
{
	list_del_init(&entry->entry);
}

void prepare_to_wait(wait_queue_head_t *queue, wait_queue_entry_t *entry, int state)
{
	check_queue(queue);
	if (list_empty(&entry->entry))
		list_add(&entry->entry, &queue->head);
	set_current_state(state);
}

void prepare_to_wait_exclusive(wait_queue_head_t *queue, wait_queue_entry_t *entry, int state)
{
	prepare_to_wait(queue, entry, state);
}

long prepare_to_wait_event(wait_queue_head_t *queue, wait_queue_entry_t *entry, int state)
{
	if (is_interrupted(state & TASK_INTERRUPTIBLE)) {
		list_del_init(&entry->entry);
		return -ERESTARTSYS;
	}
	prepare_to_wait(queue, entry, state);
	return 0;
}

void finish_wait(wait_queue_head_t *queue __maybe_unused, wait_queue_entry_t *entry)
{
	set_current_state(TASK_RUNNING);
	list_del_init(&entry->entry);
}

int autoremove_wake_function(wait_queue_entry_t *entry, unsigned int mode __maybe_unused, int sync __maybe_unused, void *key __maybe_unused)
{
	((struct task_struct *)entry->private)->__state = TASK_RUNNING;
	list_del_init(&entry->entry);
	return 1;
}

int signal_pending(struct task_struct *task)
{
	return container_of(task, struct runtime_task, task)->is_interrupted;
}

/* Sleeps until the task is woken, or its time is over. A task that has not set its state only lets others run. */
long schedule_timeout(long ticks)
{
	struct task_struct *task = current;

	runtime_may_sleep();
	while (task->__state != TASK_RUNNING && ticks > 0 && !is_interrupted(task->__state & TASK_INTERRUPTIBLE))
		ticks = wait_some_time(ticks);
	task->__state = TASK_RUNNING;
	return max(ticks, 0L);
}

void schedule(void)
{
	schedule_timeout(MAX_SCHEDULE_TIMEOUT);
}

long schedule_timeout_interruptible(long ticks)
{
	set_current_state(TASK_INTERRUPTIBLE);
	return schedule_timeout(ticks);
}

long schedule_timeout_uninterruptible(long ticks)
{
	set_current_state(TASK_UNINTERRUPTIBLE);
	return schedule_timeout(ticks);
}

int wake_up_process(struct task_struct *task)
{
	int is_woken = task->__state != TASK_RUNNING;

	task->__state = TASK_RUNNING;
	runtime_has_woken = true;
	return is_woken;
}

/*
 * Completions.
 */

void init_completion(struct completion *completion)
{
	completion->done = 0;
	init_waitqueue_head(&completion->wait);
}

void reinit_completion(struct completion *completion)
{
	completion->done = 0;
}

void complete(struct completion *completion)
{
	if (completion->done != UINT_MAX)
		completion->done++;
	__wake_up(&completion->wait);
}

void complete_all(struct completion *completion)
{
	completion->done = UINT_MAX;
	__wake_up(&completion->wait);
}

bool completion_done(struct completion *completion)
{
	return completion->done != 0;
}

bool try_wait_for_completion(struct completion *completion)
{
	if (!completion->done)
		return false;
	if (completion->done != UINT_MAX)
		completion->done--;
	return true;
}

static long wait_completion(struct completion *completion, bool is_interruptible, long ticks)
{
	long left = __wait_time(&completion->wait, completion->done, is_interruptible, ticks);

	if (left > 0)
		try_wait_for_completion(completion);
	return left;
}

void wait_for_completion(struct completion *completion)
{
	wait_completion(completion, false, MAX_SCHEDULE_TIMEOUT);
}

int wait_for_completion_interruptible(struct completion *completion)
{
	return wait_completion(completion, true, MAX_SCHEDULE_TIMEOUT) < 0 ? -ERESTARTSYS : 0;
}

unsigned long wait_for_completion_timeout(struct completion *completion, unsigned long ticks)
{
	return wait_completion(completion, false, ticks);
}

long wait_for_completion_interruptible_timeout(struct completion *completion, unsigned long ticks)
{
	return wait_completion(completion, true, ticks);
}

/*
 * Time. Delays move the clock on, so that no call of a program waits for them.
 */

static u64 clock_offset;

static u64 read_clock(int clock)
{
	struct system_timespec time = { 0, 0 };

	system(SYS_CLOCK_GETTIME, clock, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec + clock_offset;
}

u64 runtime_now(void)
{
	return read_clock(1);
}

u64 get_jiffies_64(void)
{
	return runtime_now() / (NSEC_PER_SEC / HZ);
}

ktime_t ktime_get(void)
{
	return runtime_now();
}

ktime_t ktime_get_real(void)
{
	return read_clock(0);
}

static void split_time(struct timespec64 *time, u64 ns)
{
	time->tv_sec = ns / NSEC_PER_SEC;
	time->tv_nsec = ns % NSEC_PER_SEC;
}

void ktime_get_real_ts64(struct timespec64 *time)
{
	split_time(time, read_clock(0));
}

void ktime_get_ts64(struct timespec64 *time)
{
	split_time(time, runtime_now());
}

void __delay_ns(u64 ns)
{
	clock_offset += ns;
}

void __sleep_ns(u64 ns)
{
	runtime_may_sleep();
	clock_offset += ns;
}

unsigned long msleep_interruptible(unsigned int ms)
{
	__sleep_ns(ms * 1000000ULL);
	return 0;
}

void get_random_bytes(void *to, size_t size)
{
	while (size) {
		long count = system(SYS_GETRANDOM, to, min_t(size_t, size, 256), 0);

		if (count <= 0)
			continue;
		to += count;
		size -= count;
	}
}

u32 get_random_u32(void)
{
	u32 number;

	get_random_bytes(&number, sizeof(number));
	return number;
}

u64 get_random_u64(void)
{
	u64 number;

	get_random_bytes(&number, sizeof(number));
	return number;
}
