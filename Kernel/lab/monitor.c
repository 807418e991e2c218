// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * The first process of the emulated host, and the virtual machine monitor of the guest. The daemon sends requests through a port of
 * virtio-serial (link.h). The monitor boots the guest, passes system calls to the agent in it (shared.h), and performs host steps on the
 * guest's memory.
 *
 * The guest has a vCPU, RAM, KVM's own interrupt controller and timer, and no emulated device. So every access that leaves the guest after its
 * boot is an access of the user's module.
 *
 * The first thread serves the daemon and watches the guest. A second one runs the vCPU. Thus no data needs a lock, except the few words with
 * which the first thread stops the second one. A third thread helps the first one if code in the host's KVM does not end.
 */
#define _GNU_SOURCE
#include <asm/kvm.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "observer.h"
#include "shared.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define RAM 0x40000000UL
#define MIB (1UL << 20)
#define GIC_DISTRIBUTOR 0x08000000UL
#define GIC_REDISTRIBUTOR 0x080a0000UL
#define AGENT_SPI 0 /* interrupt 32 of the controller */
#define MOST_VISITS (1u << 20)
#define MOST_REASON 4096

#define TICK_MS 100
/* A tick is only counted while the monitor runs, too. */
#define HANG_TICKS 120 /* longer than the guest's kernel needs to see a soft lockup, 10 seconds */
#define BOOT_HANG_TICKS 300 /* until the agent is there */
#define KICK_LIMIT_US 5000000 /* for a vCPU to leave KVM_RUN; the host is emulated, and the machine can be busy */

static void put(const char *path, const char *text)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);

	if (file >= 0 && write(file, text, strlen(text)) < 0)
		fprintf(stderr, "monitor: %s: %s\n", path, strerror(errno));
	if (file >= 0)
		close(file);
}

static uint64_t now_us(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * UINT64_C(1000000) + time.tv_nsec / 1000;
}

/* --- The link */

static struct {
	int port;
	uint8_t *input; /* the part of a frame that has come */
	size_t length, room;
} link_ = { .port = -1 };

static void send_bytes(const void *bytes, size_t length)
{
	const uint8_t *at = bytes;

	while (length > 0) {
		ssize_t count = write(link_.port, at, length);
		struct pollfd ready = { .fd = link_.port, .events = POLLOUT };

		if (count > 0) {
			at += count;
			length -= count;
		} else if (count < 0 && errno != EAGAIN && errno != EINTR) {
			return; /* the daemon is not there */
		} else {
			poll(&ready, 1, 100);
		}
	}
}

static void send_frame(uint32_t kind, uint64_t id, const void *bytes, size_t length)
{
	struct lab_frame frame = { .length = length, .kind = kind, .id = id };
	/* One write for a short frame: each write is a message to QEMU. */
	uint8_t both[1024];

	if (sizeof(frame) + length <= sizeof(both)) {
		memcpy(both, &frame, sizeof(frame));
		memcpy(both + sizeof(frame), bytes, length);
		send_bytes(both, sizeof(frame) + length);
	} else {
		send_bytes(&frame, sizeof(frame));
		send_bytes(bytes, length);
	}
}

static int kvm = -1, observer = -1;

static uint64_t mmio_exits; /* counted by the vCPU's thread */

static struct lab_counts event_counts(void)
{
	struct observer_counts seen = { 0 };

	ioctl(observer, OBSERVER_COUNTS, &seen);
	return (struct lab_counts){
		.entries = seen.entries,
		.translation_faults = seen.translation_faults,
		.access_flag_faults = seen.access_flag_faults,
		.permission_faults = seen.permission_faults,
		.other_faults = seen.other_faults,
		.invalidations = seen.invalidations,
		.invalidations_of_all = seen.invalidations_of_all,
		.mmio_exits = shared_load(&mmio_exits),
	};
}

static void send_answer(uint64_t id, int64_t result, const struct observer_visit *visits, uint32_t count, const void *data, uint32_t size)
{
	struct lab_answer answer = { .result = result, .visits = count, .size = size, .counts = event_counts() };
	size_t visits_size = count * sizeof(*visits), length = sizeof(answer) + visits_size + size;
	uint8_t *bytes = malloc(length);

	if (!bytes) {
		answer.result = -ENOMEM;
		answer.visits = answer.size = 0;
		send_frame(LAB_ANSWER, id, &answer, sizeof(answer));
		return;
	}
	memcpy(bytes, &answer, sizeof(answer));
	if (visits_size)
		memcpy(bytes + sizeof(answer), visits, visits_size);
	if (size)
		memcpy(bytes + sizeof(answer) + visits_size, data, size);
	send_frame(LAB_ANSWER, id, bytes, length);
	free(bytes);
}

static void __attribute__((format(printf, 3, 4))) send_text_answer(uint64_t id, int64_t result, const char *format, ...)
{
	char text[MOST_REASON];
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	send_answer(id, result, NULL, 0, text, length < (int)sizeof(text) ? length : (int)sizeof(text) - 1);
}

static void send_alive(void)
{
	static uint64_t last;
	uint64_t now = now_us();

	if (now - last >= 1000000) {
		last = now;
		send_frame(LAB_ALIVE, 0, NULL, 0);
	}
}

/* Waits without being taken for dead. */
static void pause_us(unsigned time)
{
	usleep(time);
	send_alive();
}

/* Text that is sent as whole lines. */
struct lines {
	uint32_t kind;
	size_t length;
	char text[1 << 16];
};

static void send_lines(struct lines *lines, bool also_part)
{
	size_t length = lines->length;

	if (!also_part && length < sizeof(lines->text))
		while (length > 0 && lines->text[length - 1] != '\n')
			length--;
	if (!length)
		return;
	send_frame(lines->kind, 0, lines->text, length);
	memmove(lines->text, lines->text + length, lines->length - length);
	lines->length -= length;
}

static void add_text(struct lines *lines, const char *text, size_t length)
{
	while (length > 0) {
		size_t part = sizeof(lines->text) - lines->length;

		if (part > length)
			part = length;
		memcpy(lines->text + lines->length, text, part);
		lines->length += part;
		text += part;
		length -= part;
		if (lines->length == sizeof(lines->text))
			send_lines(lines, false);
	}
}

/* --- The host's log and trace */

static struct lines host_log = { .kind = LAB_HOST_LOG }, trace = { .kind = LAB_TRACE_TEXT }, guest_log = { .kind = LAB_GUEST_LOG };
static int kmsg = -1, trace_pipe = -1;

/* A record is "priority,number,microseconds,flags;text\n" and other lines. The text has \xNN instead of control characters. */
static void add_host_record(const char *record)
{
	unsigned long long time;
	char head[40], line[4096];
	const char *text = strchr(record, ';');
	size_t length = 0;

	if (!text || sscanf(record, "%*u,%*u,%llu", &time) != 1)
		return;
	snprintf(head, sizeof(head), "[%5llu.%06llu] ", time / 1000000, time % 1000000);
	add_text(&host_log, head, strlen(head));
	for (text++; *text && *text != '\n' && length < sizeof(line) - 1; text++) {
		unsigned value;
		int width = 0;

		if (*text == '\\' && sscanf(text, "\\x%2x%n", &value, &width) == 1 && width == 4) {
			line[length++] = value;
			text += 3;
		} else {
			line[length++] = *text;
		}
	}
	line[length++] = '\n';
	add_text(&host_log, line, length);
}

static void send_host_log(void)
{
	char record[8192];
	ssize_t length;

	/* A log without end must not keep the monitor from its work. */
	for (int i = 0; i < 2000 && kmsg >= 0; i++) {
		length = read(kmsg, record, sizeof(record) - 1);
		if (length <= 0 && errno != EPIPE) /* EPIPE: records were lost */
			break;
		if (length <= 0)
			continue;
		record[length] = 0;
		add_host_record(record);
	}
	send_lines(&host_log, false);
}

static void send_trace(void)
{
	char text[1 << 14];
	ssize_t length;

	/* A trace without end must not keep the monitor from its work. */
	for (int i = 0; i < 64 && trace_pipe >= 0 && (length = read(trace_pipe, text, sizeof(text))) > 0; i++)
		add_text(&trace, text, length);
	send_lines(&trace, false);
}

/* Events that the idle guest makes, too: those of its timer, of its interrupt controller and of its debug registers. They are left out. */
static const char *const frequent_events[] = {
	"kvm_arm_clear_debug",   "kvm_arm_set_dreg32",  "kvm_arm_setup_debug",    "kvm_get_timer_map",   "kvm_irq_line",
	"kvm_timer_emulate",     "kvm_timer_hrtimer_expire", "kvm_timer_restore_state", "kvm_timer_save_state", "kvm_timer_update_irq",
	"kvm_vcpu_wakeup",       "kvm_wfx_arm64",       "vgic_update_irq_pending",
};

static void leave_out_frequent_events(void)
{
	for (size_t i = 0; i < sizeof(frequent_events) / sizeof(*frequent_events); i++) {
		char path[128];

		snprintf(path, sizeof(path), "/sys/kernel/tracing/events/kvm/%s/enable", frequent_events[i]);
		/* Some versions do not have all of them. */
		if (!access(path, F_OK))
			put(path, "0");
	}
}

static void set_trace(bool is_on)
{
	if (is_on && trace_pipe < 0) {
		put("/sys/kernel/tracing/trace", "");
		trace_pipe = open("/sys/kernel/tracing/trace_pipe", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		put("/sys/kernel/tracing/events/kvm/enable", "1");
		leave_out_frequent_events();
		put("/sys/kernel/tracing/tracing_on", "1");
	} else if (!is_on && trace_pipe >= 0) {
		put("/sys/kernel/tracing/events/kvm/enable", "0");
		send_trace();
		send_lines(&trace, true);
		close(trace_pipe);
		trace_pipe = -1;
	}
}

/* --- The guest */

struct call {
	struct call *next;
	uint64_t id;
	struct lab_call call;
	uint8_t data[];
};

static struct guest {
	bool is_there;
	uint64_t memory, base; /* of the RAM slot */
	uint32_t backing;
	int vm, vcpu, gic;
	struct kvm_run *run;
	size_t run_size;
	uint8_t *ram, *ram_area;
	size_t ram_area_size;
	struct shared *shared;
	bool slot_there, slot_readonly, dirty_log;
	pid_t child; /* of the step "fork" */

	/* The vCPU's thread */
	pthread_t thread;
	pid_t tid;
	uint32_t wants_pause, wants_end; /* of the first thread */
	uint32_t is_paused, has_ended;   /* of the vCPU's thread */
	bool has_reason;
	char reason[MOST_REASON]; /* for the end */

	/* The requests without an answer */
	uint64_t boot_id, halt_id; /* 0: none */
	bool is_halting;
	uint64_t ids[SHARED_SLOTS];
	bool is_busy[SHARED_SLOTS];
	unsigned busy_count;
	struct call *first, **last; /* without a slot yet */
	uint64_t active_us; /* the last time when something happened */
	unsigned halt_ticks;

	/* Signs of life */
	uint32_t heartbeat;
	uint32_t quiet_ticks; /* without a heartbeat */
	uint32_t busy_ticks;  /* with a request, and a vCPU that never waits for an interrupt */

	uint32_t console_position, console_stale;
	bool has_logged, never_began;
	char panic[256];
} guest;

/* A vCPU that does not leave KVM_RUN. The host has to be booted again. */
static bool is_broken;

static struct observer_visit *visits;

/* Gives the number of visits. */
static uint32_t walk(uint64_t address, bool all)
{
	struct observer_walk request = { .vm = guest.vm, .all = all, .address = address, .visits = (uintptr_t)visits };

	if (!guest.is_there)
		return 0;
	/* Most machines have few entries, and room in the kernel takes time. */
	for (request.capacity = all ? 1u << 14 : 8; request.capacity <= MOST_VISITS; request.capacity *= 8) {
		request.count = 0;
		if (ioctl(observer, OBSERVER_WALK, &request))
			return 0;
		if (!all || request.count <= request.capacity)
			return request.count;
	}
	return MOST_VISITS;
}

static void answer_with_walk(uint64_t id, int64_t result, const void *data, uint32_t size)
{
	uint32_t count = walk(RAM, false);

	send_answer(id, result, visits, count, data, size);
}

/* --- The registers */

static uint64_t core_register(size_t offset)
{
	return KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | offset / 4;
}

#define X(n) core_register(offsetof(struct kvm_regs, regs.regs[n]))
#define PC core_register(offsetof(struct kvm_regs, regs.pc))
#define ESR_EL1 ARM64_SYS_REG(3, 0, 5, 2, 0)
#define FAR_EL1 ARM64_SYS_REG(3, 0, 6, 0, 0)

static uint64_t get_register(uint64_t id)
{
	uint64_t value = 0;
	struct kvm_one_reg access = { .id = id, .addr = (uintptr_t)&value };

	ioctl(guest.vcpu, KVM_GET_ONE_REG, &access);
	return value;
}

static int set_register(uint64_t id, uint64_t value)
{
	struct kvm_one_reg access = { .id = id, .addr = (uintptr_t)&value };

	return ioctl(guest.vcpu, KVM_SET_ONE_REG, &access);
}

/* Looks for the symbol of an address in a line of kallsyms. */
static void match_symbol(const char *line, uint64_t address, uint64_t *best, char name[128])
{
	uint64_t value;
	char type, symbol[100], module[64] = "";

	if (sscanf(line, "%" SCNx64 " %c %99s %63s", &value, &type, symbol, module) < 3 || value > address || value < *best ||
	    symbol[0] == '$' || address - value > 16 * MIB)
		return;
	*best = value;
	snprintf(name, 128, "%s+0x%" PRIx64 "%s%s", symbol, address - value, *module ? " " : "", module);
}

/* The name of an address in the guest's kernel. Host and guest are the same Image at the same addresses. */
static const char *symbol_of(uint64_t address, char name[128])
{
	char line[256];
	uint64_t best = 0;
	FILE *file = fopen("/proc/kallsyms", "re");
	uint32_t length = guest.shared->symbols_size;

	strcpy(name, "unknown: user space, or the init of a module");
	if (!(address >> 63) || !file)
		goto out;
	while (fgets(line, sizeof(line), file))
		if (!strchr(line, '[')) /* the modules of the host are not those of the guest */
			match_symbol(line, address, &best, name);
	if (length > SHARED_SYMBOLS_SIZE)
		length = SHARED_SYMBOLS_SIZE;
	for (uint32_t at = 0; at < length;) {
		size_t size = strnlen(guest.shared->symbols + at, length - at);
		const char *end = memchr(guest.shared->symbols + at, '\n', size);
		size_t line_length = end ? (size_t)(end - guest.shared->symbols) - at : size;

		snprintf(line, sizeof(line), "%.*s", (int)line_length, guest.shared->symbols + at);
		match_symbol(line, address, &best, name);
		at += line_length + 1;
	}
out:
	if (file)
		fclose(file);
	return name;
}

/* Appends what is known about the vCPU, which must not run. */
static void describe_vcpu(char *text, size_t size)
{
	size_t length = strlen(text);
	struct observer_fault fault = { .vm = guest.vm };
	uint64_t pc = get_register(PC), lr = get_register(X(30));
	char pc_name[128], lr_name[128];

	length += snprintf(text + length, size - length, "\n  pc 0x%016" PRIx64 " %s\n  lr 0x%016" PRIx64 " %s", pc, symbol_of(pc, pc_name), lr,
			   symbol_of(lr, lr_name));
	if (length < size && observer >= 0 && !ioctl(observer, OBSERVER_FAULT, &fault))
		snprintf(text + length, size - length,
			 "\n  the last exit to KVM: ESR_EL2 0x%08" PRIx64 " FAR_EL2 0x%016" PRIx64 " HPFAR_EL2 0x%010" PRIx64, fault.esr, fault.far,
			 fault.hpfar);
}

/* --- The vCPU's thread */

static void on_signal(int signal)
{
	(void)signal;
}

static void __attribute__((format(printf, 1, 2))) set_reason(const char *format, ...)
{
	va_list arguments;

	if (guest.has_reason)
		return;
	va_start(arguments, format);
	vsnprintf(guest.reason, sizeof(guest.reason), format, arguments);
	va_end(arguments);
	guest.has_reason = true;
}

/* Handles an exit. Returns false if the guest cannot go on. */
static bool handle_exit(int result, int error)
{
	struct kvm_run *run = guest.run;
	const char *name;

	if (result < 0) {
		if (error == EINTR || error == EAGAIN)
			return true;
		name = strerrorname_np(error);
		if (error)
			set_reason("KVM_RUN failed: %s (%s)", strerror(error), name ? name : "?");
		else
			set_reason("KVM_RUN returned %d: code in KVM returned a number that is no error", result);
		return false;
	}
	switch (run->exit_reason) {
	case KVM_EXIT_MMIO:
		/* There is no device: a read gives 0, and a write has no effect. */
		memset(run->mmio.data, 0, sizeof(run->mmio.data));
		shared_store(&mmio_exits, mmio_exits + 1);
		return true;
	case KVM_EXIT_INTR:
		return true;
	case KVM_EXIT_SYSTEM_EVENT:
		set_reason(run->system_event.type == KVM_SYSTEM_EVENT_RESET ? "the guest's kernel reset the machine"
			   : run->system_event.type == KVM_SYSTEM_EVENT_SHUTDOWN ? "the guest's kernel switched the machine off"
										 : "the guest's kernel crashed");
		return false;
	case KVM_EXIT_FAIL_ENTRY:
		set_reason("KVM could not enter the guest: reason 0x%llx", (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
		return false;
	case KVM_EXIT_INTERNAL_ERROR:
		set_reason("KVM has an internal error: suberror %u", run->internal.suberror);
		return false;
	case KVM_EXIT_UNKNOWN:
		set_reason("KVM_RUN returned 0 without an exit reason: code in KVM returned 0 instead of 1 or an error");
		return false;
	default:
		set_reason("KVM_RUN returned with exit reason %u, which this monitor does not have", run->exit_reason);
		return false;
	}
}

static void *run_vcpu(void *argument)
{
	bool goes_on = true;
	int result;

	prctl(PR_SET_NAME, "vcpu");
	guest.tid = gettid();
	while (goes_on && !shared_load(&guest.wants_end)) {
		if (shared_load(&guest.wants_pause)) {
			shared_store(&guest.is_paused, 1);
			usleep(200);
			continue;
		}
		shared_store(&guest.is_paused, 0);
		if (shared_load(&guest.wants_pause))
			continue;
		/* The first thread sets immediate_exit before its signal, so the signal cannot come too early. */
		errno = 0;
		result = ioctl(guest.vcpu, KVM_RUN, 0);
		goes_on = handle_exit(result, errno);
	}
	shared_store(&guest.has_ended, 1);
	return argument;
}

static bool kick_until(const uint32_t *word, const uint32_t *other)
{
	const uint64_t limit = now_us() + KICK_LIMIT_US;

	guest.run->immediate_exit = 1;
	for (int i = 0; !shared_load(word) && !shared_load(other); i++) {
		if (now_us() > limit)
			return false;
		if (i % 8 == 0)
			pthread_kill(guest.thread, SIGUSR1);
		pause_us(i < 10 ? 100 : 1000);
	}
	return true;
}

/* Returns false if the vCPU does not leave KVM_RUN. */
static bool pause_vcpu(void)
{
	bool result;

	shared_store(&guest.wants_pause, 1);
	result = kick_until(&guest.is_paused, &guest.has_ended);
	guest.run->immediate_exit = 0;
	return result;
}

static void resume_vcpu(void)
{
	/* Without its RAM, the guest would only take aborts. */
	if (guest.slot_there && guest.base == RAM)
		shared_store(&guest.wants_pause, 0);
}

/* --- The device tree */

static struct {
	uint8_t bytes[1 << 16];
	char strings[2048];
	uint32_t length, strings_length;
} tree;

static void tree_word(uint32_t value)
{
	value = htobe32(value);
	memcpy(tree.bytes + tree.length, &value, 4);
	tree.length += 4;
}

static void tree_bytes(const void *bytes, uint32_t length)
{
	memcpy(tree.bytes + tree.length, bytes, length);
	tree.length += length;
	while (tree.length % 4)
		tree.bytes[tree.length++] = 0;
}

static void begin_node(const char *name)
{
	tree_word(1);
	tree_bytes(name, strlen(name) + 1);
}

static void end_node(void)
{
	tree_word(2);
}

static void property(const char *name, const void *bytes, uint32_t length)
{
	uint32_t at = 0;

	while (at < tree.strings_length && strcmp(tree.strings + at, name))
		at += strlen(tree.strings + at) + 1;
	if (at == tree.strings_length) {
		strcpy(tree.strings + at, name);
		tree.strings_length += strlen(name) + 1;
	}
	tree_word(3);
	tree_word(length);
	tree_word(at);
	tree_bytes(bytes, length);
}

static void text_property(const char *name, const char *text)
{
	property(name, text, strlen(text) + 1);
}

static void cells_property(const char *name, unsigned count, const uint32_t *cells)
{
	uint32_t swapped[16];

	for (unsigned i = 0; i < count; i++)
		swapped[i] = htobe32(cells[i]);
	property(name, swapped, count * 4);
}

#define cells(name, ...) \
	cells_property(name, sizeof((uint32_t[]){ __VA_ARGS__ }) / 4, (uint32_t[]){ __VA_ARGS__ })
#define region(address, size) (uint64_t)(address) >> 32, (uint32_t)(address), (uint64_t)(size) >> 32, (uint32_t)(size)

/* Writes the tree to memory of the guest. Returns its size. */
static uint32_t make_tree(uint8_t *to, const char *command_line, uint64_t initramfs, uint64_t initramfs_size)
{
	enum { GIC = 1, LEVEL = 4, EDGE = 1 };
	uint32_t header[10], reservation[4] = { 0 };
	uint32_t start = sizeof(header) + sizeof(reservation), total;

	tree.length = tree.strings_length = 0;
	begin_node("");
	cells("#address-cells", 2);
	cells("#size-cells", 2);
	cells("interrupt-parent", GIC);
	text_property("compatible", "virt-walker,lab");
	text_property("model", "virt-walker lab");

	begin_node("memory@40000000");
	text_property("device_type", "memory");
	cells("reg", region(RAM, guest.memory), region(SHARED_ADDRESS, SHARED_SIZE));
	end_node();

	begin_node("reserved-memory");
	cells("#address-cells", 2);
	cells("#size-cells", 2);
	property("ranges", NULL, 0);
	begin_node("agent@80000000");
	cells("reg", region(SHARED_ADDRESS, SHARED_CONSOLE));
	end_node();
	begin_node("ramoops@80100000");
	text_property("compatible", "ramoops");
	cells("reg", region(SHARED_ADDRESS + SHARED_CONSOLE, SHARED_CONSOLE_SIZE));
	cells("console-size", SHARED_CONSOLE_SIZE);
	cells("mem-type", 2); /* cached, as the monitor's mapping is */
	end_node();
	begin_node("agent@80200000");
	cells("reg", region(SHARED_ADDRESS + SHARED_DATA, SHARED_SIZE - SHARED_DATA));
	end_node();
	end_node();

	begin_node("cpus");
	cells("#address-cells", 1);
	cells("#size-cells", 0);
	begin_node("cpu@0");
	text_property("device_type", "cpu");
	text_property("compatible", "arm,armv8");
	cells("reg", 0);
	end_node();
	end_node();

	begin_node("psci");
	property("compatible", "arm,psci-1.0\0arm,psci-0.2", 26);
	text_property("method", "hvc");
	end_node();

	begin_node("timer");
	text_property("compatible", "arm,armv8-timer");
	cells("interrupts", 1, 13, LEVEL, 1, 14, LEVEL, 1, 11, LEVEL, 1, 10, LEVEL);
	property("always-on", NULL, 0);
	end_node();

	begin_node("interrupt-controller@8000000");
	text_property("compatible", "arm,gic-v3");
	property("interrupt-controller", NULL, 0);
	cells("#interrupt-cells", 3);
	cells("reg", region(GIC_DISTRIBUTOR, 0x10000), region(GIC_REDISTRIBUTOR, 0x20000));
	cells("phandle", GIC);
	end_node();

	begin_node("agent");
	text_property("compatible", AGENT_NODE);
	cells("interrupts", 0, AGENT_SPI, EDGE);
	end_node();

	begin_node("chosen");
	text_property("bootargs", command_line);
	cells("linux,initrd-start", initramfs >> 32, (uint32_t)initramfs);
	cells("linux,initrd-end", (initramfs + initramfs_size) >> 32, (uint32_t)(initramfs + initramfs_size));
	end_node();
	end_node();
	tree_word(9);

	total = start + tree.length + tree.strings_length;
	memcpy(header, (uint32_t[]){ 0xd00dfeed, total, start, start + tree.length, sizeof(header), 17, 16, 0, tree.strings_length, tree.length },
	       sizeof(header));
	for (int i = 0; i < 10; i++)
		header[i] = htobe32(header[i]);
	memcpy(to, header, sizeof(header));
	memcpy(to + sizeof(header), reservation, sizeof(reservation));
	memcpy(to + start, tree.bytes, tree.length);
	memcpy(to + start + tree.length, tree.strings, tree.strings_length);
	return total;
}

/* --- Boot */

static int set_slot(int slot, uint64_t ipa, uint64_t size, void *memory, uint32_t flags)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = ipa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)memory,
	};

	return ioctl(guest.vm, KVM_SET_USER_MEMORY_REGION, &region);
}

enum { RAM_SLOT, SHARED_SLOT };

static int set_ram_slot(void)
{
	uint32_t flags = (guest.dirty_log ? KVM_MEM_LOG_DIRTY_PAGES : 0) | (guest.slot_readonly ? KVM_MEM_READONLY : 0);

	return set_slot(RAM_SLOT, guest.base, guest.slot_there ? guest.memory : 0, guest.ram, guest.slot_there ? flags : 0);
}

/* Maps an aligned area of the size, with the memory of the backing. RAM shares no page table of the host with other memory. */
static uint8_t *map_ram(void)
{
	const uint64_t alignment = 1 << 30;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
	uint8_t *start;
	char pages[24];

	guest.ram_area_size = ((guest.memory + alignment - 1) & ~(alignment - 1)) + alignment;
	guest.ram_area = mmap(NULL, guest.ram_area_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (guest.ram_area == MAP_FAILED)
		return NULL;
	start = (uint8_t *)(((uintptr_t)guest.ram_area + alignment - 1) & ~(alignment - 1));
	/* The pages of an earlier guest are free again. */
	snprintf(pages, sizeof(pages), "%lu", guest.backing == LAB_HUGETLB ? guest.memory / (2 * MIB) : 0);
	put("/proc/sys/vm/nr_hugepages", pages);
	if (guest.backing == LAB_HUGETLB)
		flags = (flags | MAP_HUGETLB) & ~MAP_NORESERVE; /* fails here if there are not enough pages */
	if (mmap(start, guest.memory, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED)
		return NULL;
	if (guest.backing == LAB_HUGE && madvise(start, guest.memory, MADV_HUGEPAGE))
		return NULL;
	return start;
}

/* The memory shared with the agent stays the same for all guests. */
static struct shared *map_shared(void)
{
	static uint8_t *start;

	if (!start) {
		uint8_t *area = mmap(NULL, SHARED_SIZE + 2 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (area == MAP_FAILED)
			return NULL;
		start = (uint8_t *)(((uintptr_t)area + 2 * MIB - 1) & ~(2 * MIB - 1));
		madvise(start, SHARED_SIZE, MADV_HUGEPAGE);
		/* A fork must affect RAM only. */
		madvise(start, SHARED_SIZE, MADV_DONTFORK);
	}
	memset(start, 0, SHARED_SIZE);
	return (struct shared *)start;
}

static int make_gic(void)
{
	struct kvm_create_device device = { .type = KVM_DEV_TYPE_ARM_VGIC_V3 };
	uint64_t distributor = GIC_DISTRIBUTOR, redistributor = GIC_REDISTRIBUTOR;
	struct kvm_device_attr attributes[] = {
		{ .group = KVM_DEV_ARM_VGIC_GRP_ADDR, .attr = KVM_VGIC_V3_ADDR_TYPE_DIST, .addr = (uintptr_t)&distributor },
		{ .group = KVM_DEV_ARM_VGIC_GRP_ADDR, .attr = KVM_VGIC_V3_ADDR_TYPE_REDIST, .addr = (uintptr_t)&redistributor },
		{ .group = KVM_DEV_ARM_VGIC_GRP_CTRL, .attr = KVM_DEV_ARM_VGIC_CTRL_INIT },
	};

	if (ioctl(guest.vm, KVM_CREATE_DEVICE, &device))
		return -1;
	guest.gic = device.fd;
	for (size_t i = 0; i < sizeof(attributes) / sizeof(*attributes); i++)
		if (ioctl(guest.gic, KVM_SET_DEVICE_ATTR, &attributes[i]))
			return -1;
	return 0;
}

/* Copies a file into RAM. Returns the end of the memory that the kernel takes, or 0. */
static uint64_t load_image(const char *path, uint64_t offset)
{
	struct stat status;
	int file = open(path, O_RDONLY | O_CLOEXEC);
	uint64_t image_size, end = 0;

	if (file < 0)
		return 0;
	errno = EINVAL;
	if (!fstat(file, &status) && status.st_size >= 64 && offset + status.st_size < guest.memory) {
		ssize_t count = 0;
		off_t done = 0;

		while (done < status.st_size && (count = read(file, guest.ram + offset + done, status.st_size - done)) > 0)
			done += count;
		memcpy(&image_size, guest.ram + offset + 16, 8);
		if (done == status.st_size && !memcmp(guest.ram + offset + 56, "ARM\x64", 4))
			end = offset + (image_size > (uint64_t)done && image_size < guest.memory ? image_size : (uint64_t)done);
	}
	close(file);
	return end;
}

/* The first instructions, at the base of RAM: QEMU has them there, too, so that the page is mapped executable. */
static void put_entry(uint64_t tree_address, uint64_t image)
{
	const uint32_t code[] = {
		0x580000c0, /* ldr x0, 0x18 */
		0xaa1f03e1, /* mov x1, xzr */
		0xaa1f03e2, /* mov x2, xzr */
		0xaa1f03e3, /* mov x3, xzr */
		0x58000084, /* ldr x4, 0x20 */
		0xd61f0080, /* br x4 */
	};

	memcpy(guest.ram, code, sizeof(code));
	memcpy(guest.ram + 0x18, &tree_address, 8);
	memcpy(guest.ram + 0x20, &image, 8);
}

static uint64_t align(uint64_t value, uint64_t alignment)
{
	return (value + alignment - 1) & ~(alignment - 1);
}

/* Returns NULL, or what failed, with errno. */
static const char *make_guest(const struct lab_boot *boot, const char *command_line, const uint8_t *initramfs, size_t initramfs_size)
{
	struct kvm_vcpu_init init;
	uint64_t end, tree_offset, initramfs_offset;
	const uint64_t image = 2 * MIB; /* QEMU's place */

	guest = (struct guest){
		.memory = boot->memory,
		.base = RAM,
		.backing = boot->backing,
		.slot_there = true,
		.vm = -1,
		.vcpu = -1,
		.gic = -1,
		.run = MAP_FAILED,
		.active_us = now_us(),
	};
	guest.last = &guest.first;
	guest.is_there = true;
	errno = 0;
	guest.vm = ioctl(kvm, KVM_CREATE_VM, boot->ipa_bits == 0 || boot->ipa_bits == 40 ? 0 : KVM_VM_TYPE_ARM_IPA_SIZE(boot->ipa_bits));
	if (guest.vm < 0)
		return "KVM_CREATE_VM";
	fcntl(guest.vm, F_SETFD, FD_CLOEXEC);
	guest.ram = map_ram();
	if (!guest.ram)
		return "the mapping of RAM";
	guest.shared = map_shared();
	if (!guest.shared)
		return "the mapping of the memory for the agent";
	if (set_ram_slot() || set_slot(SHARED_SLOT, SHARED_ADDRESS, SHARED_SIZE, guest.shared, 0))
		return "KVM_SET_USER_MEMORY_REGION";
	guest.vcpu = ioctl(guest.vm, KVM_CREATE_VCPU, 0);
	if (guest.vcpu < 0 || ioctl(guest.vm, KVM_ARM_PREFERRED_TARGET, &init))
		return "KVM_CREATE_VCPU";
	init.features[0] |= 1u << KVM_ARM_VCPU_PSCI_0_2;
	if (ioctl(guest.vcpu, KVM_ARM_VCPU_INIT, &init))
		return "KVM_ARM_VCPU_INIT";
	guest.run_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	guest.run = mmap(NULL, guest.run_size, PROT_READ | PROT_WRITE, MAP_SHARED, guest.vcpu, 0);
	if (guest.run == MAP_FAILED)
		return "the mapping of the vCPU";
	if (make_gic())
		return "KVM_DEV_TYPE_ARM_VGIC_V3";

	end = load_image("/guest/Image", image);
	if (!end)
		return "/guest/Image";
	tree_offset = align(end, 2 * MIB);
	initramfs_offset = tree_offset + 2 * MIB;
	errno = ENOSPC;
	if (initramfs_offset + initramfs_size > guest.memory)
		return "the initramfs in the guest's RAM";
	memcpy(guest.ram + initramfs_offset, initramfs, initramfs_size);
	make_tree(guest.ram + tree_offset, command_line, RAM + initramfs_offset, initramfs_size);
	put_entry(RAM + tree_offset, RAM + image);
	if (set_register(PC, RAM))
		return "KVM_SET_ONE_REG";
	if (pthread_create(&guest.thread, NULL, run_vcpu, NULL))
		return "the thread of the vCPU";
	return NULL;
}

static void free_guest(void)
{
	if (guest.child > 0) {
		kill(guest.child, SIGKILL);
		waitpid(guest.child, NULL, 0);
	}
	if (guest.run != MAP_FAILED)
		munmap(guest.run, guest.run_size);
	if (guest.gic >= 0)
		close(guest.gic);
	if (guest.vcpu >= 0)
		close(guest.vcpu);
	if (guest.vm >= 0)
		close(guest.vm);
	if (guest.ram_area && guest.ram_area != MAP_FAILED)
		munmap(guest.ram_area, guest.ram_area_size);
	guest = (struct guest){ 0 };
}

/* --- The guest's log */

/*
 * The header of ramoops' ring is a signature, the position and the size. The position changes before the text is there, so the position does
 * not tell how much to read. Instead, the text ends at the first NUL, because the monitor makes what it has read NUL.
 */
struct ring {
	uint32_t signature, position, size;
	char text[];
};

#define RING_SIZE (SHARED_CONSOLE_SIZE - sizeof(struct ring))

static void note_panic(const char *text, size_t length)
{
	static const char words[] = "Kernel panic - not syncing: ";
	const char *at = memmem(text, length, words, sizeof(words) - 1);

	if (at && !guest.panic[0])
		snprintf(guest.panic, sizeof(guest.panic), "%.*s", (int)strcspn(at, "\n"), at);
}

static void send_guest_log(void)
{
	struct ring *ring = (struct ring *)((uint8_t *)guest.shared + SHARED_CONSOLE);
	bool has_text = false;

	for (size_t i = 0; i < RING_SIZE; i++) {
		char *at = &ring->text[guest.console_position];
		char letter = __atomic_load_n(at, __ATOMIC_ACQUIRE);

		if (!letter)
			break;
		*at = 0;
		if (letter != '\r')
			add_text(&guest_log, &letter, 1);
		guest.console_position = (guest.console_position + 1) % RING_SIZE;
		has_text = true;
	}
	if (has_text) {
		guest.has_logged = true;
		guest.console_stale = 0;
		if (!guest.heartbeat) /* before the agent is there, lines of the log are progress */
			guest.quiet_ticks = guest.busy_ticks = 0;
		note_panic(guest_log.text, guest_log.length);
		send_lines(&guest_log, false);
	} else if (shared_load(&ring->position) % RING_SIZE == guest.console_position) {
		guest.console_stale = 0;
	} else if (++guest.console_stale > 100) {
		/* The guest wrote more than the ring has, and overtook the monitor. */
		guest.console_position = shared_load(&ring->position) % RING_SIZE;
		guest.console_stale = 0;
	}
}

/* --- Calls */

static void wake_agent(void)
{
	struct kvm_irq_level line = { .irq = KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT | (32 + AGENT_SPI), .level = 1 };

	if (!__atomic_exchange_n(&guest.shared->is_waiting, 0, __ATOMIC_SEQ_CST))
		return;
	ioctl(guest.vm, KVM_IRQ_LINE, &line);
	line.level = 0;
	ioctl(guest.vm, KVM_IRQ_LINE, &line);
}

static bool has_work(void)
{
	return guest.busy_count || guest.is_halting || guest.boot_id;
}

/* Gives the oldest calls to the agent, while there are free slots. */
static void start_calls(void)
{
	bool has_started = false;

	for (uint32_t i = 0; i < SHARED_SLOTS && guest.first; i++) {
		struct shared_slot *slot = &guest.shared->slots[i];
		struct call *call = guest.first;

		if (guest.is_busy[i])
			continue;
		guest.first = call->next;
		if (!guest.first)
			guest.last = &guest.first;
		slot->call = call->call;
		slot->interrupted = 0;
		memcpy((uint8_t *)guest.shared + SHARED_DATA + (size_t)i * LAB_MOST_DATA, call->data, call->call.size);
		guest.is_busy[i] = true;
		guest.ids[i] = call->id;
		guest.busy_count++;
		shared_store(&slot->state, SLOT_REQUESTED);
		free(call);
		has_started = true;
	}
	if (has_started) {
		guest.active_us = now_us();
		wake_agent();
	}
}

/* Answers the calls that the agent has made, after the lines that these calls have put into the logs. */
static void finish_calls(void)
{
	uint32_t done[SHARED_SLOTS], count = 0;

	for (uint32_t i = 0; i < SHARED_SLOTS; i++)
		if (guest.is_busy[i] && shared_load(&guest.shared->slots[i].state) == SLOT_DONE)
			done[count++] = i;
	if (!count)
		return;
	send_guest_log();
	send_host_log();
	send_trace();
	for (uint32_t i = 0; i < count; i++) {
		struct shared_slot *slot = &guest.shared->slots[done[i]];
		uint32_t size = slot->size;

		/* The guest is not trusted. */
		if (size > LAB_MOST_DATA)
			size = LAB_MOST_DATA;
		answer_with_walk(guest.ids[done[i]], slot->result, (uint8_t *)guest.shared + SHARED_DATA + (size_t)done[i] * LAB_MOST_DATA,
				 size);
		shared_store(&slot->state, SLOT_FREE);
		guest.is_busy[done[i]] = false;
		guest.busy_count--;
	}
	guest.active_us = now_us();
	guest.busy_ticks = 0;
	start_calls();
}

static void interrupt(uint64_t id, uint64_t target)
{
	for (struct call **at = &guest.first; *at; at = &(*at)->next) {
		struct call *call = *at;

		if (call->id != target)
			continue;
		*at = call->next;
		if (!call->next)
			guest.last = at;
		free(call);
		send_answer(target, -EINTR, NULL, 0, NULL, 0);
		send_answer(id, 0, NULL, 0, NULL, 0);
		return;
	}
	for (uint32_t i = 0; i < SHARED_SLOTS; i++)
		if (guest.is_busy[i] && guest.ids[i] == target) {
			shared_store(&guest.shared->slots[i].interrupted, 1);
			wake_agent();
			send_answer(id, 0, NULL, 0, NULL, 0);
			return;
		}
	send_answer(id, -ESRCH, NULL, 0, NULL, 0);
}

/* --- The end of a guest */

/* Answers all that waits, after the end. */
static void fail_requests(int64_t result, const char *text)
{
	/* A vCPU that does not leave KVM_RUN can be inside of a change of the tables. */
	uint32_t count = is_broken ? 0 : walk(RAM, false);

	for (uint32_t i = 0; i < SHARED_SLOTS; i++)
		if (guest.is_busy[i])
			send_answer(guest.ids[i], -EIO, visits, count, NULL, 0);
	while (guest.first) {
		struct call *call = guest.first;

		guest.first = call->next;
		send_answer(call->id, -EIO, NULL, 0, NULL, 0);
		free(call);
	}
	if (guest.boot_id)
		send_text_answer(guest.boot_id, result, "%s", text);
	if (guest.halt_id)
		send_text_answer(guest.halt_id, result, "%s", text);
}

/* Ends the guest. If `tells`, the daemon is told the reason. */
static void end_guest(bool tells)
{
	char text[MOST_REASON + 512];

	if (!guest.is_there)
		return;
	shared_store(&guest.wants_end, 1);
	if (!kick_until(&guest.has_ended, &guest.has_ended)) {
		is_broken = true;
		guest.has_reason = false; /* this reason is the better one */
		set_reason("the vCPU does not leave KVM_RUN: code in the host's KVM does not end; boot the host again");
	}
	send_guest_log();
	send_lines(&guest_log, true);
	send_host_log();
	if (trace_pipe >= 0) {
		send_trace();
		send_lines(&trace, true);
	}
	snprintf(text, sizeof(text), "%s%s%s", guest.has_reason ? guest.reason : "the guest was ended", guest.panic[0] ? ": " : "", guest.panic);
	if (!is_broken && tells && !guest.panic[0])
		describe_vcpu(text, sizeof(text));
	fail_requests(guest.never_began ? -ETIME : -EIO, text);
	if (tells && !guest.never_began)
		send_frame(LAB_STOPPED, 0, text, strlen(text));
	if (is_broken) {
		guest.is_there = false; /* its memory stays, because the thread uses it */
		return;
	}
	pthread_join(guest.thread, NULL);
	free_guest();
}

static void boot(uint64_t id, const uint8_t *bytes, size_t length)
{
	/* The daemon's own words come last, so that the kernel prefers them. */
	static const char first_words[] =
		"ignore_loglevel panic=-1 oops=panic uio_pdrv_genirq.of_id=" AGENT_NODE " rcupdate.rcu_cpu_stall_timeout=5 watchdog_thresh=4 ";
	struct lab_boot request;
	char command_line[4096];
	const char *failed;
	int error;

	end_guest(false);
	if (is_broken) {
		send_text_answer(id, -EBUSY, "the last guest's vCPU does not leave KVM_RUN; boot the host again");
		return;
	}
	if (length < sizeof(request)) {
		send_text_answer(id, -EINVAL, "LAB_BOOT is too short");
		return;
	}
	memcpy(&request, bytes, sizeof(request));
	if (request.command_line > length - sizeof(request) || request.command_line > 2048 || request.memory % (2 * MIB) ||
	    request.memory < 32 * MIB || request.memory > 1024 * MIB || request.backing > LAB_HUGETLB ||
	    (request.ipa_bits && (request.ipa_bits < 32 || request.ipa_bits > 52))) {
		send_text_answer(id, -EINVAL,
				 "LAB_BOOT has a wrong number: memory 32 MiB to 1 GiB, in units of 2 MiB; a command line of at most 2048 bytes; a known backing; 32 to 52 IPA bits");
		return;
	}
	snprintf(command_line, sizeof(command_line), "%s%.*s", first_words, (int)request.command_line, bytes + sizeof(request));
	failed = make_guest(&request, command_line, bytes + sizeof(request) + request.command_line,
			    length - sizeof(request) - request.command_line);
	if (failed) {
		error = errno;
		free_guest();
		send_text_answer(id, error ? -error : -EIO, "making the guest: %s: %s", failed, strerror(error));
		return;
	}
	guest.boot_id = id;
}

/* --- Watching the guest */

static void watch_boot(void)
{
	uint32_t size;
	int64_t result;

	if (!guest.boot_id || !shared_load(&guest.shared->is_ready))
		return;
	size = guest.shared->report_size;
	result = guest.shared->result;
	send_guest_log();
	send_host_log();
	answer_with_walk(guest.boot_id, result, guest.shared->report, size < SHARED_REPORT_SIZE ? size : SHARED_REPORT_SIZE);
	guest.boot_id = 0;
	guest.active_us = now_us();
}

static void watch_halt(void)
{
	char report[1024];
	int64_t result;
	uint64_t id = guest.halt_id;

	if (!guest.is_halting || !shared_load(&guest.shared->is_halted))
		return;
	finish_calls();
	result = guest.shared->result;
	snprintf(report, sizeof(report), "%.*s", (int)(sizeof(report) - 1), guest.shared->report);
	guest.halt_id = 0;
	end_guest(false);
	send_answer(id, result, NULL, 0, report, strlen(report));
}

/* Whether the vCPU runs, or wants to. KVM sleeps while the guest waits for an interrupt. */
static bool is_running(void)
{
	char path[64], text[128] = "";
	const char *end;
	int file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", guest.tid);
	file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return false;
	if (read(file, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	close(file);
	end = strrchr(text, ')');
	return end && !strncmp(end, ") R", 3);
}

/*
 * Counts the time without a sign of life. A kernel that does not preempt itself has no heartbeat while a module does not end. In a kernel that
 * does, the agent goes on, but the vCPU never waits.
 */
static void watch_heartbeat(void)
{
	uint32_t limit;

	static uint64_t last;
	uint64_t now = now_us();
	uint32_t heartbeat = shared_load(&guest.shared->heartbeat);

	if (now - last < TICK_MS * 1000)
		return;
	last = now;
	if (shared_load(&guest.is_paused)) {
		guest.quiet_ticks = guest.busy_ticks = 0;
		return;
	}
	guest.quiet_ticks = heartbeat == guest.heartbeat ? guest.quiet_ticks + 1 : 0;
	guest.busy_ticks = has_work() && is_running() ? guest.busy_ticks + 1 : 0;
	guest.heartbeat = heartbeat;
	limit = guest.boot_id && !heartbeat ? BOOT_HANG_TICKS : HANG_TICKS;
	if (guest.quiet_ticks >= limit)
		set_reason("the guest hangs: %s for %u seconds",
			   heartbeat ? "its programs did not run" : "its kernel did not reach the first program, and logged nothing", limit * TICK_MS / 1000);
	else if (guest.busy_ticks >= limit)
		set_reason("the guest hangs: %s did not end and kept the CPU for %u seconds",
			   guest.boot_id ? "the boot" : "a call", limit * TICK_MS / 1000);
	else
		return;
	guest.never_began = guest.boot_id && !heartbeat && !guest.has_logged;
	end_guest(true);
}

static void watch_guest(void)
{
	if (!guest.is_there)
		return;
	if (shared_load(&guest.has_ended)) {
		end_guest(true);
		return;
	}
	finish_calls();
	send_guest_log();
	watch_boot();
	watch_halt();
	if (guest.is_there)
		watch_heartbeat();
}

/* --- The host's steps */

static char step_text[1 << 16];
static size_t step_length;

static void __attribute__((format(printf, 1, 2))) observe(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	step_length += vsnprintf(step_text + step_length, sizeof(step_text) - step_length, format, arguments);
	va_end(arguments);
	if (step_length > sizeof(step_text) - 1)
		step_length = sizeof(step_text) - 1;
}

static bool is_in_ram(uint64_t address, uint64_t size)
{
	return address >= guest.base && size <= guest.memory && address - guest.base <= guest.memory - size;
}

static void *host_address(uint64_t address)
{
	return guest.ram + (address - guest.base);
}

/* Copies a word through a pipe: for missing memory, the pipe gives EFAULT instead of a signal. */
static int copy_word(const void *from, void *to)
{
	int ends[2], error = 0;

	if (pipe2(ends, O_NONBLOCK | O_CLOEXEC))
		return -1;
	if (write(ends[1], from, 4) != 4 || read(ends[0], to, 4) != 4)
		error = errno;
	close(ends[0]);
	close(ends[1]);
	errno = error;
	return error ? -1 : 0;
}

static int step_madvise(const char *name, uint64_t address, uint64_t size)
{
	static const struct {
		const char *name;
		int advice;
	} advices[] = {
		{ "dontneed", MADV_DONTNEED },	     { "free", MADV_FREE },
		{ "hugepage", MADV_HUGEPAGE },	     { "nohugepage", MADV_NOHUGEPAGE },
		{ "collapse", MADV_COLLAPSE },	     { "mergeable", MADV_MERGEABLE },
		{ "unmergeable", MADV_UNMERGEABLE }, { "wipeonfork", MADV_WIPEONFORK },
		{ "keeponfork", MADV_KEEPONFORK },   { "populate-read", MADV_POPULATE_READ },
		{ "populate-write", MADV_POPULATE_WRITE },
	};

	for (size_t i = 0; i < sizeof(advices) / sizeof(*advices); i++)
		if (!strcmp(name, advices[i].name))
			return madvise(host_address(address), size, advices[i].advice);
	errno = ENOSYS;
	return -1;
}

/* Starts a child, which shares the pages until one process writes to them. */
static int step_fork(void)
{
	if (guest.child > 0) {
		errno = EBUSY;
		return -1;
	}
	guest.child = fork();
	if (guest.child == 0) {
		close(link_.port);
		for (;;)
			pause();
	}
	return guest.child < 0 ? -1 : 0;
}

static int step_end_fork(void)
{
	if (guest.child <= 0) {
		errno = ECHILD;
		return -1;
	}
	kill(guest.child, SIGKILL);
	waitpid(guest.child, NULL, 0);
	guest.child = 0;
	return 0;
}

static long ksm_scans(void)
{
	char text[32] = "";
	int file = open("/sys/kernel/mm/ksm/full_scans", O_RDONLY | O_CLOEXEC);

	if (file >= 0 && read(file, text, sizeof(text) - 1) > 0)
		file = (close(file), -1);
	if (file >= 0)
		close(file);
	return atol(text);
}

/* KSM merges pages in the second scan that finds them unchanged. One more scan may be in progress already. */
static int step_ksm(void)
{
	const uint64_t limit = now_us() + 3000000; /* without mergeable memory there is no scan at all */
	long start = ksm_scans();

	put("/sys/kernel/mm/ksm/pages_to_scan", "100000");
	put("/sys/kernel/mm/ksm/sleep_millisecs", "1");
	put("/sys/kernel/mm/ksm/run", "1");
	while (now_us() < limit && ksm_scans() < start + 4)
		pause_us(1000);
	put("/sys/kernel/mm/ksm/run", "0");
	errno = ETIMEDOUT;
	return ksm_scans() < start + 4 ? -1 : 0;
}

/* Marks the page at an address as idle, which makes KVM's entry old. */
static int step_age(uint64_t address)
{
	uint64_t entry = 0, bits, frame;
	int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), bitmap, result = -1, error;

	/* A new page waits in a list of the CPU, and idle page tracking ignores this list. This write empties the list. */
	put("/proc/sys/vm/drop_caches", "1");
	if (pagemap < 0)
		return -1;
	if (pread(pagemap, &entry, 8, (uintptr_t)host_address(address) / getpagesize() * 8) != 8)
		entry = 0;
	close(pagemap);
	if (!(entry >> 63)) {
		errno = ENOENT;
		return -1;
	}
	bitmap = open("/sys/kernel/mm/page_idle/bitmap", O_RDWR | O_CLOEXEC);
	if (bitmap < 0)
		return -1;
	frame = entry & ((1ULL << 55) - 1);
	bits = 1ULL << (frame % 64);
	if (pwrite(bitmap, &bits, 8, frame / 64 * 8) == 8)
		result = 0;
	error = errno;
	close(bitmap);
	errno = error;
	return result;
}

static int step_get_dirty_log(void)
{
	uint64_t page = getpagesize(), pages = guest.memory / page;
	uint8_t *bitmap = calloc(1, pages / 8 + 8);
	struct kvm_dirty_log log = { .slot = RAM_SLOT, .dirty_bitmap = bitmap };
	int result = bitmap ? ioctl(guest.vm, KVM_GET_DIRTY_LOG, &log) : -1, error = errno;

	for (uint64_t i = 0, run = 0; !result && i < pages; i += run + 1, run = 0) {
		while (i + run < pages && bitmap[(i + run) / 8] >> ((i + run) % 8) & 1)
			run++;
		if (run == 1)
			observe("  dirty 0x%" PRIx64 "\n", guest.base + i * page);
		else if (run > 1)
			observe("  dirty 0x%" PRIx64 " pages %" PRIu64 "\n", guest.base + i * page, run);
	}
	free(bitmap);
	errno = error;
	return result;
}

static int step_slot(const char *what)
{
	if (!strcmp(what, "delete")) {
		guest.slot_there = false;
		guest.dirty_log = false;
	} else if (!strcmp(what, "add") || !strcmp(what, "add-readonly")) {
		guest.slot_there = true;
		guest.slot_readonly = !strcmp(what, "add-readonly");
	} else if (sscanf(what, "move %" SCNi64, &guest.base) != 1) {
		errno = ENOSYS;
		return -1;
	}
	return set_ram_slot();
}

/* Performs a step while the vCPU does not run. ENOSYS is for a step that is not in the language. */
static int perform_step(char *text)
{
	char what[32] = "", name[32] = "";
	uint64_t address = RAM, number = 0;
	uint32_t value;
	int offset = 0, result;
	bool has_size = false, has_address = true;

	sscanf(text, "%31s %n", what, &offset);
	if (!strcmp(what, "madvise") || !strcmp(what, "mprotect")) {
		sscanf(text + offset, "%31s %" SCNi64 " %" SCNi64, name, &address, &number);
		has_size = true;
	} else {
		sscanf(text + offset, "%" SCNi64 " %" SCNi64, &address, &number);
		has_size = !strcmp(what, "munmap") || !strcmp(what, "mmap");
		has_address = has_size || !strcmp(what, "write") || !strcmp(what, "read") || !strcmp(what, "age");
	}
	if (has_address && !is_in_ram(address, has_size ? number : 4)) {
		errno = EFAULT;
		return -1;
	}
	if (!strcmp(what, "madvise"))
		return step_madvise(name, address, number);
	if (!strcmp(what, "mprotect"))
		return mprotect(host_address(address), number,
				!strcmp(name, "none") ? PROT_NONE : !strcmp(name, "ro") ? PROT_READ : PROT_READ | PROT_WRITE);
	if (!strcmp(what, "munmap"))
		return munmap(host_address(address), number);
	if (!strcmp(what, "mmap"))
		return mmap(host_address(address), number, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
				       MAP_FAILED ?
			       -1 :
			       0;
	if (!strcmp(what, "write")) {
		value = number;
		return copy_word(&value, host_address(address));
	}
	if (!strcmp(what, "read")) {
		result = copy_word(host_address(address), &value);
		if (!result)
			observe("  value 0x%08" PRIx32 "\n", value);
		return result;
	}
	if (!strcmp(what, "fork"))
		return step_fork();
	if (!strcmp(what, "end-fork"))
		return step_end_fork();
	if (!strcmp(what, "ksm"))
		return step_ksm();
	if (!strcmp(what, "age"))
		return step_age(address);
	if (!strcmp(what, "slot"))
		return step_slot(text + offset);
	if (!strcmp(text, "dirty-log get"))
		return step_get_dirty_log();
	if (!strcmp(text, "dirty-log on") || !strcmp(text, "dirty-log off")) {
		guest.dirty_log = !strcmp(text, "dirty-log on");
		return set_ram_slot();
	}
	errno = ENOSYS;
	return -1;
}

static void step(uint64_t id, const uint8_t *bytes, size_t length)
{
	char text[256];
	const char *name;
	int error;

	if (!guest.is_there || guest.boot_id) {
		send_answer(id, -ENODEV, NULL, 0, NULL, 0);
		return;
	}
	if (length >= sizeof(text)) {
		send_answer(id, -EINVAL, NULL, 0, NULL, 0);
		return;
	}
	snprintf(text, sizeof(text), "%.*s", (int)length, bytes);
	if (!pause_vcpu()) {
		resume_vcpu();
		send_text_answer(id, -EBUSY, "the vCPU does not leave KVM_RUN");
		return;
	}
	step_length = 0;
	errno = 0;
	error = perform_step(text) ? errno : 0;
	name = strerrorname_np(error);
	if (error == ENOSYS)
		send_text_answer(id, -EINVAL, "the kernel engine has no step \"host %s\"", text);
	else {
		/* The recorder's order: the result, and then what came. */
		char head[64];
		size_t head_length = snprintf(head, sizeof(head), "  result %s\n", !error ? "0" : name ? name : "?");

		if (step_length + head_length < sizeof(step_text)) {
			memcpy(step_text + step_length, head, head_length);
			step_length += head_length;
		}
		send_host_log();
		send_trace();
		answer_with_walk(id, 0, step_text, step_length);
	}
	resume_vcpu();
}

/* --- Scenarios */

static struct {
	pid_t process; /* of the recorder; 0: it does not run */
	uint64_t id;   /* of the request */
	int output, errors;
	size_t length;
	char messages[2048];
} player = { .output = -1, .errors = -1 };

static struct lines played = { .kind = LAB_PLAYED };

static void become_recorder(int scenario, int output, int errors)
{
	dup2(scenario, STDIN_FILENO);
	dup2(output, STDOUT_FILENO);
	dup2(errors, STDERR_FILENO);
	signal(SIGPIPE, SIG_DFL);
	execl("/recorder", "recorder", "--wait", NULL);
	fprintf(stderr, "/recorder: %s\n", strerror(errno));
	_exit(1);
}

/* The same program makes the recordings of oracle/record, which reserves huge pages at the boot. */
static void play(uint64_t id, const uint8_t *bytes, size_t length)
{
	struct lab_play request;
	int scenario, output[2], errors[2];
	char pages[16];

	if (player.process || length < sizeof(request)) {
		send_answer(id, player.process ? -EBUSY : -EINVAL, NULL, 0, NULL, 0);
		return;
	}
	end_guest(false);
	if (is_broken) {
		send_text_answer(id, -EBUSY, "the last guest's vCPU does not leave KVM_RUN; boot the host again");
		return;
	}
	memcpy(&request, bytes, sizeof(request));
	snprintf(pages, sizeof(pages), "%u", request.huge_pages);
	put("/proc/sys/vm/nr_hugepages", pages);
	scenario = memfd_create("scenario", MFD_CLOEXEC);
	bytes += sizeof(request);
	length -= sizeof(request);
	if (scenario < 0 || write(scenario, bytes, length) != (ssize_t)length || lseek(scenario, 0, SEEK_SET) || pipe2(output, O_CLOEXEC) ||
	    pipe2(errors, O_CLOEXEC)) {
		send_text_answer(id, -errno, "starting the recorder: %s", strerror(errno));
		return;
	}
	player.process = fork();
	if (!player.process)
		become_recorder(scenario, output[1], errors[1]);
	close(scenario);
	close(output[1]);
	close(errors[1]);
	player.output = output[0];
	player.errors = errors[0];
	fcntl(player.output, F_SETFL, O_NONBLOCK);
	fcntl(player.errors, F_SETFL, O_NONBLOCK);
	player.id = id;
	player.length = 0;
}

static void watch_player(void)
{
	char text[1 << 14];
	ssize_t count;
	int status = 0;
	bool has_ended;

	if (!player.process)
		return;
	has_ended = waitpid(player.process, &status, WNOHANG);
	while ((count = read(player.output, text, sizeof(text))) > 0)
		add_text(&played, text, count);
	while (player.length < sizeof(player.messages) &&
	       (count = read(player.errors, player.messages + player.length, sizeof(player.messages) - player.length)) > 0)
		player.length += count;
	send_lines(&played, has_ended);
	if (!has_ended)
		return;
	send_host_log();
	send_answer(player.id, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), NULL, 0, player.messages, player.length);
	close(player.output);
	close(player.errors);
	player.process = 0;
}

/* --- Requests */

static void call(uint64_t id, const uint8_t *bytes, size_t length)
{
	struct lab_call request;
	struct call *new;

	if (length < sizeof(request)) {
		send_answer(id, -EINVAL, NULL, 0, NULL, 0);
		return;
	}
	memcpy(&request, bytes, sizeof(request));
	if (!guest.is_there || guest.boot_id || guest.is_halting) {
		send_answer(id, -ENODEV, NULL, 0, NULL, 0);
		return;
	}
	if (request.operation == LAB_INTERRUPT) {
		interrupt(id, request.argument);
		return;
	}
	if (request.size != length - sizeof(request) || request.size > LAB_MOST_DATA || request.capacity > LAB_MOST_DATA ||
	    request.operation < LAB_OPEN || request.operation > LAB_LOAD) {
		send_answer(id, -EINVAL, NULL, 0, NULL, 0);
		return;
	}
	new = malloc(sizeof(*new) + request.size);
	if (!new) {
		send_answer(id, -ENOMEM, NULL, 0, NULL, 0);
		return;
	}
	new->next = NULL;
	new->id = id;
	new->call = request;
	memcpy(new->data, bytes + sizeof(request), request.size);
	*guest.last = new;
	guest.last = &new->next;
	start_calls();
}

static void halt(uint64_t id)
{
	if (!guest.is_there || guest.is_halting) {
		send_answer(id, -ENODEV, NULL, 0, NULL, 0);
		return;
	}
	if (guest.boot_id) { /* there is no agent yet */
		end_guest(false);
		send_answer(id, 0, NULL, 0, NULL, 0);
		return;
	}
	guest.is_halting = true;
	guest.halt_id = id;
	guest.active_us = now_us();
	shared_store(&guest.shared->is_halting, 1);
	wake_agent();
}

static void handle(const struct lab_frame *frame, const uint8_t *bytes)
{
	uint64_t address;
	uint32_t is_on;

	switch (frame->kind) {
	case LAB_BOOT:
		boot(frame->id, bytes, frame->length);
		break;
	case LAB_CALL:
		call(frame->id, bytes, frame->length);
		break;
	case LAB_WALK:
		if (frame->length != sizeof(address) || !guest.is_there) {
			send_answer(frame->id, guest.is_there ? -EINVAL : -ENODEV, NULL, 0, NULL, 0);
			break;
		}
		memcpy(&address, bytes, sizeof(address));
		send_answer(frame->id, 0, visits, walk(address, false), NULL, 0);
		break;
	case LAB_TABLES:
		if (!guest.is_there)
			send_answer(frame->id, -ENODEV, NULL, 0, NULL, 0);
		else
			send_answer(frame->id, 0, visits, walk(0, true), NULL, 0);
		break;
	case LAB_STEP:
		step(frame->id, bytes, frame->length);
		break;
	case LAB_TRACE:
		if (frame->length != sizeof(is_on)) {
			send_answer(frame->id, -EINVAL, NULL, 0, NULL, 0);
			break;
		}
		memcpy(&is_on, bytes, sizeof(is_on));
		set_trace(is_on);
		send_answer(frame->id, 0, NULL, 0, NULL, 0);
		break;
	case LAB_HALT:
		halt(frame->id);
		break;
	case LAB_PLAY:
		play(frame->id, bytes, frame->length);
		break;
	default:
		send_answer(frame->id, -ENOSYS, NULL, 0, NULL, 0);
	}
}

/* Reads what has come, and handles whole frames. */
static void serve_port(void)
{
	struct lab_frame frame;

	for (;;) {
		size_t wanted = sizeof(frame);
		ssize_t count;

		if (link_.length >= sizeof(frame)) {
			memcpy(&frame, link_.input, sizeof(frame));
			if (frame.length > LAB_MOST_BYTES) {
				/* There is no way to find the next frame. */
				send_host_log();
				fprintf(stderr, "monitor: a frame of %u bytes\n", frame.length);
				sync();
				reboot(RB_POWER_OFF);
			}
			wanted += frame.length;
		}
		if (link_.length == wanted && wanted >= sizeof(frame) && link_.length >= sizeof(frame)) {
			handle(&frame, link_.input + sizeof(frame));
			link_.length = 0;
			continue;
		}
		if (wanted > link_.room) {
			uint8_t *larger = realloc(link_.input, wanted + 65536);

			if (!larger) {
				fprintf(stderr, "monitor: no memory for a frame of %zu bytes\n", wanted);
				reboot(RB_POWER_OFF);
				return;
			}
			link_.input = larger;
			link_.room = wanted + 65536;
		}
		count = read(link_.port, link_.input + link_.length, wanted - link_.length);
		if (count <= 0)
			return; /* nothing has come, or the daemon is not there */
		link_.length += count;
	}
}

/* --- The host */

static void mount_all(void)
{
	static const char *const mounts[][2] = {
		{ "devtmpfs", "/dev" },	  { "proc", "/proc" }, { "sysfs", "/sys" },
		{ "debugfs", "/sys/kernel/debug" }, { "tmpfs", "/tmp" }, { "tracefs", "/sys/kernel/tracing" },
	};

	for (size_t i = 0; i < sizeof(mounts) / sizeof(*mounts); i++) {
		mkdir(mounts[i][1], 0755);
		mount(mounts[i][0], mounts[i][1], mounts[i][0], 0, NULL);
	}
}

/* The kernel's thread for huge pages scans when the first process asks for huge pages and has a page, and then sleeps for the time below. */
static void occupy_khugepaged(void)
{
	char *area = mmap(NULL, 4 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (area != MAP_FAILED && !madvise(area, 4 * MIB, MADV_HUGEPAGE))
		area[2 * MIB] = 1;
}

/* The same settings as for recordings: only a step moves, merges or splits the guest's memory. */
static void set_up_memory(void)
{
	put("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
	put("/sys/kernel/mm/transparent_hugepage/defrag", "always");
	put("/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs", "4000000000");
	put("/sys/kernel/mm/transparent_hugepage/khugepaged/pages_to_scan", "1");
	put("/proc/sys/vm/compaction_proactiveness", "0");
	put("/proc/sys/vm/watermark_boost_factor", "0");
	put("/sys/kernel/mm/ksm/stable_node_chains_prune_millisecs", "100000000");
	/* Later writes are not logged. */
	put("/proc/sys/vm/drop_caches", "4");
	occupy_khugepaged();
}

/* The port with the name LAB_PORT. */
static int open_port(void)
{
	for (int i = 0; i < 100; i++) {
		DIR *directory = opendir("/sys/class/virtio-ports");
		struct dirent *entry;

		while (directory && (entry = readdir(directory))) {
			char path[320], name[64] = "";
			int file;

			snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry->d_name);
			file = open(path, O_RDONLY | O_CLOEXEC);
			if (file < 0)
				continue;
			if (read(file, name, sizeof(name) - 1) > 0)
				name[strcspn(name, "\n")] = 0;
			close(file);
			if (strcmp(name, LAB_PORT))
				continue;
			snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
			closedir(directory);
			return open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
		}
		if (directory)
			closedir(directory);
		usleep(10000);
	}
	errno = ENODEV;
	return -1;
}

/* How long the monitor may sleep if no request comes. */
static void sleep_time(struct timespec *time)
{
	uint64_t quiet = now_us() - guest.active_us;
	long us = 20000;

	if (player.process)
		us = 1000;
	else if (guest.is_there && has_work())
		us = quiet < 3000 ? 50 : quiet < 100000 ? 500 : 3000;
	*time = (struct timespec){ .tv_nsec = us * 1000 };
}

static void fail(const char *what)
{
	fprintf(stderr, "monitor: %s: %s\n", what, strerror(errno));
	sync();
	reboot(RB_POWER_OFF);
	exit(1);
}

static uint32_t rounds; /* of the first thread */
static pid_t first_thread;

static void use_processors(pid_t thread, int first, int last)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	for (int i = first; i <= last; i++)
		CPU_SET(i, &set);
	sched_setaffinity(thread, sizeof(set), &set);
}

/*
 * The vCPU and the first thread share a processor of the host: an emulated processor that has nothing to do is a sleeping thread of QEMU, and it
 * takes long to wake it. If code in the host's KVM does not end, the first thread has to leave this processor.
 */
static void *rescue(void *argument)
{
	uint32_t last = 0, stopped = 0;

	use_processors(0, 1, CPU_SETSIZE - 1);
	for (;;) {
		sleep(1);
		stopped = shared_load(&rounds) == last ? stopped + 1 : 0;
		last = shared_load(&rounds);
		if (stopped == 3)
			use_processors(first_thread, 1, CPU_SETSIZE - 1);
	}
	return argument;
}

int main(void)
{
	pthread_t thread;
	struct sigaction action = { .sa_handler = on_signal };
	struct utsname release;
	uint64_t logs_us = 0;
	int module;

	mount_all();
	prctl(PR_SET_TIMERSLACK, 1000);
	sigaction(SIGUSR1, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	link_.port = open_port();
	if (link_.port < 0)
		fail("the virtio port " LAB_PORT);
	kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	module = open("/observer.ko", O_RDONLY | O_CLOEXEC);
	if (module < 0 || syscall(SYS_finit_module, module, "", 0))
		fail("/observer.ko");
	close(module);
	observer = open("/dev/virt_walker_observer", O_RDWR | O_CLOEXEC);
	if (observer < 0)
		fail("/dev/virt_walker_observer");
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		fail("/dev/kvm");
	visits = mmap(NULL, MOST_VISITS * sizeof(*visits), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (visits == MAP_FAILED)
		fail("memory for visits");
	set_up_memory();
	first_thread = gettid();
	if (pthread_create(&thread, NULL, rescue, NULL))
		fail("a thread");
	use_processors(0, 0, 0);
	uname(&release);
	/* The log comes behind: after a crash, the daemon takes the last lines of the boot before from the console. */
	send_frame(LAB_READY, 0, release.release, strlen(release.release));
	send_host_log();

	for (;;) {
		struct pollfd request = { .fd = link_.port, .events = POLLIN };
		struct timespec time;

		shared_store(&rounds, rounds + 1);
		sleep_time(&time);
		ppoll(&request, 1, &time, NULL);
		if (request.revents & POLLHUP)
			usleep(20000); /* the daemon is not there */
		if (request.revents)
			serve_port();
		watch_guest();
		watch_player();
		/* A call that ends sends them, too. */
		if (now_us() - logs_us > 5000) {
			logs_us = now_us();
			send_host_log();
			send_trace();
			send_alive();
		}
	}
}
