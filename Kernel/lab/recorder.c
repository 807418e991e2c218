// Runs a scenario on the real KVM and prints the recording: each step, and the observations below the step.
//
// usage: recorder [--trace | --page-tables | --wait] < SCENARIO > RECORDING
//
// With --wait, the output is a pipe, and each step begins after the reader of the pipe has taken the line of the step. So no observation of the
// steps before is lost if a step ends the kernel.
//
// With --trace, on a kernel with CONFIG_EVENT_TRACING, the recorder prints the scenario and then, instead of the
// observations, the kernel's trace of KVM's events, with a mark for each step. With --page-tables, on a kernel with
// CONFIG_PTDUMP_STAGE2_DEBUGFS, the recorder prints the kernel's files about the page tables below each step, and does
// not need the hook.
//
// docs/scenario.md describes the language. The recorder is a virtual machine monitor with one vCPU that runs one
// instruction for each step. The recorder puts the instruction into guest memory, followed by a store that leaves the guest, and
// lets the vCPU run until the store. The kernel with oracle/hook writes the events in between into a trace.
#define _GNU_SOURCE
#include <asm/kvm.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RAM 0x40000000UL
#define CODE 0x80000000UL      // a separate slot for the instruction of a step and for the exception vectors
#define VECTORS (CODE + 0x800) // VBAR_EL1; an exception from EL1 enters at 0x200 above it
#define LEFT 0x0c000000UL      // a store there: the instruction is done
#define EXCEPTION 0x0c000010UL // a store there: the guest took an exception
#define TARGET RAM

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static int line_number;

static void fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fprintf(stderr, "recorder: line %d: ", line_number);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static const char *error_name(int error)
{
    const char *name = strerrorname_np(error);

    return name ? name : "?";
}

// --- The machine

static struct {
    const char *backing;
    uint64_t memory; // bytes
    uint64_t base;   // guest address of the RAM slot
    uint64_t code;   // the guest address of a step's instruction
    int ipa_bits;
    int vm, vcpu;
    struct kvm_run *run;
    uint8_t *ram, *code_page;
    bool slot_there, slot_readonly, dirty_log;
    uint64_t manual_dirty_log; // flags of KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2
    pid_t child; // the child of "host fork"
} machine = {.backing = "anonymous", .memory = 64 << 20, .base = RAM, .code = CODE, .ipa_bits = 40};

enum { RAM_SLOT, CODE_SLOT };

static uint64_t register_id(size_t offset)
{
    return KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | offset / 4;
}

#define X(n) register_id(offsetof(struct kvm_regs, regs.regs[n]))
#define PC register_id(offsetof(struct kvm_regs, regs.pc))
#define VBAR_EL1 ARM64_SYS_REG(3, 0, 12, 0, 0)
#define CPACR_EL1 ARM64_SYS_REG(3, 0, 1, 0, 2)
#define ESR_EL1 ARM64_SYS_REG(3, 0, 5, 2, 0)
#define FAR_EL1 ARM64_SYS_REG(3, 0, 6, 0, 0)

static uint64_t get_register(uint64_t id)
{
    uint64_t value = 0;
    struct kvm_one_reg access = {.id = id, .addr = (uintptr_t)&value};

    if (ioctl(machine.vcpu, KVM_GET_ONE_REG, &access))
        fail("KVM_GET_ONE_REG %" PRIx64 ": %s", id, strerror(errno));
    return value;
}

static void set_register(uint64_t id, uint64_t value)
{
    struct kvm_one_reg access = {.id = id, .addr = (uintptr_t)&value};

    if (ioctl(machine.vcpu, KVM_SET_ONE_REG, &access))
        fail("KVM_SET_ONE_REG %" PRIx64 ": %s", id, strerror(errno));
}

static int set_slot(int slot, uint64_t ipa, uint64_t size, void *memory, uint32_t flags)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot,
        .flags = flags,
        .guest_phys_addr = ipa,
        .memory_size = size,
        .userspace_addr = (uintptr_t)memory,
    };

    return ioctl(machine.vm, KVM_SET_USER_MEMORY_REGION, &region);
}

static int set_ram_slot(void)
{
    uint32_t flags = (machine.dirty_log ? KVM_MEM_LOG_DIRTY_PAGES : 0) |
                     (machine.slot_readonly ? KVM_MEM_READONLY : 0);

    return set_slot(RAM_SLOT, machine.base, machine.slot_there ? machine.memory : 0, machine.ram,
                    machine.slot_there ? flags : 0);
}

// Maps an aligned area of the size, with the memory of the backing.
static void *map_ram(void)
{
    // RAM shares no page table with memory of the recorder. Otherwise such a table could exist before RAM is touched.
    const uint64_t alignment = 1 << 30;
    const uint64_t size = ((machine.memory + alignment - 1) & ~(alignment - 1)) + alignment;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    int file = -1;
    uint8_t *area = mmap(NULL, size, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint8_t *start;

    if (area == MAP_FAILED)
        fail("mmap: %s", strerror(errno));
    start = (uint8_t *)(((uintptr_t)area + alignment - 1) & ~(alignment - 1));
    if (!strcmp(machine.backing, "hugetlb")) {
        flags |= MAP_HUGETLB;
    } else if (!strcmp(machine.backing, "memfd")) {
        file = memfd_create("ram", MFD_CLOEXEC);
        flags = MAP_SHARED;
    } else if (!strcmp(machine.backing, "file")) {
        file = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        flags = MAP_PRIVATE;
    } else if (strcmp(machine.backing, "anonymous") && strcmp(machine.backing, "huge")) {
        fail("no such backing: %s", machine.backing);
    }
    if (file >= 0 && ftruncate(file, machine.memory))
        fail("ftruncate: %s", strerror(errno));
    if (mmap(start, machine.memory, PROT_READ | PROT_WRITE, flags | MAP_FIXED | MAP_NORESERVE,
             file, 0) == MAP_FAILED)
        fail("mmap, backing %s: %s", machine.backing, strerror(errno));
    if (!strcmp(machine.backing, "huge") && madvise(start, machine.memory, MADV_HUGEPAGE))
        fail("madvise: %s", strerror(errno));
    return start;
}

static uint32_t *guest_word(uint64_t address)
{
    if (address >= CODE && address < CODE + 4096)
        return (uint32_t *)(machine.code_page + (address - CODE));
    if (address >= machine.base && address < machine.base + machine.memory)
        return (uint32_t *)(machine.ram + (address - machine.base));
    fail("%" PRIx64 " is not in guest memory", address);
    return NULL;
}

static void on_alarm(int signal) { (void)signal; }

// Writes to the memory of this program that a later step needs: its stack at a signal, and its heap for a bitmap of dirty pages. Otherwise,
// that step would take a frame that the guest has just lost.
static void touch_own_memory(void)
{
    char stack[65536];
    char *heap = malloc(sizeof(stack));

    if (!heap)
        fail("malloc: %s", strerror(errno));
    // The compiler does not leave these out.
    explicit_bzero(stack, sizeof(stack));
    explicit_bzero(heap, sizeof(stack));
    free(heap);
}

// Empties the kernel's batches of pages that are to be put on a list, so that a batch is full at the same step in each boot. A process that
// ends activates the pages of this program's file the first few times.
static void settle_batches(void)
{
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();

        if (child == 0)
            _exit(0);
        waitpid(child, NULL, 0);
    }
    touch_own_memory();
    // MADV_COLD calls lru_add_drain().
    void *page = mmap(NULL, sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED || madvise(page, sysconf(_SC_PAGESIZE), MADV_COLD))
        fail("MADV_COLD: %s", strerror(errno));
    munmap(page, sysconf(_SC_PAGESIZE));
}

static void make_machine(void)
{
    struct kvm_vcpu_init init;
    struct sigaction action = {.sa_handler = on_alarm};
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

    if (kvm < 0)
        fail("/dev/kvm: %s", strerror(errno));
    // Type 0 is 40 bits, and the only type that every CPU has.
    machine.vm = ioctl(kvm, KVM_CREATE_VM,
                       machine.ipa_bits == 40 ? 0 : KVM_VM_TYPE_ARM_IPA_SIZE(machine.ipa_bits));
    if (machine.vm < 0)
        fail("KVM_CREATE_VM, %d bits: %s", machine.ipa_bits, strerror(errno));

    if (machine.manual_dirty_log) {
        struct kvm_enable_cap capability = {.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
                                            .args = {machine.manual_dirty_log}};

        if (ioctl(machine.vm, KVM_ENABLE_CAP, &capability))
            fail("KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: %s", strerror(errno));
    }
    settle_batches();
    machine.ram = map_ram();
    machine.code_page = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    // A fork must affect the guest's RAM, and not the page of the monitor itself.
    madvise(machine.code_page, 65536, MADV_DONTFORK);
    machine.slot_there = true;
    // The size of a slot is a multiple of the host's page size.
    if (set_ram_slot() || set_slot(CODE_SLOT, CODE, sysconf(_SC_PAGESIZE), machine.code_page, 0))
        fail("KVM_SET_USER_MEMORY_REGION: %s", strerror(errno));
    *guest_word(VECTORS + 0x200) = 0xf900015f; // str xzr, [x10]

    machine.vcpu = ioctl(machine.vm, KVM_CREATE_VCPU, 0);
    if (machine.vcpu < 0 || ioctl(machine.vm, KVM_ARM_PREFERRED_TARGET, &init) ||
        ioctl(machine.vcpu, KVM_ARM_VCPU_INIT, &init))
        fail("making the vCPU: %s", strerror(errno));
    machine.run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE,
                       MAP_SHARED, machine.vcpu, 0);
    set_register(VBAR_EL1, VECTORS);
    set_register(CPACR_EL1, 3 << 20); // SIMD instructions do not trap
    sigaction(SIGALRM, &action, NULL);
}

// --- The kernel's files

// The stream for lines of the scenario and for the kernel's own text. Observations go to stdout, which is the same
// stream unless an option suppresses observations.
static FILE *output;

static char trace[1 << 17];

static void write_file(const char *path, const char *text)
{
    int file = open(path, O_WRONLY | O_CLOEXEC);

    if (file < 0 || write(file, text, strlen(text)) < 0)
        fail("%s: %s", path, strerror(errno));
    close(file);
}

static size_t read_file(const char *path, char *text, size_t size)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    size_t length = 0;
    ssize_t count;

    if (file < 0)
        fail("%s: %s", path, strerror(errno));
    while (length < size - 1 && (count = read(file, text + length, size - 1 - length)) > 0)
        length += count;
    close(file);
    text[length] = 0;
    return length;
}

#define OBSERVER "/sys/kernel/debug/virt_walker/"

static bool has_observer = true;

static void empty_trace(void)
{
    if (has_observer)
        write_file(OBSERVER "trace", "0");
}

static void get_trace(void)
{
    size_t length = has_observer ? read_file(OBSERVER "trace", trace, sizeof(trace)) : 0;

    // A guest that hangs writes many lines, and the kernel cuts off the lines without room.
    while (length > 0 && trace[length - 1] != '\n')
        trace[--length] = 0;
}

static int count_aborts(void)
{
    int count = 0;

    for (const char *at = trace; (at = strstr(at, "abort ")); at++)
        count++;
    return count;
}

// Whether the line comes from the store at the end of a step, which is not a part of the step.
static bool is_end_of_step(const char *line)
{
    const char *hpfar = strstr(line, "hpfar=");

    return !strncmp(line, "abort ", 6) && hpfar && strtoull(hpfar + 6, NULL, 16) == LEFT >> 8;
}

// Prints the trace. A guest that hangs repeats the same lines, so each different line is printed once.
static void print_trace(bool is_hung)
{
    const char *seen[64];
    int count = 0;

    for (char *line = strtok(trace, "\n"); line; line = strtok(NULL, "\n")) {
        bool is_new = true;

        if (is_end_of_step(line))
            continue;
        for (int i = 0; is_hung && i < count; i++)
            is_new = is_new && strcmp(seen[i], line);
        if (!is_new)
            continue;
        if (count < 64)
            seen[count++] = line;
        printf("  %s\n", line);
    }
}

// --- The kernel's trace of KVM's events

#define TRACING "/sys/kernel/tracing/"

static bool is_tracing;

static void start_tracing(void)
{
    write_file(TRACING "tracing_on", "0");
    // This size is enough to keep each event of a scenario.
    write_file(TRACING "buffer_size_kb", "16384");
    // An open with O_TRUNC empties the trace.
    close(open(TRACING "trace", O_WRONLY | O_TRUNC | O_CLOEXEC));
    write_file(TRACING "events/kvm/enable", "1");
    write_file(TRACING "tracing_on", "1");
}

// Puts a line of the recorder among the events.
static void __attribute__((format(printf, 1, 2))) mark(const char *format, ...)
{
    char text[320];
    va_list arguments;

    if (!is_tracing)
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    write_file(TRACING "trace_marker", text);
}

static void copy_file(const char *path, const char *indentation)
{
    char line[512];
    FILE *file = fopen(path, "re");

    if (!file)
        fail("%s: %s", path, strerror(errno));
    while (fgets(line, sizeof(line), file))
        fprintf(output, "%s%s", indentation, line);
    fclose(file);
}

static void finish_tracing(void)
{
    write_file(TRACING "tracing_on", "0");
    write_file(TRACING "events/kvm/enable", "0");
    copy_file(TRACING "trace", "");
}

// --- The kernel's own files about stage 2

static bool shows_page_tables;

static void print_page_tables(bool is_first)
{
    static const char *const names[] = {"ipa_range", "stage2_levels", "stage2_page_tables"};
    char path[128];

    if (!shows_page_tables)
        return;
    // The first two files do not change.
    for (int i = is_first ? 0 : 2; i < 3; i++) {
        fprintf(output, "  %s:\n", names[i]);
        snprintf(path, sizeof(path), "/sys/kernel/debug/kvm/%d-%d/%s", getpid(), machine.vm, names[i]);
        copy_file(path, "  ");
    }
}

#define ADDRESS_BITS UINT64_C(0x0000fffffffff000)

// The frames that have letters, in the order of their first use. The numbers of frames differ in each run.
static struct {
    uint64_t address;
    bool is_of_invalid_entry; // only invalid entries have the frame: the letter is for this step only
    bool is_forgotten;
} frames[702];
static int frame_count;

// The guest addresses of the leaves in which a frame was seen.
static struct {
    int frame;
    uint64_t first, last;
} sightings[4096];
static int sighting_count;

static bool is_seen_at(int frame, uint64_t first, uint64_t last)
{
    for (int i = 0; i < sighting_count; i++)
        if (sightings[i].frame == frame && sightings[i].first <= last && first <= sightings[i].last)
            return true;
    return false;
}

static void note_sighting(int frame, uint64_t first, uint64_t last)
{
    for (int i = 0; i < sighting_count; i++)
        if (sightings[i].frame == frame && sightings[i].first == first && sightings[i].last == last)
            return;
    if (sighting_count == sizeof(sightings) / sizeof(*sightings))
        fail("more leaves than can be kept");
    sightings[sighting_count].frame = frame;
    sightings[sighting_count].first = first;
    sightings[sighting_count++].last = last;
}

// Returns the letter of a frame in a leaf for the guest addresses FIRST to LAST.
//
// Linux 5.10 keeps the address of a page in an entry that became invalid. The page can be freed, and the kernel's choice
// of the next page with the frame depends on all of its other work. Therefore, an invalid entry has the letter that a
// valid entry of the same guest address gave to the frame, or a new one.
static const char *frame_letter(uint64_t address, bool is_valid, uint64_t first, uint64_t last)
{
    static char letters[3];
    int i;

    for (i = 0; i < frame_count; i++)
        if (frames[i].address == address && !frames[i].is_forgotten
            && (is_valid ? !frames[i].is_of_invalid_entry : is_seen_at(i, first, last)))
            break;
    if (i == frame_count) {
        if (frame_count == sizeof(frames) / sizeof(*frames))
            fail("more frames than letters");
        frames[frame_count].address = address;
        frames[frame_count++].is_of_invalid_entry = !is_valid;
    }
    note_sighting(i, first, last);
    if (i < 26)
        snprintf(letters, sizeof(letters), "%c", 'A' + i);
    else
        snprintf(letters, sizeof(letters), "%c%c", 'A' + i / 26 - 1, 'A' + i % 26);
    return letters;
}

static uint64_t read_number(const char *path, uint64_t index)
{
    uint64_t number = 0;
    int file = open(path, O_RDONLY | O_CLOEXEC);

    if (file < 0 || pread(file, &number, 8, index * 8) != 8)
        fail("%s: %s", path, strerror(errno));
    close(file);
    return number;
}

// Frees the letters of frames that are no longer in use, and those of invalid entries. A frame that was freed and
// allocated again counts as another frame, because the kernel's choice of frames depends on all of its other work.
static void forget_freed_frames(void)
{
    const uint64_t uptodate = 1 << 3, lru = 1 << 5, anon = 1 << 12, tail = 1 << 16, huge = 1 << 17,
                   zero = 1 << 24;
    const uint64_t page = sysconf(_SC_PAGESIZE);

    for (int i = 0; i < frame_count; i++) {
        uint64_t number = frames[i].address / page, flags;
        bool is_mapped, is_cached;

        if (frames[i].is_of_invalid_entry)
            frames[i].is_forgotten = true;
        if (frames[i].is_forgotten)
            continue;
        flags = read_number("/proc/kpageflags", number);
        is_mapped = read_number("/proc/kpagecount", number) > 0;

        // The pages of a huge page do not have the flags themselves. The first page has them.
        if (flags & tail)
            flags = read_number("/proc/kpageflags", number / (page / 8) * (page / 8));
        is_cached = flags & (uptodate | lru) && !(flags & (anon | huge));
        if (!is_mapped && !is_cached && !(flags & zero))
            frames[i].is_forgotten = true;
    }
}

struct leaf {
    char text[128];
};

// Reads a line such as "level 3 00400000000007ff @A counts 2 2 2". The digits do not contain the frame, which the
// letter replaces.
static struct leaf get_leaf(uint64_t address)
{
    const int page_shift = __builtin_ctzl(sysconf(_SC_PAGESIZE));
    char text[160];
    unsigned level;
    uint64_t entry, last;
    int counts;
    struct leaf leaf = {""};

    if (!has_observer)
        return leaf;
    snprintf(text, sizeof(text), "%" PRIx64, address);
    write_file(OBSERVER "leaf", text);
    read_file(OBSERVER "leaf", text, sizeof(text));
    text[strcspn(text, "\n")] = 0;
    if (sscanf(text, "level %u pte %" SCNx64 " %n", &level, &entry, &counts) < 2)
        fail("unknown leaf: %s", text);
    // A table of level N has an entry for so many addresses.
    last = (UINT64_C(1) << (page_shift + (page_shift - 3) * (3 - level))) - 1;
    snprintf(leaf.text, sizeof(leaf.text), "level %u %016" PRIx64 "%s%s %s", level,
             entry & ~ADDRESS_BITS, entry & ADDRESS_BITS ? " @" : "",
             entry & ADDRESS_BITS
                 ? frame_letter(entry & ADDRESS_BITS, entry & 1, address & ~last, address | last)
                 : "",
             text + counts);
    return leaf;
}

static bool is_in_target_page(uint64_t address)
{
    return (address & -sysconf(_SC_PAGESIZE)) == TARGET;
}

static void print_leaf(uint64_t address, struct leaf before)
{
    struct leaf after = get_leaf(address);

    printf("  leaf 0x%" PRIx64 " %s", address, before.text);
    if (strcmp(before.text, after.text))
        printf(" -> %s", after.text);
    putchar('\n');
}

// --- The guest's steps

// [x1] is the address. w0 or x0 has the data, w2 or x2 is a second register, and x3 is 0.
static const struct instruction {
    const char *text; // with A for the address
    uint32_t word;
    int offset; // the offset of the access from x1
} instructions[] = {
    {"strb w0,[A]", 0x39000020, 0},      {"ldrb w0,[A]", 0x39400020, 0},
    {"strh w0,[A]", 0x79000020, 0},      {"ldrh w0,[A]", 0x79400020, 0},
    {"str w0,[A]", 0xb9000020, 0},       {"ldr w0,[A]", 0xb9400020, 0},
    {"str x0,[A]", 0xf9000020, 0},       {"ldr x0,[A]", 0xf9400020, 0},
    {"ldrsb w0,[A]", 0x39c00020, 0},     {"ldrsb x0,[A]", 0x39800020, 0},
    {"ldrsh w0,[A]", 0x79c00020, 0},     {"ldrsh x0,[A]", 0x79800020, 0},
    {"ldrsw x0,[A]", 0xb9800020, 0},     {"strb wzr,[A]", 0x3900003f, 0},
    {"ldrb wzr,[A]", 0x3940003f, 0},     {"str xzr,[A]", 0xf900003f, 0},
    {"ldr xzr,[A]", 0xf940003f, 0},      {"sturb w0,[A]", 0x38000020, 0},
    {"ldurb w0,[A]", 0x38400020, 0},     {"stur x0,[A]", 0xf8000020, 0},
    {"ldur x0,[A]", 0xf8400020, 0},      {"strb w0,[A,x3]", 0x38236820, 0},
    {"ldrb w0,[A,x3]", 0x38636820, 0},   {"stlrb w0,[A]", 0x089ffc20, 0},
    {"ldarb w0,[A]", 0x08dffc20, 0},     {"stlr w0,[A]", 0x889ffc20, 0},
    {"ldar w0,[A]", 0x88dffc20, 0},      {"stlr x0,[A]", 0xc89ffc20, 0},
    {"ldar x0,[A]", 0xc8dffc20, 0},      {"ldxrb w0,[A]", 0x085f7c20, 0},
    {"ldaxrb w0,[A]", 0x085ffc20, 0},    {"ldxr x0,[A]", 0xc85f7c20, 0},
    {"stxrb w2,w0,[A]", 0x08027c20, 0},  {"stxr w2,x0,[A]", 0xc8027c20, 0},
    {"strb w0,[A],#1", 0x38001420, 0},   {"ldrb w0,[A],#1", 0x38401420, 0},
    {"strb w0,[A]!", 0x38001c20, 1},     {"ldrb w0,[A]!", 0x38401c20, 1},
    {"stp w0,w2,[A]", 0x29000820, 0},    {"ldp w0,w2,[A]", 0x29400820, 0},
    {"stp x0,x2,[A]", 0xa9000820, 0},    {"ldp x0,x2,[A]", 0xa9400820, 0},
    {"str b0,[A]", 0x3d000020, 0},       {"ldr b0,[A]", 0x3d400020, 0},
    {"str d0,[A]", 0xfd000020, 0},       {"ldr d0,[A]", 0xfd400020, 0},
    {"str q0,[A]", 0x3d800020, 0},       {"ldr q0,[A]", 0x3dc00020, 0},
    {"prfm pldl1keep,[A]", 0xf9800020, 0},
};

// Finds the instruction with the text, and the address in its brackets.
static const struct instruction *find_instruction(const char *text, uint64_t *address)
{
    char pattern[64];
    const char *open = strchr(text, '[');
    char *end;

    if (!open)
        return NULL;
    *address = strtoull(open + 1, &end, 0);
    if (end == open + 1)
        return NULL;
    snprintf(pattern, sizeof(pattern), "%.*s[A%s", (int)(open - text), text, end);
    for (size_t i = 0; i < sizeof(instructions) / sizeof(*instructions); i++)
        if (!strcmp(pattern, instructions[i].text))
            return &instructions[i];
    return NULL;
}

enum outcome { LEFT_GUEST, TOOK_EXCEPTION, MMIO, HUNG, ERROR, OTHER_EXIT };

// Lets the vCPU run until it exits to the monitor. A guest that does not exit, and takes one abort after another,
// hangs.
static enum outcome run_guest(void)
{
    // Traces are for human readers, who need only a few repetitions of a guest that hangs.
    const struct itimerval limit = {.it_value.tv_usec = is_tracing ? 5000 : 50000};
    const int hang = is_tracing ? 10 : 100; // aborts, or interruptions if aborts are not counted
    const struct itimerval off = {};
    int result, error, interruptions = 0;

    do {
        setitimer(ITIMER_REAL, &limit, NULL);
        result = ioctl(machine.vcpu, KVM_RUN, 0);
        error = errno;
        setitimer(ITIMER_REAL, &off, NULL);
        get_trace();
        interruptions++;
        // On a slow machine, the time may run out for a guest that does not hang.
    } while (result < 0 && error == EINTR && (has_observer ? count_aborts() : interruptions) < hang);
    errno = error;
    if (result < 0)
        return error == EINTR ? HUNG : ERROR;
    if (machine.run->exit_reason != KVM_EXIT_MMIO)
        return OTHER_EXIT;
    if (machine.run->mmio.is_write && machine.run->mmio.phys_addr == LEFT)
        return LEFT_GUEST;
    if (machine.run->mmio.is_write && machine.run->mmio.phys_addr == EXCEPTION)
        return TOOK_EXCEPTION;
    return MMIO;
}

// Completes an MMIO exit. Otherwise the completion would overwrite registers that are set next, and move the PC.
static void complete_mmio(void)
{
    machine.run->immediate_exit = 1;
    if (!ioctl(machine.vcpu, KVM_RUN, 0) || errno != EINTR)
        fail("completing an MMIO exit: %s", strerror(errno));
    machine.run->immediate_exit = 0;
}

static void print_mmio(void)
{
    uint64_t data = 0;

    memcpy(&data, machine.run->mmio.data, machine.run->mmio.len);
    printf("mmio %s 0x%" PRIx64 " len %u", machine.run->mmio.is_write ? "write" : "read",
           (uint64_t)machine.run->mmio.phys_addr, machine.run->mmio.len);
    if (machine.run->mmio.is_write)
        printf(" data 0x%" PRIx64, data);
}

// Runs the instruction at `at`, followed by the store that leaves the guest.
static void guest_step(uint64_t at, uint64_t address, bool has_address)
{
    struct leaf target = get_leaf(TARGET);
    struct leaf touched = get_leaf(has_address ? address : TARGET);
    enum outcome outcome;
    uint64_t pc, x0, esr;
    int error;

    set_register(X(9), LEFT);
    set_register(X(10), EXCEPTION);
    set_register(PC, at);
    empty_trace();
    outcome = run_guest();
    error = errno;
    pc = get_register(PC);
    x0 = get_register(X(0));

    printf("  run ");
    switch (outcome) {
    case LEFT_GUEST:
        printf("retired");
        break;
    case TOOK_EXCEPTION:
        esr = get_register(ESR_EL1);
        printf("exception esr_el1=%08" PRIx64, esr);
        if ((esr >> 26 & 0x38) == 0x20) // an abort has an address
            printf(" far_el1=%016" PRIx64, get_register(FAR_EL1));
        break;
    case MMIO:
        print_mmio();
        break;
    case HUNG:
        printf("hung");
        break;
    case ERROR:
        printf("error %s", error_name(error));
        break;
    case OTHER_EXIT: // a user's hook has returned 0, and has set no exit reason
        printf("exit %u", machine.run->exit_reason);
        break;
    }
    if (outcome != TOOK_EXCEPTION)
        printf(" pc %+" PRId64, (int64_t)(pc - at));
    printf(" x0 0x%" PRIx64, x0);
    if (outcome == MMIO && !machine.run->mmio.is_write) {
        // The bytes of the VMM's answer have the sign bit set, so that a sign extension is visible.
        for (int i = 0; i < 8; i++)
            machine.run->mmio.data[i] = 0x81 + i;
        complete_mmio();
        printf(" then 0x%" PRIx64, get_register(X(0)));
    } else if (outcome == LEFT_GUEST || outcome == TOOK_EXCEPTION || outcome == MMIO) {
        complete_mmio();
    }
    putchar('\n');
    print_trace(outcome == HUNG);
    print_leaf(TARGET, target);
    if (has_address && !is_in_target_page(address))
        print_leaf(address, touched);
}

static void guest(char *text)
{
    uint64_t address, x0 = 0;
    const struct instruction *instruction;
    char *value = strstr(text, " x0=");

    if (value) {
        *value = 0;
        x0 = strtoull(value + 4, NULL, 0);
    }
    set_register(X(0), x0);
    set_register(X(2), 0);
    set_register(X(3), 0);
    if (!strncmp(text, "fetch ", 6)) {
        address = strtoull(text + 6, NULL, 0);
        guest_step(address, address, address < (1ULL << machine.ipa_bits));
        return;
    }
    instruction = find_instruction(text, &address);
    if (!instruction)
        fail("no such instruction: %s", text);
    *guest_word(machine.code) = instruction->word;
    *guest_word(machine.code + 4) = 0xf900013f; // str xzr, [x9]
    set_register(X(1), address - instruction->offset);
    guest_step(machine.code, address, address < (1ULL << machine.ipa_bits));
}

// --- The host's steps

static void *host_address(uint64_t ipa) { return machine.ram + (ipa - machine.base); }

// Copies a word through a pipe: for missing memory, the pipe gives EFAULT instead of a signal.
static int copy_word(const uint32_t *from, uint32_t *to)
{
    int ends[2];
    int result;

    if (pipe(ends))
        fail("pipe: %s", strerror(errno));
    result = write(ends[1], from, 4) == 4 && read(ends[0], to, 4) == 4 ? 0 : -1;
    close(ends[0]);
    close(ends[1]);
    return result;
}

static int host_write(uint64_t address, uint32_t value)
{
    return copy_word(&value, guest_word(address));
}

static int host_read(uint64_t address)
{
    uint32_t value;
    int result = copy_word(guest_word(address), &value);

    if (!result)
        printf("  value 0x%08" PRIx32 "\n", value);
    return result;
}

static const struct {
    const char *name;
    int advice;
} advices[] = {
    {"dontneed", MADV_DONTNEED},         {"free", MADV_FREE},
    {"hugepage", MADV_HUGEPAGE},         {"nohugepage", MADV_NOHUGEPAGE},
    {"collapse", MADV_COLLAPSE},         {"mergeable", MADV_MERGEABLE},
    {"unmergeable", MADV_UNMERGEABLE},   {"wipeonfork", MADV_WIPEONFORK},
    {"keeponfork", MADV_KEEPONFORK},     {"populate-read", MADV_POPULATE_READ},
    {"populate-write", MADV_POPULATE_WRITE},
};

static int host_madvise(const char *name, uint64_t address, uint64_t size)
{
    for (size_t i = 0; i < sizeof(advices) / sizeof(*advices); i++)
        if (!strcmp(name, advices[i].name))
            return madvise(host_address(address), size, advices[i].advice);
    fail("no such advice: %s", name);
    return -1;
}

static int host_mprotect(const char *name, uint64_t address, uint64_t size)
{
    int protection = !strcmp(name, "none") ? PROT_NONE
                     : !strcmp(name, "ro") ? PROT_READ
                                           : PROT_READ | PROT_WRITE;

    return mprotect(host_address(address), size, protection);
}

// Starts a child, which shares the pages until one process writes to them. The child only waits to be ended.
static int host_fork(void)
{
    fflush(stdout);
    machine.child = fork();
    if (machine.child == 0) {
        pause();
        _exit(0);
    }
    if (machine.child < 0)
        return -1;
    // The child shares the pages, so that this program gets copies now.
    touch_own_memory();
    return 0;
}

static int host_end_fork(void)
{
    if (machine.child <= 0)
        fail("nothing was forked");
    kill(machine.child, SIGKILL);
    waitpid(machine.child, NULL, 0);
    machine.child = 0;
    return 0;
}

static long ksm_scans(void)
{
    char text[32];

    read_file("/sys/kernel/mm/ksm/full_scans", text, sizeof(text));
    return atol(text);
}

// KSM merges pages in the second scan that finds them unchanged. One more scan may be in progress already.
static int host_ksm(void)
{
    const time_t limit = time(NULL) + 3; // without mergeable memory there is no scan at all
    long start = ksm_scans();

    write_file("/sys/kernel/mm/ksm/pages_to_scan", "100000");
    write_file("/sys/kernel/mm/ksm/sleep_millisecs", "1");
    // The speed of this machine must not decide which chains of equal pages are examined as a whole.
    write_file("/sys/kernel/mm/ksm/stable_node_chains_prune_millisecs", "100000000");
    write_file("/sys/kernel/mm/ksm/run", "1");
    while (time(NULL) < limit && ksm_scans() < start + 4)
        usleep(1000);
    write_file("/sys/kernel/mm/ksm/run", "0");
    errno = ETIMEDOUT;
    return ksm_scans() < start + 4 ? -1 : 0;
}

// Marks the page at an address as idle by idle page tracking, which makes KVM's entry old.
static int host_age(uint64_t address)
{
    uint64_t page = (uintptr_t)host_address(address) / sysconf(_SC_PAGESIZE);
    uint64_t entry = read_number("/proc/self/pagemap", page);
    uint64_t bits, frame;
    int bitmap = open("/sys/kernel/mm/page_idle/bitmap", O_RDWR | O_CLOEXEC);

    // A new page waits in a list of the CPU, and idle page tracking ignores this list. This write empties the list.
    write_file("/proc/sys/vm/drop_caches", "1");
    if (bitmap < 0)
        fail("page_idle: %s", strerror(errno));
    if (!(entry >> 63)) { // no page is mapped
        close(bitmap);
        errno = ENOENT;
        return -1;
    }
    frame = entry & ((1ULL << 55) - 1);
    bits = 1ULL << (frame % 64);
    if (pwrite(bitmap, &bits, 8, frame / 64 * 8) != 8)
        fail("page_idle: %s", strerror(errno));
    close(bitmap);
    return 0;
}

// For a machine with dirty-log=manual or initially-set: makes the range clean and write-protected.
static int host_clear_dirty_log(const char *range)
{
    uint64_t page = sysconf(_SC_PAGESIZE), address, size;
    struct kvm_clear_dirty_log clear = {.slot = RAM_SLOT};
    uint8_t *bitmap;
    int result;

    if (sscanf(range, "%" SCNi64 " %" SCNi64, &address, &size) != 2)
        fail("dirty-log clear takes an address and a size");
    bitmap = malloc(size / page / 8 + 8);
    memset(bitmap, 0xff, size / page / 8 + 8);
    clear.first_page = (address - machine.base) / page;
    clear.num_pages = size / page;
    clear.dirty_bitmap = bitmap;
    result = ioctl(machine.vm, KVM_CLEAR_DIRTY_LOG, &clear);
    free(bitmap);
    return result;
}

static int host_dirty_log(const char *what)
{
    uint64_t page = sysconf(_SC_PAGESIZE);
    uint8_t *bitmap;
    struct kvm_dirty_log log = {.slot = RAM_SLOT};
    int result;

    if (!strcmp(what, "on") || !strcmp(what, "off")) {
        machine.dirty_log = !strcmp(what, "on");
        return set_ram_slot();
    }
    if (!strncmp(what, "clear ", 6))
        return host_clear_dirty_log(what + 6);
    if (strcmp(what, "get"))
        fail("no such dirty-log: %s", what);
    bitmap = calloc(1, machine.memory / page / 8 + 8);
    log.dirty_bitmap = bitmap;
    result = ioctl(machine.vm, KVM_GET_DIRTY_LOG, &log);
    for (uint64_t i = 0, run = 0; !result && i < machine.memory / page; i += run + 1, run = 0) {
        while (i + run < machine.memory / page && bitmap[(i + run) / 8] >> ((i + run) % 8) & 1)
            run++;
        if (run == 1)
            printf("  dirty 0x%" PRIx64 "\n", machine.base + i * page);
        else if (run > 1)
            printf("  dirty 0x%" PRIx64 " pages %" PRIu64 "\n", machine.base + i * page, run);
    }
    free(bitmap);
    return result;
}

static int host_slot(const char *what)
{
    if (!strcmp(what, "delete")) {
        machine.slot_there = false;
        machine.dirty_log = false;
    } else if (!strcmp(what, "add") || !strcmp(what, "add-readonly")) {
        machine.slot_there = true;
        machine.slot_readonly = !strcmp(what, "add-readonly");
    } else if (sscanf(what, "move %" SCNi64, &machine.base) == 1) {
        return set_ram_slot();
    } else {
        fail("no such slot step: %s", what);
    }
    return set_ram_slot();
}

static void host(char *text)
{
    struct leaf target = get_leaf(TARGET), touched = target;
    char what[32] = "", name[32] = "";
    uint64_t address = TARGET, number = 0;
    int result = 0, offset = 0;

    sscanf(text, "%31s %n", what, &offset);
    if (!strcmp(what, "madvise") || !strcmp(what, "mprotect"))
        sscanf(text + offset, "%31s %" SCNi64 " %" SCNi64, name, &address, &number);
    else
        sscanf(text + offset, "%" SCNi64 " %" SCNi64, &address, &number);
    touched = get_leaf(address);
    empty_trace();
    errno = 0;

    if (!strcmp(what, "madvise"))
        result = host_madvise(name, address, number);
    else if (!strcmp(what, "mprotect"))
        result = host_mprotect(name, address, number);
    else if (!strcmp(what, "munmap"))
        result = munmap(host_address(address), number);
    else if (!strcmp(what, "mmap"))
        result = mmap(host_address(address), number, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED ? -1 : 0;
    else if (!strcmp(what, "write"))
        result = host_write(address, number);
    else if (!strcmp(what, "read"))
        result = host_read(address);
    else if (!strcmp(what, "fork"))
        result = host_fork();
    else if (!strcmp(what, "end-fork"))
        result = host_end_fork();
    else if (!strcmp(what, "ksm"))
        result = host_ksm();
    else if (!strcmp(what, "age"))
        result = host_age(address);
    else if (!strcmp(what, "dirty-log"))
        result = host_dirty_log(text + offset);
    else if (!strcmp(what, "slot"))
        result = host_slot(text + offset);
    else
        fail("no such step: host %s", text);

    printf("  result %s\n", result ? error_name(errno) : "0");
    get_trace();
    print_trace(false);
    print_leaf(TARGET, target);
    if (!is_in_target_page(address))
        print_leaf(address, touched);
}

// --- The scenario

static void machine_line(char *text)
{
    for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) {
        char *value = strchr(word, '=');

        if (!value)
            fail("machine: %s has no value", word);
        *value++ = 0;
        if (!strcmp(word, "backing"))
            machine.backing = strdup(value);
        else if (!strcmp(word, "memory"))
            machine.memory = strtoull(value, NULL, 0) << 20; // in MiB, "64M"
        else if (!strcmp(word, "code"))
            machine.code = strtoull(value, NULL, 0);
        else if (!strcmp(word, "ipa"))
            machine.ipa_bits = atoi(value);
        else if (!strcmp(word, "dirty-log"))
            machine.manual_dirty_log = !strcmp(value, "manual") ? KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE
                                                                : KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE |
                                                                      KVM_DIRTY_LOG_INITIALLY_SET;
        else if (strcmp(word, "kernel") && strcmp(word, "cpu") && strcmp(word, "granule"))
            fail("machine: there is no %s", word);
        // The running kernel and the emulated CPU determine these three.
    }
    make_machine();
    // Events of MMU notifiers have addresses of the monitor.
    mark("machine: RAM 0x%" PRIx64 " size 0x%" PRIx64 " is at %p, code 0x%lx size 0x%lx at %p", machine.base,
         machine.memory, (void *)machine.ram, CODE, sysconf(_SC_PAGESIZE), (void *)machine.code_page);
}

static bool waits_for_reader;

static void wait_for_reader(void)
{
    int left = 0;

    while (waits_for_reader && !ioctl(STDOUT_FILENO, FIONREAD, &left) && left > 0)
        usleep(100);
}

int main(int count, char **arguments)
{
    char line[256];
    int step = 0;

    for (int i = 1; i < count; i++) {
        if (!strcmp(arguments[i], "--trace"))
            is_tracing = true;
        else if (!strcmp(arguments[i], "--page-tables"))
            shows_page_tables = true;
        else if (!strcmp(arguments[i], "--wait"))
            waits_for_reader = true;
        else
            fail("there is no option %s", arguments[i]);
    }
    has_observer = !shows_page_tables;
    output = stdout;
    if (is_tracing || shows_page_tables) {
        output = fdopen(dup(STDOUT_FILENO), "w");
        if (!output || !freopen("/dev/null", "w", stdout))
            fail("stdout: %s", strerror(errno));
    }
    if (is_tracing)
        start_tracing();
    setvbuf(stdout, NULL, _IOLBF, 0);
    setvbuf(output, NULL, _IOLBF, 0);
    while (fgets(line, sizeof(line), stdin)) {
        line_number++;
        line[strcspn(line, "\n")] = 0;
        fprintf(output, "%s\n", line);
        if (!*line || *line == '#')
            continue;
        if (!strncmp(line, "guest ", 6) || !strncmp(line, "host ", 5))
            mark("step %d: %s", step + 1, line);
        if (!strncmp(line, "machine ", 8) && !machine.vm) {
            machine_line(line + 8);
            continue;
        }
        wait_for_reader();
        if (!machine.vm)
            fail("the first line must describe the machine");
        else if (!strncmp(line, "guest ", 6))
            guest(line + 6);
        else if (!strncmp(line, "host ", 5))
            host(line + 5);
        else
            fail("no such step: %s", line);
        forget_freed_frames();
        print_page_tables(step == 0);
        step++;
    }
    mark("end");
    if (machine.child > 0)
        host_end_fork();
    if (is_tracing)
        finish_tracing();
    return 0;
}
