// A program in the place of QEMU, for tests of the kernel engine: it answers as the monitor in the host does (Kernel/lab/link.h).
//
// Its guest has a device that keeps the last byte. Some words that a client writes have another effect: see write_bytes().
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../Kernel/lab/link.h"

#define LINK 3
#define CONSOLE 4

static uint8_t byte;
static uint32_t next_handle, open_handle;
static bool reads_wait;
static uint64_t waiting; // the id of the read that waits
static bool has_begun; // a guest has booted before
static bool is_slow; // each release takes some time

static void put(int descriptor, const void *bytes, size_t size)
{
    while (size > 0) {
        ssize_t count = write(descriptor, bytes, size);

        if (count <= 0)
            exit(1);
        bytes = (const char *)bytes + count;
        size -= count;
    }
}

static void get(void *bytes, size_t size)
{
    while (size > 0) {
        ssize_t count = read(LINK, bytes, size);

        if (count <= 0)
            exit(0);
        bytes = (char *)bytes + count;
        size -= count;
    }
}

static void frame(enum lab_kind kind, uint64_t id, size_t length)
{
    struct lab_frame frame = {.length = length, .kind = kind, .id = id};

    put(LINK, &frame, sizeof(frame));
}

static void report(enum lab_kind kind, const char *text)
{
    frame(kind, 0, strlen(text));
    put(LINK, text, strlen(text));
}

static void answer(uint64_t id, int64_t result, const void *data, uint32_t size)
{
    struct lab_visit visits[] = {
        {.level = 1, .index = 1, .table = 0x48000000, .entry = 0x48002003, .references = 2, .address = 0x40000000},
        {.level = 2, .table = 0x48002000, .entry = 0x800007fd | (uint64_t)byte << 51, .references = 2, .address = 0x40000000},
    };
    struct lab_answer answer = {.result = result, .visits = 2, .size = size};

    frame(LAB_ANSWER, id, sizeof(answer) + sizeof(visits) + size);
    put(LINK, &answer, sizeof(answer));
    put(LINK, visits, sizeof(visits));
    put(LINK, data, size);
}

static void power_on(void)
{
    static const char line[] = "[    0.000000] Booting a host that is not there\r\n";

    put(CONSOLE, line, sizeof(line) - 1);
    report(LAB_READY, "0.0-fake");
}

// The initramfs of a test is the name of the device.
static void boot(uint64_t id, const uint8_t *payload, uint32_t length)
{
    struct lab_boot boot;
    char name[64] = "";
    uint32_t start;

    memcpy(&boot, payload, sizeof(boot));
    start = sizeof(boot) + boot.command_line;
    memcpy(name, payload + start, length - start < 63 ? length - start : 63);
    byte = 0;
    reads_wait = false;
    report(LAB_GUEST_LOG, "[    1.000000] guest: booted\n");
    if (!strcmp(name, "fails"))
        answer(id, -ENOENT, "insmod: unknown symbol walk", 27);
    else if (!strcmp(name, "never") || (!strcmp(name, "late") && !has_begun))
        answer(id, -ETIME, "the guest hangs\n  pc 0x200", 26);
    else if (!strcmp(name, "several"))
        answer(id, 0, "one\0two", 8);
    else if (!strcmp(name, "none"))
        answer(id, 0, "", 0);
    else
        answer(id, 0, name, strlen(name) + 1);
    has_begun = true;
}

// The driver's write.
static void write_bytes(uint64_t id, const char *data, uint32_t size)
{
    if (!strcmp(data, "wait") || !strcmp(data, "go")) {
        // Each read waits for a signal, or waits no more.
        reads_wait = !strcmp(data, "wait");
        answer(id, size, "", 0);
    } else if (!strcmp(data, "slow")) {
        is_slow = true;
        answer(id, size, "", 0);
    } else if (!strcmp(data, "error")) {
        answer(id, -ENODEV, "", 0);
    } else if (!strcmp(data, "panic")) {
        report(LAB_GUEST_LOG, "[    5.000000] Kernel panic - not syncing: fake\n");
        report(LAB_STOPPED, "the guest's kernel has panicked");
        answer(id, -EIO, "", 0);
    } else if (!strcmp(data, "crash")) {
        // The host's kernel panics, and boots again.
        static const char line[] = "[    6.000000] Unable to handle a fake request\n";

        put(CONSOLE, line, sizeof(line) - 1);
        power_on();
    } else if (!strcmp(data, "exit")) {
        exit(1);
    } else if (!strcmp(data, "malformed")) {
        frame(LAB_ANSWER, id, UINT32_MAX);
    } else if (!strcmp(data, "lie")) {
        // An answer whose lengths do not agree, and one that nobody has asked for.
        struct lab_answer lie = {.result = 3, .visits = UINT32_MAX, .size = UINT32_MAX};

        frame(LAB_ANSWER, UINT64_MAX, 0);
        frame(LAB_ANSWER, id, sizeof(lie));
        put(LINK, &lie, sizeof(lie));
    } else {
        char line[64];

        byte = data[size - 1];
        snprintf(line, sizeof(line), "[    3.000000] guest: write length: %u bytes\n", size);
        report(LAB_GUEST_LOG, line);
        report(LAB_HOST_LOG, "[    4.000000] host: hidden\n");
        report(LAB_TRACE_TEXT, "   vcpu-7   [000] ..... 4.000000: kvm_mmio: fake\n");
        answer(id, size, "", 0);
    }
}

static void call(uint64_t id, const uint8_t *payload)
{
    struct lab_call call;
    const char *data = (const char *)payload + sizeof(call);

    memcpy(&call, payload, sizeof(call));
    switch (call.operation) {
    case LAB_OPEN:
        open_handle = ++next_handle;
        answer(id, open_handle, "", 0);
        break;
    case LAB_RELEASE:
        if (is_slow)
            usleep(300000);
        report(LAB_GUEST_LOG, "[    2.000000] guest: release\n");
        answer(id, 0, "", 0);
        break;
    case LAB_READ:
        if (reads_wait)
            waiting = id;
        else
            answer(id, call.handle == open_handle ? 1 : -EBADF, &byte, call.handle == open_handle);
        break;
    case LAB_WRITE:
        write_bytes(id, data, call.size);
        break;
    case LAB_IOCTL:
        answer(id, 7, data, call.size);
        break;
    case LAB_INTERRUPT:
        if (waiting == call.argument)
            answer(waiting, -EINTR, "", 0);
        waiting = 0;
        answer(id, 0, "", 0);
        break;
    case LAB_POLL:
        answer(id, call.command, "", 0);
        break;
    default:
        answer(id, -EINVAL, "", 0);
    }
}

// The recorder of this host fails at "host age", and the host ends at "host ksm".
static void play(uint64_t id, char *scenario)
{
    static const char failure[] = "recorder: line 4: a fake failure\n";
    const char *message = "";

    for (char *line = strtok(scenario, "\n"); line && !*message; line = strtok(NULL, "\n")) {
        char text[512];

        snprintf(text, sizeof(text), "%s\n", line);
        report(LAB_PLAYED, text);
        if (!strcmp(line, "host ksm"))
            exit(1);
        if (!strncmp(line, "host age", 8))
            message = failure;
        else if (!strncmp(line, "host ", 5))
            report(LAB_PLAYED, "  result 0\n  leaf 0x40000000 level 1 0000000000000000 counts 1\n");
        else if (!strncmp(line, "guest ", 6))
            report(LAB_PLAYED, "  run hung pc +0 x0 0x0\n");
    }
    answer(id, *message ? 1 : 0, message, strlen(message));
}

int main(void)
{
    power_on();
    for (;;) {
        struct lab_frame request;
        uint8_t *payload;

        get(&request, sizeof(request));
        payload = calloc(1, request.length + 1); // data ends with a NUL
        get(payload, request.length);
        switch (request.kind) {
        case LAB_BOOT:
            boot(request.id, payload, request.length);
            break;
        case LAB_CALL:
            call(request.id, payload);
            break;
        case LAB_STEP:
            answer(request.id, 0, "  result 0\n", 11);
            break;
        case LAB_PLAY:
            play(request.id, (char *)payload + sizeof(struct lab_play));
            break;
        case LAB_HALT:
            report(LAB_GUEST_LOG, "[    9.000000] guest: the module is unloaded\n");
            answer(request.id, 0, "", 0);
            break;
        default:
            answer(request.id, 0, "", 0);
        }
        free(payload);
    }
}
