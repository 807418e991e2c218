// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The start of the process, its last sandbox, and the loop that takes the daemon's calls. */
#include "runtime.h"
#include "system.h"

struct runtime_task *runtime_task;
bool runtime_has_woken;
LIST_HEAD(runtime_tasks);

/* Tasks that have ended, for the next calls. */
static LIST_HEAD(free_tasks);
static void *loop_stack_pointer;

void runtime_exit(int status)
{
	for (;;)
		system(SYS_EXIT_GROUP, status);
}

void *runtime_map(size_t size, bool is_accessible)
{
	long address = system(SYS_MMAP, NULL, size, is_accessible ? PROT_READ | PROT_WRITE : PROT_NONE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return IS_ERR_VALUE(address) ? NULL : (void *)address;
}

/*
 * The system calls that the process may make. Each other one ends it by SIGSYS. The parent has taken files, network and rights before;
 * this is the second wall, and it is up before any code of the user runs.
 */
struct filter {
	u16 code;
	u8 jump_true;
	u8 jump_false;
	u32 value;
};

#define LOAD(offset) { 0x20, 0, 0, offset }
#define JUMP_EQUAL(value, yes, no) { 0x15, yes, no, value }
#define JUMP_BITS(value, yes, no) { 0x45, yes, no, value }
#define RETURN(value) { 0x06, 0, 0, value }
#define ALLOW 0x7fff0000u
#define KILL 0x80000000u
/* The call fails with EPERM. */
#define REFUSE 0x00050001u
#define ALLOW_CALL(number) JUMP_EQUAL(number, 0, 1), RETURN(ALLOW)
#define REFUSE_CALL(number) JUMP_EQUAL(number, 0, 1), RETURN(REFUSE)
/* A call without PROT_EXEC in its third argument. */
#define ALLOW_WITHOUT_EXEC(number) \
	JUMP_EQUAL(number, 0, 4), LOAD(32), JUMP_BITS(PROT_EXEC, 0, 1), RETURN(KILL), RETURN(ALLOW)

static const struct filter filters[] = {
	LOAD(4),
	JUMP_EQUAL(SYSTEM_ARCHITECTURE, 1, 0),
	RETURN(KILL),
	LOAD(0),
	ALLOW_CALL(SYS_READ),
	ALLOW_CALL(SYS_WRITE),
	ALLOW_CALL(SYS_RECVMSG),
	ALLOW_CALL(SYS_CLOSE),
	ALLOW_CALL(SYS_POLL),
	ALLOW_CALL(SYS_PPOLL),
	ALLOW_CALL(SYS_FUTEX),
	ALLOW_WITHOUT_EXEC(SYS_MMAP),
	ALLOW_WITHOUT_EXEC(SYS_MPROTECT),
	ALLOW_CALL(SYS_MUNMAP),
	ALLOW_CALL(SYS_MREMAP),
	ALLOW_CALL(SYS_MADVISE),
	ALLOW_CALL(SYS_BRK),
	ALLOW_CALL(SYS_RT_SIGACTION),
	ALLOW_CALL(SYS_RT_SIGPROCMASK),
	ALLOW_CALL(SYS_RT_SIGRETURN),
	ALLOW_CALL(SYS_SIGALTSTACK),
	ALLOW_CALL(SYS_SETITIMER),
	ALLOW_CALL(SYS_CLOCK_GETTIME),
	ALLOW_CALL(SYS_CLOCK_NANOSLEEP),
	ALLOW_CALL(SYS_NANOSLEEP),
	ALLOW_CALL(SYS_GETRANDOM),
	ALLOW_CALL(SYS_GETTID),
	ALLOW_CALL(SYS_GETPID),
	ALLOW_CALL(SYS_SCHED_YIELD),
	ALLOW_CALL(SYS_EXIT),
	ALLOW_CALL(SYS_EXIT_GROUP),
#ifdef RUNTIME_SANITIZE
	/* A report of a sanitizer tries these, and goes on without them. The start of the sanitizers has been before. */
	REFUSE_CALL(SYS_OPEN),
	REFUSE_CALL(SYS_OPENAT),
	REFUSE_CALL(SYS_READLINK),
	REFUSE_CALL(SYS_READLINKAT),
	REFUSE_CALL(SYS_STAT),
	REFUSE_CALL(SYS_NEWFSTATAT),
	REFUSE_CALL(SYS_FSTAT),
	REFUSE_CALL(SYS_LSEEK),
	REFUSE_CALL(SYS_IOCTL),
	REFUSE_CALL(SYS_PRCTL),
	REFUSE_CALL(SYS_PRLIMIT64),
	REFUSE_CALL(SYS_SCHED_GETAFFINITY),
	REFUSE_CALL(SYS_CLONE),
#endif
	RETURN(KILL),
};

static void close_sandbox(void)
{
	struct {
		u16 length;
		const struct filter *filters;
	} program = { ARRAY_SIZE(filters), filters };

	/* PR_SET_NO_NEW_PRIVS, then PR_SET_SECCOMP with SECCOMP_MODE_FILTER. */
	if (system(SYS_PRCTL, 38, 1, 0, 0, 0) < 0 || system(SYS_PRCTL, 22, 2, &program) < 0)
		runtime_exit(4);
}

/*
 * A switch from one stack to another: saves the registers that a function must keep, and the stack pointer; and takes those of the other one.
 */
void runtime_switch(void **from, void *to);

#if defined(__x86_64__)
__asm__(".text\n"
	".globl runtime_switch\n"
	".type runtime_switch, @function\n"
	"runtime_switch:\n"
	"	push %rbp\n"
	"	push %rbx\n"
	"	push %r12\n"
	"	push %r13\n"
	"	push %r14\n"
	"	push %r15\n"
	"	mov %rsp, (%rdi)\n"
	"	mov %rsi, %rsp\n"
	"	pop %r15\n"
	"	pop %r14\n"
	"	pop %r13\n"
	"	pop %r12\n"
	"	pop %rbx\n"
	"	pop %rbp\n"
	"	ret\n"
	".size runtime_switch, . - runtime_switch\n");
#elif defined(__aarch64__)
__asm__(".text\n"
	".globl runtime_switch\n"
	".type runtime_switch, %function\n"
	"runtime_switch:\n"
	"	stp x29, x30, [sp, #-96]!\n"
	"	stp x19, x20, [sp, #16]\n"
	"	stp x21, x22, [sp, #32]\n"
	"	stp x23, x24, [sp, #48]\n"
	"	stp x25, x26, [sp, #64]\n"
	"	stp x27, x28, [sp, #80]\n"
	"	mov x9, sp\n"
	"	str x9, [x0]\n"
	"	mov sp, x1\n"
	"	ldp x19, x20, [sp, #16]\n"
	"	ldp x21, x22, [sp, #32]\n"
	"	ldp x23, x24, [sp, #48]\n"
	"	ldp x25, x26, [sp, #64]\n"
	"	ldp x27, x28, [sp, #80]\n"
	"	ldp x29, x30, [sp], #96\n"
	"	ret\n"
	".size runtime_switch, . - runtime_switch\n");
#endif

#ifdef RUNTIME_SANITIZE
static const void *loop_stack_bottom;
static size_t loop_stack_size;
#endif

/* Goes from the task back to the loop. */
static void leave_task(struct runtime_task *task)
{
#ifdef RUNTIME_SANITIZE
	__sanitizer_start_switch_fiber(task->has_ended ? NULL : &task->fake_stack, loop_stack_bottom, loop_stack_size);
#endif
	runtime_switch(&task->stack_pointer, loop_stack_pointer);
#ifdef RUNTIME_SANITIZE
	__sanitizer_finish_switch_fiber(task->fake_stack, &loop_stack_bottom, &loop_stack_size);
#endif
}

static void __noreturn begin_task(void)
{
	for (;;) {
		struct runtime_task *task = runtime_task;

#ifdef RUNTIME_SANITIZE
		__sanitizer_finish_switch_fiber(NULL, &loop_stack_bottom, &loop_stack_size);
#endif
		runtime_call(task);
		task->has_ended = true;
		leave_task(task);
	}
}

/* Lays the stack of a new task as if it had called runtime_switch() from the begin of begin_task(). */
static void prepare_stack(struct runtime_task *task)
{
	u64 *top = (u64 *)(task->stack + RUNTIME_STACK_SIZE);

#if defined(__x86_64__)
	*--top = 0;
	*--top = (u64)begin_task;
	for (int i = 0; i < 6; i++)
		*--top = 0;
#elif defined(__aarch64__)
	for (int i = 0; i < 12; i++)
		*--top = 0;
	top[1] = (u64)begin_task;
#endif
	task->stack_pointer = top;
}

static struct runtime_task *new_task(void)
{
	struct runtime_task *task;

	if (!list_empty(&free_tasks)) {
		u8 *stack;

		task = list_first_entry(&free_tasks, struct runtime_task, entry);
		list_del(&task->entry);
		stack = task->stack;
		memset(task, 0, sizeof(*task));
		task->stack = stack;
	} else {
		u8 *memory = runtime_map(RUNTIME_GUARD_SIZE + RUNTIME_STACK_SIZE, false);

		task = runtime_map(sizeof(*task), true);
		if (!memory || !task ||
		    system(SYS_MPROTECT, memory + RUNTIME_GUARD_SIZE, RUNTIME_STACK_SIZE, PROT_READ | PROT_WRITE) < 0)
			runtime_exit(5);
		task->stack = memory + RUNTIME_GUARD_SIZE;
	}
	prepare_stack(task);
	task->task.cred = &task->cred;
	task->task.group_leader = task->task.parent = task->task.real_parent = &task->task;
	return task;
}

/* Lets a task run, until it ends or waits, and answers the daemon. */
static void run_task(struct runtime_task *task)
{
	struct channel_message answer;

	runtime_task = task;
	task->waits = false;
	runtime_watch();
#ifdef RUNTIME_SANITIZE
	void *fake_stack;

	__sanitizer_start_switch_fiber(&fake_stack, task->stack, RUNTIME_STACK_SIZE);
#endif
	runtime_switch(&loop_stack_pointer, task->stack_pointer);
#ifdef RUNTIME_SANITIZE
	__sanitizer_finish_switch_fiber(fake_stack, NULL, NULL);
#endif
	runtime_task = NULL;
	answer = task->message;
	if (task->has_ended) {
		answer.kind = CHANNEL_DONE;
		list_move(&task->entry, &free_tasks);
	} else {
		answer.kind = CHANNEL_WAITS;
		answer.length = 0;
		answer.arguments[6] = 0;
		if (task->deadline) {
			u64 now = runtime_now();

			answer.arguments[6] = task->deadline > now ? DIV_ROUND_UP(task->deadline - now, 1000000) : 1;
		}
	}
	answer.arguments[7] = runtime_has_woken;
	runtime_has_woken = false;
	runtime_send(&answer);
}

void runtime_keep_user_memory(struct runtime_task *task)
{
	struct runtime_user_memory *user = &task->user;
	size_t size = max(user->readable, user->writable);
	u8 *bytes;

	if (user->is_private || !size)
		return;
	bytes = runtime_allocate(size);
	if (!bytes)
		runtime_fault(CHANNEL_FAULT_BUG, "Out of memory: no memory is left for a call that waits");
	memcpy(bytes, user->bytes, size);
	user->bytes = bytes;
	user->is_private = true;
}

void runtime_wait(void)
{
	struct runtime_task *task = runtime_task;

	runtime_keep_user_memory(task);
	task->waits = true;
	leave_task(task);
}

void runtime_end_call(void)
{
	struct runtime_task *task = runtime_task;

	task->has_ended = true;
	for (;;)
		leave_task(task);
}

static void take_call(void)
{
	struct channel_message message = runtime_channel->message;
	struct runtime_task *task;

	if (message.kind == CHANNEL_AGAIN || message.kind == CHANNEL_INTERRUPT) {
		list_for_each_entry(task, &runtime_tasks, entry) {
			if (task->message.call != message.call)
				continue;
			if (message.kind == CHANNEL_INTERRUPT)
				task->is_interrupted = true;
			run_task(task);
			return;
		}
		message.kind = CHANNEL_DONE;
		message.result = -EINVAL;
		message.length = 0;
		message.arguments[7] = 0;
		runtime_send(&message);
		return;
	}
	task = new_task();
	task->message = message;
	list_add_tail(&task->entry, &runtime_tasks);
	run_task(task);
}

static void __noreturn __used runtime_main(void)
{
	runtime_channel_open();
	runtime_memory_open();
	runtime_fault_open();
	for (;;) {
		runtime_wait_for_turn();
		take_call();
	}
}

#ifdef RUNTIME_SANITIZE
/* The program has the C library's start: the sandbox goes up before constructors, also those of the user's code. */
static void (*const close_sandbox_first)(void) __section(".preinit_array") __used = close_sandbox;

int main(void)
{
	runtime_main();
}
#else
static void __noreturn __used runtime_start(void)
{
	close_sandbox();
	runtime_main();
}

#if defined(__x86_64__)
__asm__(".text\n.globl _start\n_start:\n\txor %ebp, %ebp\n\tand $-16, %rsp\n\tcall runtime_start\n");
#elif defined(__aarch64__)
__asm__(".text\n.globl _start\n_start:\n\tmov x29, xzr\n\tmov x30, xzr\n\tbl runtime_start\n");
#endif
#endif
