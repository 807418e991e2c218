// The smallest server of a one-byte file in libfuse's own loop, to show the cost of any device on FUSE. The server
// keeps the byte that was written last.
//
// usage: null-fuse FILE [--threads]       (until SIGTERM; with --threads by fuse_session_loop_mt)
//
// Prints "ready" when the file answers. The file must exist.
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loop.h"

static char byte;

static void file_init(void *user_data, struct fuse_conn_info *connection)
{
    (void)user_data;
    connection->want |= FUSE_CAP_ATOMIC_O_TRUNC;
    puts("ready");
    fflush(stdout);
}

static void file_getattr(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *info)
{
    struct stat attributes = {.st_ino = inode, .st_mode = S_IFREG | 0600, .st_nlink = 1};

    (void)info;
    fuse_reply_attr(request, &attributes, 0);
}

static void file_open(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *info)
{
    (void)inode;
    info->direct_io = 1;
    fuse_reply_open(request, info);
}

static void file_read(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset, struct fuse_file_info *info)
{
    (void)inode, (void)size, (void)offset, (void)info;
    fuse_reply_buf(request, &byte, 1);
}

static void file_write(fuse_req_t request, fuse_ino_t inode, const char *bytes, size_t size, off_t offset,
                       struct fuse_file_info *info)
{
    (void)inode, (void)size, (void)offset, (void)info;
    byte = bytes[0];
    fuse_reply_write(request, 1);
}

int main(int count, char **arguments)
{
    static const struct fuse_lowlevel_ops operations = {
        .init = file_init, .getattr = file_getattr, .open = file_open, .read = file_read, .write = file_write};
    char *options[] = {"null-fuse", "-o", "fsname=null-fuse,subtype=null-fuse", NULL};
    struct fuse_args fuse_arguments = FUSE_ARGS_INIT(3, options);
    struct fuse_session *session;
    int result;

    if (count < 2 || (count > 2 && strcmp(arguments[2], "--threads"))) {
        fputs("usage: null-fuse FILE [--threads]\n", stderr);
        return 64;
    }
    session = fuse_session_new(&fuse_arguments, &operations, sizeof(operations), NULL);
    if (!session || fuse_set_signal_handlers(session) || fuse_session_mount(session, arguments[1])) {
        fprintf(stderr, "null-fuse: cannot mount %s: %s\n", arguments[1], strerror(errno));
        return 71;
    }
    result = run_loop(session, count > 2);
    fuse_session_unmount(session);
    fuse_remove_signal_handlers(session);
    fuse_session_destroy(session);
    return result < 0;
}
