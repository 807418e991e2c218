// libfuse renames and versions its functions by macros, so every import goes through this header.
#ifndef CFUSE_SHIM_H
#define CFUSE_SHIM_H

#define FUSE_USE_VERSION 314

#include <fuse_lowlevel.h>
#include <cuse_lowlevel.h>
#include <stdio.h>

#if FUSE_VERSION < FUSE_MAKE_VERSION(3, 14)
#error "libfuse 3.14 or later is needed: install a newer libfuse3-dev"
#endif

// Later releases of libfuse have these functions as macros, which Swift cannot call.

static inline struct fuse_session *cfuse_session_new(
    struct fuse_args *args, const struct fuse_lowlevel_ops *operations, size_t size, void *user_data)
{
    return fuse_session_new(args, operations, size, user_data);
}

static inline struct fuse_session *ccuse_lowlevel_new(
    struct fuse_args *args, const struct cuse_info *info, const struct cuse_lowlevel_ops *operations,
    void *user_data)
{
    return cuse_lowlevel_new(args, info, operations, user_data);
}

static inline int cfuse_session_custom_io(struct fuse_session *session, const struct fuse_custom_io *io, int descriptor)
{
    return fuse_session_custom_io(session, io, descriptor);
}

// The answer to an open of a file without positions, with the kernel's flag from linux/fuse.h: libfuse has such a flag
// from 3.15 on.
static inline int cfuse_reply_open_stream(fuse_req_t request, uint64_t handle, int wants_flush)
{
    enum { direct_io = 1 << 0, stream = 1 << 4, no_flush = 1 << 5, parallel_direct_writes = 1 << 6 };
    struct {
        uint64_t handle;
        uint32_t flags, padding;
    } answer = { handle, direct_io | stream | parallel_direct_writes | (wants_flush ? 0 : no_flush), 0 };

    return fuse_reply_buf(request, (const char *)&answer, sizeof(answer));
}

// The messages of libfuse come with a va_list, which is a structure on arm64. The compiler of Swift 6.2 crashes on a
// function with such a parameter, so C formats the messages.

typedef void (*cfuse_log_receiver)(const char *message);

// The receiver is in a function, because Swift does not compile variables of a header.
static inline cfuse_log_receiver *cfuse_the_log_receiver(void)
{
    static cfuse_log_receiver receiver;

    return &receiver;
}

static inline void cfuse_log(enum fuse_log_level level, const char *format, va_list arguments)
{
    char message[512];

    (void)level;
    vsnprintf(message, sizeof(message), format, arguments);
    (*cfuse_the_log_receiver())(message);
}

static inline void cfuse_set_log(cfuse_log_receiver receiver)
{
    *cfuse_the_log_receiver() = receiver;
    fuse_set_log_func(cfuse_log);
}

#endif
