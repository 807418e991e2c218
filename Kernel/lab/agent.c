// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * The first process of the guest. The agent loads the user's modules, and makes the system calls that the monitor asks for in the memory of
 * shared.h. Each slot of this memory has a thread.
 *
 * /modules/NAME.ko are the modules, and /modules/NAME.parameters, if it is there, has the parameters of one in a line.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <linux/futex.h>

#include "shared.h"

#define MOST_MODULES 16
#define MOST_NODES 256
#define MOST_FILES 4096
#define MOST_MAPPINGS 128

static struct shared *shared;
static int physical_memory; /* /dev/mem */

static void load_all(void);
static void unload_all(void);

/* --- The slots' threads */

static struct slot {
	pthread_t thread;
	bool has_thread;
	uint32_t work; /* counts the calls; the thread waits for a change */
	pid_t tid;
	uint8_t *buffer;
} slots[SHARED_SLOTS];

static struct open_file {
	bool is_open;
	bool has_position; /* the driver takes pread(2) and pwrite(2) */
} files[MOST_FILES];

static struct open_file *file_of(uint32_t handle)
{
	return handle < MOST_FILES && files[handle].is_open ? &files[handle] : NULL;
}

/* Asks the kernel with an address that it refuses before it calls the driver. */
static bool takes_position(int descriptor, int flags)
{
	void *bad = (void *)-4096;

	if ((flags & O_ACCMODE) == O_WRONLY)
		return pwrite(descriptor, bad, 1, 0) < 0 && errno != ESPIPE;
	return pread(descriptor, bad, 1, 0) < 0 && errno != ESPIPE;
}

static int64_t result_of(int64_t value)
{
	return value < 0 ? -errno : value;
}

static int64_t open_node(const struct lab_call *call, const char *path)
{
	int descriptor = open(path, call->flags | O_CLOEXEC | O_NOCTTY, 0600);

	if (descriptor < 0)
		return -errno;
	if (descriptor >= MOST_FILES) {
		close(descriptor);
		return -EMFILE;
	}
	files[descriptor].has_position = takes_position(descriptor, call->flags);
	files[descriptor].is_open = true;
	return descriptor;
}

static int64_t flush(int descriptor)
{
	int copy = dup(descriptor);

	/* close(2) of any descriptor of a file flushes the file. */
	return copy < 0 ? -errno : result_of(close(copy));
}

static int64_t poll_file(int descriptor, short events, int timeout)
{
	struct pollfd request = { .fd = descriptor, .events = events };
	int count = poll(&request, 1, timeout);

	return count < 0 ? -errno : request.revents;
}

static void load_register(const volatile void *address, uint32_t size, uint64_t *value)
{
	switch (size) {
	case 1:
		__asm__ volatile("ldrb %w0, [%1]" : "=r"(*value) : "r"(address) : "memory");
		break;
	case 2:
		__asm__ volatile("ldrh %w0, [%1]" : "=r"(*value) : "r"(address) : "memory");
		break;
	case 4:
		__asm__ volatile("ldr %w0, [%1]" : "=r"(*value) : "r"(address) : "memory");
		break;
	default:
		__asm__ volatile("ldr %0, [%1]" : "=r"(*value) : "r"(address) : "memory");
	}
}

static void store_register(volatile void *address, uint32_t size, uint64_t value)
{
	switch (size) {
	case 1:
		__asm__ volatile("strb %w0, [%1]" : : "r"(value), "r"(address) : "memory");
		break;
	case 2:
		__asm__ volatile("strh %w0, [%1]" : : "r"(value), "r"(address) : "memory");
		break;
	case 4:
		__asm__ volatile("str %w0, [%1]" : : "r"(value), "r"(address) : "memory");
		break;
	default:
		__asm__ volatile("str %0, [%1]" : : "r"(value), "r"(address) : "memory");
	}
}

/* Accesses a register by one instruction. The kernel maps memory that is no RAM as a device's memory. */
static int64_t access_register(const struct lab_call *call, uint8_t *buffer)
{
	bool is_store = call->command == LAB_STORE_REGISTER;
	uint32_t size = is_store ? call->size : call->capacity;
	uint64_t value = 0, offset = call->argument % 4096;
	uint8_t *page;

	if ((size != 1 && size != 2 && size != 4 && size != 8) || offset % size)
		return -EINVAL;
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, physical_memory, call->argument - offset);
	if (page == MAP_FAILED)
		return -errno;
	memcpy(&value, buffer, is_store ? size : 0);
	if (is_store)
		store_register(page + offset, size, value);
	else
		load_register(page + offset, size, &value);
	memcpy(buffer, &value, size);
	munmap(page, 4096);
	return size;
}

/* Loads or unloads the modules, and leaves the report in the buffer. */
static int64_t change_modules(uint8_t *buffer, void (*change)(void))
{
	change();
	memcpy(buffer, shared->report, shared->report_size);
	return shared->result;
}

/* Makes the call with the data in the buffer, and leaves the data of the answer there. */
static int64_t make_call(const struct lab_call *call, uint8_t *buffer)
{
	struct open_file *file = file_of(call->handle);
	int descriptor = call->handle;

	switch (call->operation) {
	case LAB_OPEN:
		return open_node(call, (char *)buffer);
	case LAB_ACCESS:
		return access_register(call, buffer);
	case LAB_LOAD:
		return change_modules(buffer, load_all);
	case LAB_UNLOAD:
		return change_modules(buffer, unload_all);
	}
	if (!file)
		return -EBADF;
	if (call->bad_buffer)
		buffer = (uint8_t *)16; /* this page is never mapped */
	switch (call->operation) {
	case LAB_RELEASE:
		file->is_open = false;
		return result_of(close(descriptor));
	case LAB_READ:
		if (file->has_position)
			return result_of(pread(descriptor, buffer, call->capacity, call->offset));
		return result_of(read(descriptor, buffer, call->capacity));
	case LAB_WRITE:
		if (file->has_position)
			return result_of(pwrite(descriptor, buffer, call->size, call->offset));
		return result_of(write(descriptor, buffer, call->size));
	case LAB_IOCTL:
		if (call->size || call->capacity)
			return result_of(ioctl(descriptor, call->command, buffer));
		return result_of(ioctl(descriptor, call->command, call->argument));
	case LAB_LSEEK:
		return result_of(lseek(descriptor, call->offset, call->command));
	case LAB_POLL:
		return poll_file(descriptor, call->command, 0);
	case LAB_POLL_WAIT:
		return poll_file(descriptor, call->command, -1);
	case LAB_FLUSH:
		return flush(descriptor);
	case LAB_FSYNC:
		return result_of(fsync(descriptor));
	default:
		return -ENOSYS;
	}
}

static void perform(uint32_t index)
{
	struct shared_slot *request = &shared->slots[index];
	struct lab_call call = request->call;
	uint8_t *data = (uint8_t *)shared + SHARED_DATA + (size_t)index * LAB_MOST_DATA;
	uint8_t *buffer = slots[index].buffer;
	uint32_t filled = call.size;

	/* The buffer has one byte more, for the NUL of a path. */
	memcpy(buffer, data, call.size);
	if (call.operation == LAB_READ || call.operation == LAB_IOCTL || call.operation == LAB_ACCESS)
		filled = call.capacity > call.size ? call.capacity : call.size;
	memset(buffer + call.size, 0, filled - call.size + 1);

	call.name[sizeof(call.name) - 1] = 0;
	prctl(PR_SET_NAME, call.name);
	syscall(SYS_setfsgid, call.group);
	syscall(SYS_setfsuid, call.user);
	request->result = make_call(&call, buffer);

	request->size = 0;
	if (call.operation == LAB_READ && request->result > 0)
		request->size = request->result < call.capacity ? request->result : call.capacity;
	else if (call.operation == LAB_IOCTL || call.operation == LAB_ACCESS)
		request->size = call.capacity;
	else if (call.operation == LAB_LOAD || call.operation == LAB_UNLOAD)
		request->size = shared->report_size;
	memcpy(data, buffer, request->size);
	shared_store(&request->state, SLOT_DONE);
}

static void *slot_thread(void *argument)
{
	uint32_t index = (uintptr_t)argument, done = 0;
	struct slot *slot = &slots[index];

	slot->tid = gettid();
	for (;;) {
		while (shared_load(&slot->work) == done)
			syscall(SYS_futex, &slot->work, FUTEX_WAIT_PRIVATE, done, NULL);
		done++;
		perform(index);
	}
	return NULL;
}

static bool start_thread(uint32_t index)
{
	struct slot *slot = &slots[index];

	if (slot->has_thread)
		return true;
	if (!slot->buffer)
		slot->buffer = mmap(NULL, LAB_MOST_DATA + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	slot->work = 0;
	slot->tid = 0;
	slot->has_thread = slot->buffer != MAP_FAILED &&
			   !pthread_create(&slot->thread, NULL, slot_thread, (void *)(uintptr_t)index);
	return slot->has_thread;
}

static void answer(struct shared_slot *slot, int64_t result)
{
	slot->result = result;
	slot->size = 0;
	shared_store(&slot->state, SLOT_DONE);
}

/* Starts the new calls. Returns whether a call is to be interrupted. */
static bool start_calls(void)
{
	bool has_interrupts = false;

	for (uint32_t i = 0; i < SHARED_SLOTS; i++) {
		struct shared_slot *slot = &shared->slots[i];

		if (shared_load(&slot->state) == SLOT_REQUESTED) {
			shared_store(&slot->state, SLOT_RUNNING);
			if (!start_thread(i)) {
				answer(slot, -ENOMEM);
				continue;
			}
			__atomic_add_fetch(&slots[i].work, 1, __ATOMIC_SEQ_CST);
			syscall(SYS_futex, &slots[i].work, FUTEX_WAKE_PRIVATE, 1);
		}
		/* The signal has no effect before the thread is in the driver, so it is sent until the call is done. */
		if (shared_load(&slot->interrupted) && shared_load(&slot->state) == SLOT_RUNNING) {
			pthread_kill(slots[i].thread, SIGUSR1);
			has_interrupts = true;
		}
	}
	return has_interrupts;
}

/* An oops ends the thread of a call, if the kernel goes on at all. */
static void find_lost_calls(void)
{
	for (uint32_t i = 0; i < SHARED_SLOTS; i++)
		if (slots[i].has_thread && slots[i].tid && shared_load(&shared->slots[i].state) == SLOT_RUNNING &&
		    syscall(SYS_tgkill, getpid(), slots[i].tid, 0) && errno == ESRCH) {
			slots[i].has_thread = false;
			answer(&shared->slots[i], -EIO);
		}
}

static void *beat(void *argument)
{
	for (;;) {
		shared_store(&shared->heartbeat, shared->heartbeat + 1);
		find_lost_calls();
		usleep(200000);
	}
	return argument;
}

static void ignore(int signal)
{
	(void)signal;
}

/* --- The modules and their nodes */

static void report(int64_t result, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	shared->report_size = vsnprintf(shared->report, SHARED_REPORT_SIZE, format, arguments);
	va_end(arguments);
	if (shared->report_size >= SHARED_REPORT_SIZE)
		shared->report_size = SHARED_REPORT_SIZE - 1;
	shared->result = result;
}

static struct module {
	char name[128]; /* without .ko */
	bool is_loaded;
} modules[MOST_MODULES];
static int module_count;
static int load_order[MOST_MODULES], loaded_count;

static bool has_suffix(const char *name, const char *suffix)
{
	size_t length = strlen(name), suffix_length = strlen(suffix);

	return length > suffix_length && !strcmp(name + length - suffix_length, suffix);
}

static int is_module(const struct dirent *entry)
{
	return has_suffix(entry->d_name, ".ko");
}

static void read_text(const char *path, char *text, size_t size)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = file < 0 ? 0 : read(file, text, size - 1);

	text[length > 0 ? length : 0] = 0;
	text[strcspn(text, "\n")] = 0;
	if (file >= 0)
		close(file);
}

static int load_module(const struct module *module)
{
	char path[192], parameters[1024];
	int file, error = 0;

	snprintf(path, sizeof(path), "/modules/%s.parameters", module->name);
	read_text(path, parameters, sizeof(parameters));
	snprintf(path, sizeof(path), "/modules/%s.ko", module->name);
	file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0 || syscall(SYS_finit_module, file, parameters, 0))
		error = errno;
	if (file >= 0)
		close(file);
	return error;
}

/* Loads all modules. A module can need symbols of another one, so it is tried again after others. */
static bool load_modules(void)
{
	struct dirent **entries;
	int count = scandir("/modules", &entries, is_module, alphasort);
	int error = 0, failed = 0;
	bool has_progress = true;

	for (int i = 0; i < count && i < MOST_MODULES; i++)
		snprintf(modules[module_count++].name, sizeof(modules->name), "%.*s", (int)strlen(entries[i]->d_name) - 3,
			 entries[i]->d_name);
	while (has_progress && loaded_count < module_count) {
		has_progress = false;
		for (int i = 0; i < module_count; i++) {
			int result = modules[i].is_loaded ? 0 : load_module(&modules[i]);

			if (result) {
				error = result;
				failed = i;
				/* ENOENT: a symbol is missing. */
				if (result != ENOENT)
					goto out;
			} else if (!modules[i].is_loaded) {
				modules[i].is_loaded = true;
				load_order[loaded_count++] = i;
				has_progress = true;
			}
		}
	}
out:
	if (loaded_count == module_count)
		return true;
	report(-error, "insmod %s.ko: %s%s", modules[failed].name, strerror(error),
	       error == ENOENT ? ": a symbol is in no module and not in the kernel, or its license does not allow it; the guest's log names it"
	       : error == ENOEXEC ? ": the module is for another kernel; the guest's log tells the difference"
				  : "; the guest's log may tell why");
	return false;
}

/* The kernel has _ in a module's name for each - of the file's name. */
static void kernel_name(const struct module *module, char name[128])
{
	strcpy(name, module->name);
	for (char *at = name; *at; at++)
		if (*at == '-')
			*at = '_';
}

/* Unloads the modules, the last one first. */
static void unload_modules(void)
{
	while (loaded_count > 0) {
		char name[128];

		kernel_name(&modules[load_order[loaded_count - 1]], name);
		if (syscall(SYS_delete_module, name, O_NONBLOCK)) {
			report(-errno, "rmmod %s: %s%s", name, strerror(errno),
			       errno == EBUSY	? ": the module has no exit function, or its init has not ended"
			       : errno == EWOULDBLOCK ? ": the module is in use: a file is open, or a call has not ended"
						      : "");
			return;
		}
		loaded_count--;
	}
	report(0, "");
}

static struct node {
	char name[128]; /* below /dev */
	dev_t number;
} nodes[MOST_NODES];
static int node_count;

/* Before the modules were loaded: the number of nodes, the majors, and the physical addresses that are mapped by ioremap() */
static int old_count;
static bool old_majors[512];
static uint64_t old_mappings[MOST_MAPPINGS];
static int old_mapping_count;

/* The nodes that the agent has made for majors */
static char made_nodes[MOST_NODES][64];
static int made_count;

/* Adds the character devices below a directory of /dev. */
static void find_nodes(const char *directory)
{
	char path[256];
	struct dirent *entry;
	struct stat status;
	DIR *stream;

	snprintf(path, sizeof(path), "/dev/%s", directory);
	stream = opendir(path);
	while (stream && (entry = readdir(stream)) && node_count < MOST_NODES) {
		struct node *node = &nodes[node_count];

		if (entry->d_name[0] == '.' ||
		    snprintf(node->name, sizeof(node->name), "%s%s%s", directory, *directory ? "/" : "", entry->d_name) >=
			    (int)sizeof(node->name) ||
		    fstatat(dirfd(stream), entry->d_name, &status, AT_SYMLINK_NOFOLLOW))
			continue;
		if (S_ISDIR(status.st_mode)) {
			char name[128];

			strcpy(name, node->name);
			find_nodes(name);
		} else if (S_ISCHR(status.st_mode)) {
			node->number = status.st_rdev;
			node_count++;
		}
	}
	if (stream)
		closedir(stream);
}

/* Marks the majors of the character devices in /proc/devices, and gives the names of those that are not yet in `known`. */
static int read_majors(bool known[512], char names[512][64])
{
	char line[128];
	int count = 0;
	FILE *file = fopen("/proc/devices", "re");

	while (file && fgets(line, sizeof(line), file) && strncmp(line, "Block", 5)) {
		int major;
		char name[64];

		if (sscanf(line, "%d %63s", &major, name) == 2 && major >= 0 && major < 512 && !known[major]) {
			known[major] = true;
			strcpy(names[major], name);
			count++;
		}
	}
	if (file)
		fclose(file);
	return count;
}

static void add_name(const char *name)
{
	size_t length = strlen(name) + 1;
	char path[256];

	if (shared->report_size + length > SHARED_REPORT_SIZE)
		return;
	/* The daemon's node decides about access. */
	snprintf(path, sizeof(path), "/dev/%s", name);
	chmod(path, 0666);
	memcpy(shared->report + shared->report_size, name, length);
	shared->report_size += length;
}

/* Whether a node was there before the modules. */
static bool is_old(const struct node *node)
{
	for (int i = 0; i < old_count; i++)
		if (!strcmp(node->name, nodes[i].name))
			return true;
	return false;
}

/* Finds the nodes of now. They follow the old ones. */
static void find_new_nodes(void)
{
	node_count = old_count;
	find_nodes("");
}

/* Reports the nodes that were not there before the modules. For a new major without a node, makes a node. */
static void report_nodes(void)
{
	static char names[512][64];
	bool majors[512];

	memcpy(majors, old_majors, sizeof(majors));
	read_majors(majors, names);
	find_new_nodes();
	report(0, "");
	for (int i = old_count; i < node_count; i++) {
		if (is_old(&nodes[i]))
			continue;
		add_name(nodes[i].name);
		if (major(nodes[i].number) < 512)
			majors[major(nodes[i].number)] = false;
	}
	for (int i = 0; i < 512; i++) {
		char path[128];

		if (!majors[i] || old_majors[i] || strchr(names[i], '/'))
			continue;
		snprintf(path, sizeof(path), "/dev/%s", names[i]);
		if (!mknod(path, S_IFCHR | 0600, makedev(i, 0))) {
			add_name(names[i]);
			if (made_count < MOST_NODES)
				strcpy(made_nodes[made_count++], names[i]);
		}
	}
}

/* The physical addresses that are mapped by ioremap(). */
static int read_mappings(uint64_t mappings[MOST_MAPPINGS])
{
	char line[512];
	int count = 0;
	FILE *file = fopen("/proc/vmallocinfo", "re");

	while (file && fgets(line, sizeof(line), file) && count < MOST_MAPPINGS) {
		const char *physical = strstr(line, "phys=");

		if (physical && strstr(line, "ioremap"))
			mappings[count++] = strtoull(physical + strlen("phys="), NULL, 16);
	}
	if (file)
		fclose(file);
	return count;
}

/* --- The things that modules leave behind */

static void __attribute__((format(printf, 1, 2))) add_line(const char *format, ...)
{
	uint32_t room = SHARED_REPORT_SIZE - shared->report_size;
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(shared->report + shared->report_size, room, format, arguments);
	va_end(arguments);
	if (length < (int)room)
		shared->report_size += length;
}

static void add_left_devices(void)
{
	static char names[512][64];
	bool majors[512];

	memcpy(majors, old_majors, sizeof(majors));
	read_majors(majors, names);
	find_new_nodes();
	for (int i = old_count; i < node_count; i++) {
		if (is_old(&nodes[i]))
			continue;
		add_line("device %s\n", nodes[i].name);
		if (major(nodes[i].number) < 512)
			majors[major(nodes[i].number)] = false;
	}
	for (int i = 0; i < 512; i++)
		if (majors[i] && !old_majors[i])
			add_line("device %s\n", names[i]);
}

static void add_left_mappings(void)
{
	uint64_t mappings[MOST_MAPPINGS];
	int count = read_mappings(mappings);

	for (int i = 0; i < count; i++) {
		int difference = 1;

		/* The same address can be mapped more than once. */
		for (int j = 0; j < old_mapping_count; j++)
			difference -= old_mappings[j] == mappings[i];
		for (int j = 0; j < i; j++)
			difference += mappings[j] == mappings[i];
		if (difference > 0)
			add_line("mapping 0x%" PRIx64 "\n", mappings[i]);
	}
}

/* SLUB's list of a cache has lines with a count and a caller. The kernel has no name for a caller in a module that is gone. */
static void add_left_objects(const char *cache)
{
	char path[192], line[512];
	unsigned long all = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/kernel/debug/slab/%s/alloc_traces", cache);
	file = fopen(path, "re");
	if (!file) {
		snprintf(path, sizeof(path), "/sys/kernel/slab/%s/alloc_calls", cache); /* before Linux 5.14 */
		file = fopen(path, "re");
	}
	while (file && fgets(line, sizeof(line), file)) {
		unsigned long count;
		char caller[64];

		if (sscanf(line, "%lu %63s", &count, caller) == 2 && !strncmp(caller, "0xffff", 6))
			all += count;
	}
	if (file)
		fclose(file);
	if (all)
		add_line("memory %lu %s\n", all, cache);
}

static void add_left_memory(void)
{
	DIR *caches = opendir("/sys/kernel/slab");
	struct dirent *entry;

	while (caches && (entry = readdir(caches)))
		if (!strncmp(entry->d_name, "kmalloc-", strlen("kmalloc-")))
			add_left_objects(entry->d_name);
	if (caches)
		closedir(caches);
}

/* Tells the addresses of a module's code, in lines like those of /proc/kallsyms. Reading that file takes seconds in an emulated machine. */
static void tell_addresses(const struct module *module)
{
	char name[128], path[192], address[32];
	struct dirent *entry;
	DIR *sections;

	kernel_name(module, name);
	snprintf(path, sizeof(path), "/sys/module/%s/sections", name);
	sections = opendir(path);
	while (sections && (entry = readdir(sections))) {
		uint32_t room = SHARED_SYMBOLS_SIZE - shared->symbols_size;
		int length;

		if (!strstr(entry->d_name, "text"))
			continue;
		snprintf(path, sizeof(path), "/sys/module/%s/sections/%s", name, entry->d_name);
		read_text(path, address, sizeof(address));
		length = snprintf(shared->symbols + shared->symbols_size, room, "%s t %s [%s]\n", address, entry->d_name, name);
		if (length < (int)room)
			shared->symbols_size += length;
	}
	if (sections)
		closedir(sections);
}

/* --- The agent */

static void load_all(void)
{
	if (load_modules())
		report_nodes();
}

static void close_files(void)
{
	for (int i = 0; i < MOST_FILES; i++)
		if (files[i].is_open) {
			files[i].is_open = false;
			close(i);
		}
}

static void unload_all(void)
{
	close_files();
	unload_modules();
	if (shared->result)
		return;
	memset(modules, 0, sizeof(modules));
	module_count = 0;
	while (made_count > 0) {
		char path[128];

		snprintf(path, sizeof(path), "/dev/%s", made_nodes[--made_count]);
		unlink(path);
	}
	add_left_devices();
	add_left_mappings();
	add_left_memory();
}

static void mount_all(void)
{
	static const char *const mounts[][2] = {
		{ "devtmpfs", "/dev" },
		{ "proc", "/proc" },
		{ "sysfs", "/sys" },
		{ "debugfs", "/sys/kernel/debug" },
		{ "tmpfs", "/tmp" },
	};

	for (size_t i = 0; i < sizeof(mounts) / sizeof(*mounts); i++) {
		mkdir(mounts[i][1], 0755);
		mount(mounts[i][0], mounts[i][1], mounts[i][0], 0, NULL);
	}
}

static void halt(void)
{
	/* The calls end before the files. */
	for (int i = 0; i < 200; i++) {
		bool is_busy = false;

		for (uint32_t j = 0; j < SHARED_SLOTS; j++) {
			if (shared_load(&shared->slots[j].state) != SLOT_RUNNING)
				continue;
			is_busy = true;
			if (slots[j].has_thread)
				pthread_kill(slots[j].thread, SIGUSR1);
		}
		if (!is_busy)
			break;
		usleep(10000);
	}
	close_files();
	unload_modules();
	shared_store(&shared->is_halted, 1);
}

static void serve(int interrupts)
{
	const uint32_t enable = 1;
	uint32_t count;
	bool has_halted = false;

	for (;;) {
		struct pollfd request = { .fd = interrupts, .events = POLLIN };
		bool has_interrupts;

		/* The interrupt is enabled before the monitor may send one, so that it is never masked, which would be an abort. */
		if (write(interrupts, &enable, sizeof(enable)) < 0)
			break;
		shared_store(&shared->is_waiting, 1);
		has_interrupts = start_calls();
		if (shared_load(&shared->is_halting) && !has_halted) {
			has_halted = true;
			halt();
		}
		if ((!has_interrupts || poll(&request, 1, 5) > 0) && read(interrupts, &count, sizeof(count)) < 0)
			break;
	}
}

int main(void)
{
	static char names[512][64];
	struct sigaction action = { .sa_handler = ignore };
	pthread_t thread;
	int interrupts;

	mount_all();
	for (int i = 0; i < 3; i++)
		open("/dev/null", O_RDWR);
	sigaction(SIGUSR1, &action, NULL);
	signal(SIGPIPE, SIG_IGN);

	physical_memory = open("/dev/mem", O_RDWR | O_CLOEXEC);
	shared = mmap(NULL, SHARED_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, physical_memory, SHARED_ADDRESS);
	if (physical_memory < 0 || shared == MAP_FAILED)
		return 1; /* the kernel panics */
	/* All pages are touched now, so that they cause no abort later. */
	for (size_t i = 0; i < SHARED_SIZE; i += 4096)
		(void)((volatile uint8_t *)shared)[i];
	interrupts = open("/dev/uio0", O_RDWR | O_CLOEXEC);
	if (interrupts < 0 || pthread_create(&thread, NULL, beat, NULL))
		return 2;

	find_nodes("");
	old_count = node_count;
	read_majors(old_majors, names);
	old_mapping_count = read_mappings(old_mappings);
	load_all();
	for (int i = 0; i < loaded_count; i++)
		tell_addresses(&modules[load_order[i]]);
	shared_store(&shared->is_ready, 1);
	serve(interrupts);
	return 3;
}
