// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Faults: signals, endless loops and recursion, BUG(); and findings, which are mistakes that do not end the code. */
#include "runtime.h"
#include "system.h"

enum {
	SIGILL = 4,
	SIGBUS = 7,
	SIGFPE = 8,
	SIGSEGV = 11,
	SIGPIPE = 13,
	SIGPROF = 27,
};

#define SA_SIGINFO 4ul
#define SA_ONSTACK 0x08000000ul
#define SA_RESTART 0x10000000ul
#define SA_RESTORER 0x04000000ul
#define ITIMER_PROF 2
#define ITIMER_TICK_US 250000
/* A call that has run for so many ticks of CPU time is an endless loop. */
#ifdef RUNTIME_SANITIZE
#define WATCHDOG_TICKS 16
#else
#define WATCHDOG_TICKS 4
#endif

struct signal_information {
	int number;
	int error;
	int code;
	int padding;
	u64 address;
};

/* The registers of the code that a signal has interrupted. */
struct registers {
	u64 pc;
	u64 sp;
	u64 frame;
	/* The return address of a function that has no frame yet: one at a wild address, or one of the runtime; 0 if it is not known. */
	u64 return_address;
	int access;
};

/* The first byte after the user's code. */
extern const u8 runtime_text_begin[];
extern const u8 __executable_start[];
extern const u8 etext[];

static u8 signal_stack[65536] __aligned(16);
#ifdef RUNTIME_SANITIZE
static void runtime_sanitizer_open(void);
#endif

static volatile unsigned int ticks;
static bool is_reporting;

bool runtime_is_user_code(unsigned long pc)
{
	return pc >= (unsigned long)__executable_start && pc < (unsigned long)runtime_text_begin;
}

/* The stack that runs: a task's, or 0 to 0 in the loop. */
static void current_stack(u64 *low, u64 *high)
{
	*low = runtime_task ? (u64)runtime_task->stack : 0;
	*high = runtime_task ? *low + RUNTIME_STACK_SIZE : 0;
}

/* Goes up the frames of the running stack. Only frames of the user's code are kept: the address of each call. */
static unsigned int backtrace(u64 frame, u64 *places, unsigned int most)
{
	u64 low, high;
	unsigned int count = 0;

	current_stack(&low, &high);
	while (count < most && frame >= low && frame + 16 <= high && frame % 8 == 0) {
		const u64 *words = (const u64 *)frame;
		u64 place = words[1] - 1;

		if (runtime_is_user_code(place))
			places[count++] = place;
		if (words[0] <= frame)
			break;
		frame = words[0];
	}
	return count;
}

unsigned long runtime_caller(void)
{
	u64 place;

	return backtrace((u64)__builtin_frame_address(0), &place, 1) ? place : 0;
}

static void __noreturn send_fault(void)
{
	struct channel_message message = { .kind = CHANNEL_FAULT };

	runtime_send(&message);
	runtime_exit(1);
}

static struct channel_fault *begin_fault(enum channel_fault_kind kind)
{
	struct channel_fault *fault = &runtime_channel->fault;

	/* A fault in the report of a fault. */
	if (is_reporting)
		runtime_exit(1);
	is_reporting = true;
	memset(fault, 0, sizeof(*fault));
	fault->kind = kind;
	return fault;
}

static void __noreturn fault_with_text(enum channel_fault_kind kind, u64 frame, const char *fmt, va_list args)
{
	struct channel_fault *fault = begin_fault(kind);

	fault->frame_count = backtrace(frame, fault->frames, CHANNEL_FRAMES);
	vscnprintf(fault->text, sizeof(fault->text), fmt, args);
	send_fault();
}

void runtime_fault(enum channel_fault_kind kind, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fault_with_text(kind, (u64)__builtin_frame_address(0), fmt, args);
}

static void finding(unsigned long pc, const char *fmt, va_list args)
{
	char text[512];
	int length = vscnprintf(text, sizeof(text), fmt, args);

	runtime_log(CHANNEL_RECORD_FINDING, 4, pc, text, length);
}

void runtime_finding(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	finding(runtime_caller(), fmt, args);
	va_end(args);
}

void runtime_finding_at(unsigned long pc, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	finding(pc, fmt, args);
	va_end(args);
}

void __bug(const char *file, int line, const char *function __maybe_unused)
{
	runtime_fault(CHANNEL_FAULT_BUG, "kernel BUG at %s:%d!", kbasename(file), line);
}

void panic(const char *fmt, ...)
{
	char text[400];
	va_list args;

	va_start(args, fmt);
	vscnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	runtime_fault(CHANNEL_FAULT_BUG, "Kernel panic - not syncing: %s", text);
}

void __warn_printf(const char *file, int line, const char *function, const char *fmt, ...)
{
	char text[400];
	int length;
	va_list args;

	if (!fmt) {
		runtime_finding("WARNING: at %s:%d %s()", kbasename(file), line, function);
		return;
	}
	va_start(args, fmt);
	length = vscnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (length && text[length - 1] == '\n')
		text[length - 1] = 0;
	runtime_finding("WARNING: at %s:%d %s(): %s", kbasename(file), line, function, text);
}

void dump_stack(void)
{
	u64 places[CHANNEL_FRAMES];
	unsigned int count = backtrace((u64)__builtin_frame_address(0), places, CHANNEL_FRAMES);

	_printk(KERN_DEFAULT "Call trace:\n");
	for (unsigned int i = 0; i < count; i++)
		_printk(KERN_DEFAULT " " RUNTIME_PLACE "\n", (unsigned long)places[i]);
}

void runtime_watch(void)
{
	ticks = 0;
}

static void read_registers(const u64 *context, struct registers *registers)
{
#if defined(__x86_64__)
	/* uc_flags, uc_link, uc_stack; then r8 to r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags, selectors, err. */
	const u64 *words = context + 5;
	u64 error = words[19];

	registers->pc = words[16];
	registers->sp = words[15];
	registers->frame = words[10];
	u64 low, high;

	registers->access = error & 16 ? 2 : (error >> 1) & 1;
	registers->return_address = 0;
	current_stack(&low, &high);
	if (registers->sp >= low && registers->sp + 8 <= high) {
		u64 word = *(const u64 *)registers->sp;

		/* The word can be another one. Before a return address into the user's code is a call: opcode e8 and 4 bytes. */
		if (registers->access == 2 || (runtime_is_user_code(word - 5) && *(const u8 *)(word - 5) == 0xe8))
			registers->return_address = word;
	}
#elif defined(__aarch64__)
	/* struct sigcontext is at 176 bytes: fault_address, x0 to x30, sp, pc, pstate; then records. */
	const u64 *words = context + 22;
	const u32 *record = (const u32 *)((const u8 *)words + 288);

	registers->pc = words[33];
	registers->sp = words[32];
	registers->frame = words[30];
	registers->return_address = words[31];
	registers->access = 0;
	for (unsigned int at = 0; at < 4096 && record[1] >= 8; at += record[1], record += record[1] / 4) {
		/* ESR_MAGIC */
		if (record[0] == 0x45535201) {
			u64 syndrome = *(const u64 *)(record + 2);
			u64 class = syndrome >> 26 & 63;

			registers->access = class == 0x20 || class == 0x21 ? 2 : (syndrome >> 6) & 1;
		}
	}
#endif
}

/* The frames of a code that a signal has interrupted. */
static void interrupted_frames(struct channel_fault *fault, const struct registers *registers)
{
	unsigned int count = 0;

	if (runtime_is_user_code(registers->pc))
		fault->frames[count++] = registers->pc;
	else if (registers->return_address && runtime_is_user_code(registers->return_address - 1))
		fault->frames[count++] = registers->return_address - 1;
	fault->frame_count = count + backtrace(registers->frame, &fault->frames[count], CHANNEL_FRAMES - count);
	/* The return address of a function of the runtime that has a frame already is the first one there, too. */
	if (!runtime_is_user_code(registers->pc) && count && fault->frame_count > count && fault->frames[0] == fault->frames[1]) {
		fault->frame_count--;
		memmove(&fault->frames[0], &fault->frames[1], fault->frame_count * sizeof(fault->frames[0]));
	}
}

static void handle_signal(int number, struct signal_information *information, void *context)
{
	struct registers registers;
	struct channel_fault *fault;
	u64 low, high;

	if (number == SIGPROF && (!runtime_task || ++ticks < WATCHDOG_TICKS))
		return;
	/* The daemon has the turn while the code waits for a reply: the next tick is soon enough. */
	if (number == SIGPROF && !channel_has_turn(runtime_channel, CHANNEL_CODE))
		return;
	read_registers(context, &registers);
	fault = begin_fault(number == SIGPROF ? CHANNEL_FAULT_LOCKUP : CHANNEL_FAULT_SIGNAL);
	interrupted_frames(fault, &registers);
	if (number == SIGPROF) {
		snprintf(fault->text, sizeof(fault->text), "watchdog: BUG: soft lockup - the call has run for %u s of CPU time and does not end",
			 WATCHDOG_TICKS * ITIMER_TICK_US / 1000000);
		send_fault();
	}
	fault->signal = number;
	fault->code = information->code;
	fault->address = information->address;
	fault->access = registers.access;
	current_stack(&low, &high);
	if (number == SIGSEGV && high && fault->address < low && fault->address >= low - RUNTIME_GUARD_SIZE) {
		fault->kind = CHANNEL_FAULT_STACK;
		snprintf(fault->text, sizeof(fault->text), "kernel stack overflow: the stack of %lu KiB is full (endless recursion, or a large array on the stack)",
			 RUNTIME_STACK_SIZE >> 10);
	} else if (number == SIGSEGV || number == SIGBUS) {
		if (!runtime_describe_address(fault))
			runtime_describe_memory(fault->text, sizeof(fault->text), fault->address);
	}
	if (number == SIGFPE)
		snprintf(fault->text, sizeof(fault->text), "division by zero, or a quotient that is too large (an arm64 CPU gives 0 and goes on)");
	send_fault();
}

#if defined(__x86_64__)
void runtime_signal_return(void);
__asm__(".text\nruntime_signal_return:\n\tmov $15, %eax\n\tsyscall\n");
#endif

static void set_handler(int number, void *handler, unsigned long flags)
{
	struct {
		void *handler;
		unsigned long flags;
#if defined(__x86_64__)
		void *restorer;
#endif
		u64 mask;
	} action = { .handler = handler, .flags = flags };

#if defined(__x86_64__)
	action.flags |= SA_RESTORER;
	action.restorer = runtime_signal_return;
#endif
	system(SYS_RT_SIGACTION, number, &action, NULL, 8);
}

void runtime_fault_open(void)
{
	struct {
		void *base;
		int flags;
		size_t size;
	} stack = { signal_stack, 0, sizeof(signal_stack) };
	struct {
		long interval_s, interval_us, first_s, first_us;
	} timer = { 0, ITIMER_TICK_US, 0, ITIMER_TICK_US };
	static const int signals[] = { SIGILL, SIGBUS, SIGFPE, SIGSEGV, SIGPROF };

	system(SYS_SIGALTSTACK, &stack, NULL);
	for (unsigned int i = 0; i < ARRAY_SIZE(signals); i++)
		set_handler(signals[i], handle_signal, SA_SIGINFO | SA_ONSTACK | (signals[i] == SIGPROF ? SA_RESTART : 0));
	/* SIG_IGN: a daemon that is gone is seen as EPIPE. */
	set_handler(SIGPIPE, (void *)1, 0);
	system(SYS_SETITIMER, ITIMER_PROF, &timer, NULL);
#ifdef RUNTIME_SANITIZE
	runtime_sanitizer_open();
#endif
}

#ifdef RUNTIME_SANITIZE
/* The sanitizers leave the signals to the handlers above, and give their reports to the daemon. */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);
void __asan_set_error_report_callback(void (*callback)(const char *report));
void __ubsan_get_current_report_data(const char **kind, const char **message, const char **file, unsigned int *line,
				     unsigned int *column, char **address);
void __ubsan_on_report(void);

const char *__asan_default_options(void)
{
	return "handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0:use_sigaltstack=0:detect_leaks=0:abort_on_error=0:"
	       "detect_stack_use_after_return=0:symbolize=0:print_legend=0:color=never";
}

const char *__ubsan_default_options(void)
{
	return "print_stacktrace=0:symbolize=0:halt_on_error=0";
}

/*
 * The frames of the user's code below a library that keeps no frame pointers: the first word on the stack that is a return address into the
 * user's code, and the chain of frames above it.
 */
static unsigned int scan_stack(u64 at, u64 *places, unsigned int most)
{
	u64 low, high;

	current_stack(&low, &high);
	for (at = ALIGN(at, 8); at >= low && at + 8 <= high; at += 8) {
		u64 place = *(const u64 *)at - 1;

		if (!runtime_is_user_code(place))
			continue;
		places[0] = place;
		for (at += 8; at + 16 <= high; at += 8) {
			const u64 *words = (const u64 *)at;

			if (words[0] > at && words[0] < high && words[1] > (u64)__executable_start && words[1] < (u64)etext)
				return 1 + backtrace(at, places + 1, most - 1);
		}
		return 1;
	}
	return 0;
}

/* The first place of the user's code in a stack of a report: lines "    #1 0x401664 ...". Advances to the line behind it. */
static bool next_place(const char **report, u64 *place)
{
	const char *line = *report;

	while (line[0] == ' ' && (line = strstr(line, "#"))) {
		const char *number = strstr(line, "0x");

		if (!number)
			return false;
		*place = simple_strtoull(number, NULL, 16);
		line = strchrnul(number, '\n');
		line += *line != 0;
		*report = line;
		if (runtime_is_user_code(*place))
			return true;
	}
	return false;
}

/* Copies a part of the report up to a text. Returns its length. */
static int copy_part(char *to, size_t size, const char *from, const char *end)
{
	const char *stop = strstr(from, end);
	size_t length = stop ? stop - from : strcspn(from, "\n");

	return scnprintf(to, size, "%.*s", (int)min(length, strcspn(from, "\n")), from);
}

/* "AddressSanitizer: heap-buffer-overflow: WRITE of size 1, 0 bytes to the right of 3-byte region, allocated at ..." */
static void report_address_error(const char *report)
{
	static const char *const sections[][2] = { { "\nfreed by", "freed" }, { "allocated by", "allocated" } };
	struct channel_fault *fault = begin_fault(CHANNEL_FAULT_SANITIZER);
	char *text = fault->text;
	size_t size = sizeof(fault->text), length;
	const char *part = strstr(report, "AddressSanitizer");

	length = copy_part(text, size, part ? part : report, " on ");
	part = strstr(report, "READ of size");
	if (!part)
		part = strstr(report, "WRITE of size");
	if (part) {
		length += scnprintf(text + length, size - length, ": ");
		length += copy_part(text + length, size - length, part, " at 0x");
		part = strchrnul(part, '\n');
		part += *part != 0;
		while (fault->frame_count < CHANNEL_FRAMES && next_place(&part, &fault->frames[fault->frame_count]))
			fault->frame_count++;
	}
	part = strstr(report, "is located ");
	if (part) {
		length += scnprintf(text + length, size - length, ", ");
		length += copy_part(text + length, size - length, part + 11, " [0x");
	}
	for (size_t i = 0; i < ARRAY_SIZE(sections); i++) {
		u64 place;

		part = strstr(report, sections[i][0]);
		if (!part)
			continue;
		part = strchrnul(part + 1, '\n');
		part += *part != 0;
		if (next_place(&part, &place))
			length += scnprintf(text + length, size - length, ", %s at " RUNTIME_PLACE, sections[i][1], (unsigned long)place);
	}
	if (!fault->frame_count)
		fault->frame_count = scan_stack((u64)__builtin_frame_address(0), fault->frames, CHANNEL_FRAMES);
	send_fault();
}

void __ubsan_on_report(void)
{
	const char *kind, *message, *file;
	unsigned int line, column;
	char *address;
	struct channel_fault *fault = begin_fault(CHANNEL_FAULT_SANITIZER);

	__ubsan_get_current_report_data(&kind, &message, &file, &line, &column, &address);
	snprintf(fault->text, sizeof(fault->text), "UndefinedBehaviorSanitizer: %s: %s", kind, message);
	fault->frame_count = scan_stack((u64)__builtin_frame_address(0), fault->frames, CHANNEL_FRAMES);
	send_fault();
}

static void runtime_sanitizer_open(void)
{
	__asan_set_error_report_callback(report_address_error);
}
#endif
