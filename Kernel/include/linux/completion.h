/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef LINUX_COMPLETION_H
#define LINUX_COMPLETION_H

#include <linux/wait.h>

struct completion {
	unsigned int done;
	wait_queue_head_t wait;
};

#define COMPLETION_INITIALIZER(name) { 0, __WAIT_QUEUE_HEAD_INITIALIZER((name).wait) }
#define DECLARE_COMPLETION(name) struct completion name = COMPLETION_INITIALIZER(name)
#define DECLARE_COMPLETION_ONSTACK(name) DECLARE_COMPLETION(name)

void init_completion(struct completion *completion);
void reinit_completion(struct completion *completion);
void complete(struct completion *completion);
void complete_all(struct completion *completion);
bool completion_done(struct completion *completion);
bool try_wait_for_completion(struct completion *completion);
void wait_for_completion(struct completion *completion);
int __must_check wait_for_completion_interruptible(struct completion *completion);
unsigned long wait_for_completion_timeout(struct completion *completion, unsigned long ticks);
long wait_for_completion_interruptible_timeout(struct completion *completion, unsigned long ticks);
#define wait_for_completion_killable(completion) wait_for_completion_interruptible(completion)

#endif
