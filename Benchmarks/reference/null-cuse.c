// The smallest character device in libfuse's own loop, to show the cost of any device on CUSE. The device keeps the
// byte that was written last.
//
// usage: null-cuse NAME [--threads]       (until SIGTERM; with --threads by fuse_session_loop_mt)
//
// Prints "ready" when the kernel has taken the device; /dev/NAME appears then.
#define FUSE_USE_VERSION 314
#include <cuse_lowlevel.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <string.h>

#include "loop.h"

static char byte;

static void device_init_done(void *user_data)
{
    (void)user_data;
    puts("ready");
    fflush(stdout);
}

static void device_open(fuse_req_t request, struct fuse_file_info *info)
{
    fuse_reply_open(request, info);
}

static void device_read(fuse_req_t request, size_t size, off_t offset, struct fuse_file_info *info)
{
    (void)size, (void)offset, (void)info;
    fuse_reply_buf(request, &byte, 1);
}

static void device_write(fuse_req_t request, const char *bytes, size_t size, off_t offset, struct fuse_file_info *info)
{
    (void)size, (void)offset, (void)info;
    byte = bytes[0];
    fuse_reply_write(request, 1);
}

int main(int count, char **arguments)
{
    static const struct cuse_lowlevel_ops operations = {
        .init_done = device_init_done, .open = device_open, .read = device_read, .write = device_write};
    char name[128];
    const char *information[] = {name};
    struct cuse_info device = {.dev_info_argc = 1, .dev_info_argv = information};
    char *options[] = {"null-cuse", "-f", NULL};
    struct fuse_session *session;
    int is_multithreaded, result;

    if (count < 2 || (count > 2 && strcmp(arguments[2], "--threads")) ||
        snprintf(name, sizeof(name), "DEVNAME=%s", arguments[1]) >= (int)sizeof(name)) {
        fputs("usage: null-cuse NAME [--threads]\n", stderr);
        return 64;
    }
    // cuse_lowlevel_setup opens /dev/cuse, and prints the reason of an error.
    session = cuse_lowlevel_setup(2, options, &device, &operations, &is_multithreaded, NULL);
    if (!session)
        return 71;
    result = run_loop(session, count > 2);
    cuse_lowlevel_teardown(session);
    return result < 0;
}
