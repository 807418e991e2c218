// Linux functions that are missing in Swift's Glibc module.
#ifndef CLINUX_SHIM_H
#define CLINUX_SHIM_H

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/sched.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

// These constants need _GNU_SOURCE, which cannot be set for one module. O_DIRECT differs between architectures.
static const int CLINUX_O_DIRECT = __O_DIRECT;
static const int CLINUX_O_ASYNC = O_ASYNC;
static const int CLINUX_F_SETSIG = 10;
static const int CLINUX_F_GET_SEALS = 1034;
static const int CLINUX_SEEK_DATA = 3;
static const int CLINUX_O_PATH = __O_PATH;
static const short CLINUX_POSIX_SPAWN_SETSID = 0x80;
long syscall(long number, ...);
int setgroups(size_t count, const gid_t *groups);

// Swift does not offer fork, because the child of a process with several threads may call only few functions. Call it
// while the process has one thread.
static inline pid_t clinux_fork(void) { return fork(); }

// prctl(2) and syscall(2) take a variable number of arguments, and Swift cannot call such functions.

static inline int clinux_prctl(int option, unsigned long argument)
{
    return prctl(option, argument, 0UL, 0UL, 0UL);
}

static inline int clinux_set_name(const char *name) { return prctl(PR_SET_NAME, name, 0UL, 0UL, 0UL); }

static inline int clinux_close_range(unsigned int first, unsigned int last)
{
    return syscall(SYS_close_range, first, last, 0U);
}

// A descriptor for one process, even if its pid is reused: pidfd_open(2), pidfd_send_signal(2).

static inline int clinux_pidfd_open(pid_t pid) { return syscall(SYS_pidfd_open, pid, 0U); }

static inline int clinux_pidfd_send_signal(int process, int signal)
{
    return syscall(SYS_pidfd_send_signal, process, signal, (void *)0, 0U);
}

// The capabilities of this thread, as two words of 32 bits each.
static inline int clinux_get_capabilities(struct __user_cap_data_struct *data)
{
    struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };

    return syscall(SYS_capget, &header, data);
}

static inline int clinux_set_capabilities(const struct __user_cap_data_struct *data)
{
    struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };

    return syscall(SYS_capset, &header, data);
}

// struct landlock_ruleset_attr of version 6 of the interface: the headers of the build may be older than the kernel on
// which the program runs.
struct clinux_landlock_rules {
    uint64_t file_system, network, scopes;
};

static inline int clinux_landlock_version(void)
{
    return syscall(SYS_landlock_create_ruleset, (void *)0, 0UL, LANDLOCK_CREATE_RULESET_VERSION);
}

static inline int clinux_landlock_create(const struct clinux_landlock_rules *rules, size_t size)
{
    return syscall(SYS_landlock_create_ruleset, rules, size, 0U);
}

static inline int clinux_landlock_restrict_self(int ruleset)
{
    return syscall(SYS_landlock_restrict_self, ruleset, 0U);
}

// Allows kinds of access to a file, or to all files beneath a directory.
static inline int clinux_landlock_allow(int ruleset, int file, uint64_t access)
{
    struct landlock_path_beneath_attr rule = { .allowed_access = access, .parent_fd = file };

    return syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0U);
}

// Gives this process a network namespace of its own, which has no interface: unshare(2).
static inline int clinux_leave_network(void) { return syscall(SYS_unshare, CLONE_NEWNET); }

// Memory with a descriptor and a fixed size: memfd_create(2), F_ADD_SEALS. No process that gets the descriptor can make the
// memory smaller, which would end all processes that use it by SIGBUS.
static inline int clinux_make_memory(const char *name, off_t size)
{
    const unsigned int cloexec = 1, allow_sealing = 2; // MFD_CLOEXEC, MFD_ALLOW_SEALING
    const int add_seals = 1033, seals = 1 | 2 | 4; // F_ADD_SEALS, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW
    int descriptor = syscall(SYS_memfd_create, name, cloexec | allow_sealing);

    if (descriptor >= 0 && (ftruncate(descriptor, size) != 0 || fcntl(descriptor, add_seals, seals) != 0)) {
        close(descriptor);
        return -1;
    }
    return descriptor;
}

// Messages with descriptors by a socket of AF_UNIX: unix(7). CMSG_DATA and others are macros.

#define CLINUX_DESCRIPTORS 4

static inline ssize_t clinux_send(int socket, const void *data, size_t length, const int *descriptors, size_t count)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(CLINUX_DESCRIPTORS * sizeof(int))];
    } control;
    struct iovec vector = { (void *)data, length };
    struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1 };

    if (count > 0 && count <= CLINUX_DESCRIPTORS) {
        memset(&control, 0, sizeof(control));
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(&control.header), descriptors, count * sizeof(int));
    }
    return sendmsg(socket, &message, MSG_NOSIGNAL);
}

// Receives a message and at most CLINUX_DESCRIPTORS descriptors. Returns its length, 0 at the end, and -1 for an error or a
// message that does not fit.
static inline ssize_t clinux_receive(int socket, void *data, size_t length, int *descriptors, size_t *count)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(CLINUX_DESCRIPTORS * sizeof(int))];
    } control;
    struct iovec vector = { data, length };
    struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
    ssize_t received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);

    *count = 0;
    if (received < 0)
        return -1;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < (part->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int descriptor;

            memcpy(&descriptor, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
            if (*count < CLINUX_DESCRIPTORS)
                descriptors[(*count)++] = descriptor;
            else
                close(descriptor);
        }
    }
    if (!(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
        return received;
    for (size_t i = 0; i < *count; i++)
        close(descriptors[i]);
    *count = 0;
    return -1;
}

// Nanoseconds since the start of the host, without the time of suspension. The function is in C, because Swift would
// take struct timespec from whichever module declares it first.
static inline uint64_t clinux_nanoseconds(clockid_t clock)
{
    struct timespec time;

    clock_gettime(clock, &time);
    return time.tv_sec * UINT64_C(1000000000) + time.tv_nsec;
}

static inline uint64_t clinux_monotonic_nanoseconds(void)
{
    return clinux_nanoseconds(CLOCK_MONOTONIC);
}

// Copies memory that another process can change. The compiler uses the copy from then on, and does not read the memory again.
static inline void clinux_copy_once(void *to, const void *from, size_t size)
{
    memcpy(to, from, size);
    __asm__ volatile("" : : "r"(to) : "memory");
}

// Sends one byte, which wakes the other end. A closed socket and a full one are no errors: the byte only wakes.
static inline void clinux_wake(int socket)
{
    (void)!send(socket, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
}

// Takes the bytes that have come. Returns 0 at the end of the connection, and less than 0 if there is nothing.
static inline ssize_t clinux_take_bytes(int socket)
{
    char bytes[64];

    return recv(socket, bytes, sizeof(bytes), MSG_DONTWAIT);
}

/* CPU time of the calling thread. */
static inline uint64_t clinux_thread_cpu_nanoseconds(void)
{
    return clinux_nanoseconds(CLOCK_THREAD_CPUTIME_ID);
}

#endif
