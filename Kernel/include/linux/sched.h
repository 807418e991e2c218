/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The program that makes the call. */
#ifndef LINUX_SCHED_H
#define LINUX_SCHED_H

#include <linux/cred.h>
#include <linux/kernel.h>
#include <linux/limits.h>
#include <linux/preempt.h>
#include <linux/types.h>
#include <asm/processor.h>

#define TASK_COMM_LEN 16
#define TASK_RUNNING 0
#define TASK_INTERRUPTIBLE 1
#define TASK_UNINTERRUPTIBLE 2
#define TASK_KILLABLE (0x100 | TASK_UNINTERRUPTIBLE)
#define TASK_NORMAL (TASK_INTERRUPTIBLE | TASK_UNINTERRUPTIBLE)
#define MAX_SCHEDULE_TIMEOUT LONG_MAX

struct mm_struct;

struct task_struct {
	unsigned int __state;
	unsigned int flags;
	pid_t pid;
	pid_t tgid;
	const struct cred *cred;
	struct mm_struct *mm;
	struct task_struct *group_leader;
	struct task_struct *parent;
	struct task_struct *real_parent;
	char comm[TASK_COMM_LEN];
};

struct task_struct *get_current(void);
#define current get_current()
#define set_current_state(value) WRITE_ONCE(current->__state, value)
#define __set_current_state(value) set_current_state(value)
#define task_pid_nr(task) ((task)->pid)
#define task_tgid_nr(task) ((task)->tgid)
#define task_pid_vnr(task) ((task)->pid)
#define task_tgid_vnr(task) ((task)->tgid)
#define get_task_comm(buffer, task) strscpy(buffer, (task)->comm, sizeof(buffer))

int signal_pending(struct task_struct *task);
#define fatal_signal_pending(task) signal_pending(task)
void schedule(void);
long schedule_timeout(long ticks);
long schedule_timeout_interruptible(long ticks);
long schedule_timeout_uninterruptible(long ticks);
int wake_up_process(struct task_struct *task);
void __cond_resched(const char *file, int line);
#define cond_resched() ({ __cond_resched(__FILE__, __LINE__); 0; })
#define yield() cond_resched()
#define need_resched() 0

#endif
