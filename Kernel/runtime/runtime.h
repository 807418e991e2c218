/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The parts of the runtime, and what they know of each other.
 *
 * The runtime is the kernel of one process: it has the functions that the user's code calls, and talks with the daemon (channel.h). It uses
 * no C library, except with sanitizers, which need one. So a name of the user's code cannot collide with one of a library.
 *
 * How a process is made, from the directory that contains Kernel:
 *
 * The user's source, each file:
 *   gcc -c -std=gnu11 -O1 -g -Wall -fno-omit-frame-pointer -fno-optimize-sibling-calls -fno-reorder-blocks-and-partition \
 *       -fno-shrink-wrap -fno-strict-aliasing -fno-common -fwrapv -funsigned-char -fno-pie -fno-stack-protector -fno-asynchronous-unwind-tables \
 *       -fno-builtin-printf -mgeneral-regs-only -nostdinc -I Kernel/include -include linux/kconfig.h -D__KERNEL__ -DMODULE \
 *       -DKBUILD_MODNAME='"virt_walker"' -DKBUILD_BASENAME='"file"' -DLINUX_VERSION_CODE=0x060100 \
 *       -Werror=implicit-function-declaration -Werror=implicit-int -Werror=incompatible-pointer-types -Werror=int-conversion \
 *       -Werror=return-type -Wno-pointer-sign -Wno-main -Wno-unused-but-set-variable -Wno-address-of-packed-member \
 *       -Wno-format-truncation -Wno-format-overflow -Wno-stringop-truncation FILE.c -o FILE.o
 *   On arm64 also -mno-outline-atomics. clang does not know -fno-reorder-blocks-and-partition, -fno-shrink-wrap and the last three.
 *   KBUILD_MODNAME is the name of the module: it is the same for all files of one module.
 * The runtime (boundary.c, start.c, channel.c, fault.c, printk.c, string.c, memory.c, sync.c, and module.c or hook.c), which changes seldom,
 * so that its objects can be kept: the same flags, -O2 in the place of -O1, -fno-reorder-functions, -fno-tree-loop-distribute-patterns,
 * (with clang -fno-builtin in the place of these two), -Wextra, -Wno-sign-compare, and -I Kernel/runtime -I Kernel/runtime/freestanding.
 * The program: the user's objects stand before boundary.o, and the runtime's objects after it. Frames of a backtrace are the user's if they
 * are before the boundary.
 *   gcc -static -nostdlib -no-pie -Wl,--build-id=none -Wl,-z,noexecstack -o PROGRAM USER.o... boundary.o start.o channel.o ... -lgcc
 * With sanitizers: -fsanitize=address,undefined for the user's source (with -fno-sanitize=alignment), -DRUNTIME_SANITIZE without
 * -fsanitize for the runtime; and gcc -no-pie -fsanitize=address,undefined for the program, without -static and -nostdlib.
 */
#ifndef RUNTIME_H
#define RUNTIME_H

#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/sched.h>
#include <linux/string.h>
#include "channel.h"

/* A call of user's code has a stack of the size that the guest's kernel gives it. Sanitizers make frames larger. */
#ifdef RUNTIME_SANITIZE
#define RUNTIME_STACK_SIZE (1UL << 20)
#else
#define RUNTIME_STACK_SIZE (16UL << 10)
#endif
/* Below a stack. A frame that is larger than it goes unnoticed. */
#define RUNTIME_GUARD_SIZE (256UL << 10)
#define RUNTIME_LOCKS 16

enum runtime_lock_kind {
	RUNTIME_MUTEX,
	RUNTIME_SPINLOCK,
	RUNTIME_RWLOCK,
	RUNTIME_RWSEM,
};

/* A lock that a task holds, and the place that has taken it. */
struct runtime_lock {
	const void *lock;
	unsigned long pc;
	enum runtime_lock_kind kind;
};

/* The memory of the program that makes the call. It is in channel->data, until the call waits. */
struct runtime_user_memory {
	u64 address;
	u8 *bytes;
	/* The bytes that the program has given, and those that it can take. */
	size_t readable;
	size_t writable;
	/* The end of the bytes that the code has written. */
	size_t written;
	bool is_private;
};

/*
 * A call of the daemon, on a stack of its own. It ends, or waits in the code until the daemon resumes it. runtime_call() has the task in
 * runtime_task.
 */
struct runtime_task {
	struct task_struct task;
	struct cred cred;
	/* The call; at its end, the answer. */
	struct channel_message message;
	struct list_head entry;
	u8 *stack;
	void *stack_pointer;
	bool has_ended;
	bool waits;
	/* CHANNEL_INTERRUPT has come. */
	bool is_interrupted;
	/* The time of the end of the wait in ns; 0 if there is none. */
	u64 deadline;
	/* Spinlocks, preempt_disable() and local_irq_disable(). */
	int atomic_depth;
	bool irqs_are_off;
	/* The place at which atomic context began. */
	unsigned long atomic_pc;
	int lock_count;
	struct runtime_lock locks[RUNTIME_LOCKS];
	struct runtime_user_memory user;
	void *fake_stack;
};

/* The task that runs. It is NULL in the loop of start.c only. */
extern struct runtime_task *runtime_task;
extern struct channel *runtime_channel;
/* Set by a wake-up: the next answer tells the daemon that calls that wait may go on. */
extern bool runtime_has_woken;

/*
 * module.c or hook.c.
 */

/* Performs a call on the task's stack: task->message is the call, and becomes the answer. */
void runtime_call(struct runtime_task *task);
/* Writes into fault->text what the address is that the code must not access, e.g. memory of the program. Returns whether it knows. */
bool runtime_describe_address(struct channel_fault *fault);

/*
 * channel.c
 */

/* Opens the channel; ends the process if there is none. */
void runtime_channel_open(void);
/* Waits for the turn. If the daemon is gone, the process ends. */
void runtime_wait_for_turn(void);
/* Writes the message, and gives the turn to the daemon. */
void runtime_send(const struct channel_message *message);
/* Asks the daemon. The message becomes the reply. */
void runtime_request(struct channel_message *message);
/* The descriptor that the socket has brought with the call. It waits for it. */
int runtime_take_descriptor(void);
/* Text of printk(): a line, the begin of a line, or text that continues it. */
void runtime_log_text(int level, u64 pc, const char *text, size_t length, bool continues);
/* Puts a record into the log. Long text is cut. */
void runtime_log(enum channel_record_kind kind, int level, u64 pc, const char *text, size_t length);

/*
 * start.c
 */

/* Lets the daemon go on, until it resumes the task. The daemon resumes it after a wake-up, a signal, or at task->deadline. */
void runtime_wait(void);
/* Ends the call at once, with the answer in task->message: its code never goes on. */
void __noreturn runtime_end_call(void);
/* Takes the program's memory out of channel->data, before something else uses it. */
void runtime_keep_user_memory(struct runtime_task *task);
/* The tasks that wait, and the one that runs, in the order of their calls. */
extern struct list_head runtime_tasks;
void *runtime_map(size_t size, bool is_accessible);
void __noreturn runtime_exit(int status);

/*
 * fault.c
 */

void runtime_fault_open(void);
/* Begins the CPU time of a call. */
void runtime_watch(void);
/* Ends the process with a fault of the code. Its text is that of printk(). */
void __noreturn runtime_fault(enum channel_fault_kind kind, const char *fmt, ...) __printf(2, 3);
/* Tells of a mistake of the code, at the user's line that has called the runtime; or at a given place. */
void runtime_finding(const char *fmt, ...) __printf(1, 2);
void runtime_finding_at(unsigned long pc, const char *fmt, ...) __printf(2, 3);
/* The place in the user's code that has called the runtime: the address of the call. 0 if there is none. */
unsigned long runtime_caller(void);
bool runtime_is_user_code(unsigned long pc);

/*
 * In texts of findings and faults, a place in the code is written so: [<401234>]. The daemon writes file and line in its place.
 */
#define RUNTIME_PLACE "[<%lx>]"

/*
 * memory.c
 */

void runtime_memory_open(void);
/* Says to which allocation an address belongs. */
bool runtime_describe_memory(char *text, size_t size, u64 address);
/* Reports each allocation that has not been freed, and each write behind an end. Returns their number. */
unsigned int runtime_report_memory(void);
/* As kmalloc() with the place of the caller; without a report if it is not freed: for objects of the runtime itself. */
void *runtime_allocate(size_t size);
void runtime_free(void *memory);

/*
 * sync.c
 */

/* A function that may sleep: a finding in atomic context. */
void runtime_may_sleep(void);
/* At the end of a call: reports the locks that it still holds. "function" is the name of the function of the user. */
void runtime_check_locks(struct runtime_task *task, const char *function);
u64 runtime_now(void);

#ifdef RUNTIME_SANITIZE
void __sanitizer_start_switch_fiber(void **fake_stack, const void *bottom, size_t size);
void __sanitizer_finish_switch_fiber(void *fake_stack, const void **bottom, size_t *size);
void *malloc(size_t size);
void free(void *memory);
void *realloc(void *memory, size_t size);
#endif

#endif
