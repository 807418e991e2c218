// Linux functions that are missing in Swift's Glibc module.
#ifndef CLINUX_SHIM_H
#define CLINUX_SHIM_H

#include <fcntl.h>
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/ioctl.h>
#include <linux/landlock.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/stat.h>
#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
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

static inline int clinux_make_file_in_memory(const char *name) { return syscall(SYS_memfd_create, name, 1U /* MFD_CLOEXEC */); }

// A pipe whose ends do not block: pipe2(2) needs _GNU_SOURCE.
static inline int clinux_pipe(int *reading, int *writing)
{
    int ends[2];

    if (syscall(SYS_pipe2, ends, O_CLOEXEC | O_NONBLOCK) != 0)
        return -1;
    *reading = ends[0];
    *writing = ends[1];
    return 0;
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

// The address of a socket in the abstract namespace, which has no file: unix(7).
static inline socklen_t clinux_abstract_address(struct sockaddr_un *address, const char *name)
{
    size_t length = strnlen(name, sizeof(address->sun_path) - 1);

    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path + 1, name, length);
    return offsetof(struct sockaddr_un, sun_path) + 1 + length;
}

// A non-blocking socket for messages that listens at a name, or that is connected to a name.
static inline int clinux_abstract_socket(const char *name, int listens)
{
    int descriptor = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un address;
    socklen_t length = clinux_abstract_address(&address, name);
    int result;

    if (descriptor < 0)
        return -1;
    if (listens)
        result = bind(descriptor, (struct sockaddr *)&address, length) ? -1 : listen(descriptor, 32);
    else
        result = connect(descriptor, (struct sockaddr *)&address, length);
    if (result == 0)
        return descriptor;
    result = errno;
    close(descriptor);
    errno = result;
    return -1;
}

// Accepts a connection, which is non-blocking.
static inline int clinux_accept(int socket)
{
    return syscall(SYS_accept4, socket, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

// The user of the process at the other end of a connection: SO_PEERCRED. -1 if there is none.
static inline int64_t clinux_peer_user(int socket)
{
    struct {
        pid_t pid;
        uid_t uid;
        gid_t gid;
    } peer; // struct ucred
    socklen_t length = sizeof(peer);

    return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 ? (int64_t)peer.uid : -1;
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

// Gives the memory that was freed back to the system. Glibc's Swift module does not have malloc.h.
static inline void clinux_malloc_trim(void)
{
    malloc_trim(0);
}

// System calls of other processes that come to this one: SECCOMP_RET_USER_NOTIF of seccomp(2). The headers of the build may be older
// than the kernel on which the program runs, so newer constants are here by their values.

// Installs a filter, and returns its listener. A call that the listener has received is ended by fatal signals only (Linux 5.19). With
// an older kernel, every signal ends it.
static inline int clinux_install_filter(const void *instructions, size_t size, int *is_killable)
{
    const unsigned int new_listener = 1 << 3, wait_killable = 1 << 5;
    struct sock_fprog program = { size / sizeof(struct sock_filter), (struct sock_filter *)instructions };
    int listener;

    *is_killable = 1;
    listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, new_listener | wait_killable, &program);
    if (listener < 0 && errno == EINVAL) {
        *is_killable = 0;
        listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, new_listener, &program);
    }
    return listener;
}

// Whether the kernel knows such filters, and this process may have some.
static inline int clinux_has_notifications(void)
{
    uint32_t action = SECCOMP_RET_USER_NOTIF;

    return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0U, &action) == 0;
}

// A call of another process that waits for its answer.
struct clinux_notification {
    uint64_t id;
    uint64_t arguments[6];
    int32_t thread;
    int32_t number;
};

static inline int clinux_receive_notification(int listener, struct clinux_notification *received)
{
    struct seccomp_notif notification;

    // The kernel refuses memory that is not zero.
    memset(&notification, 0, sizeof(notification));
    if (syscall(SYS_ioctl, listener, SECCOMP_IOCTL_NOTIF_RECV, &notification) != 0)
        return -1;
    received->id = notification.id;
    memcpy(received->arguments, notification.data.args, sizeof(received->arguments));
    received->thread = notification.pid;
    received->number = notification.data.nr;
    return 0;
}

static inline int clinux_answer_notification(int listener, uint64_t id, int64_t value, int error)
{
    struct seccomp_notif_resp answer = { .id = id, .val = value, .error = -error };

    return syscall(SYS_ioctl, listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
}

// Lets the kernel execute the call.
static inline int clinux_continue_notification(int listener, uint64_t id)
{
    struct seccomp_notif_resp answer = { .id = id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE };

    return syscall(SYS_ioctl, listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
}

// Puts a copy of a descriptor into the process, as the result of its call.
static inline int clinux_answer_descriptor(int listener, uint64_t id, int descriptor, int flags)
{
    const unsigned int send = 1 << 1;
    struct seccomp_notif_addfd answer = { .id = id, .flags = send, .srcfd = descriptor, .newfd_flags = flags };

    return syscall(SYS_ioctl, listener, SECCOMP_IOCTL_NOTIF_ADDFD, &answer);
}

static inline int clinux_notification_is_valid(int listener, uint64_t id)
{
    return syscall(SYS_ioctl, listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

// Lets the kernel run both sides of a call on one processor in turn (Linux 6.6).
static inline void clinux_wake_synchronously(int listener)
{
    (void)syscall(SYS_ioctl, listener, _IOW(SECCOMP_IOC_MAGIC, 4, uint64_t), 1UL);
}

// The memory of another process: process_vm_readv(2), process_vm_writev(2). A part of the memory may be missing, so that the parts end
// at the ends of pages. Both return the number of bytes, and -1 if there are none.

#define CLINUX_PARTS 64

static inline ssize_t clinux_copy_memory(pid_t process, void *own, uint64_t address, size_t count, int writes)
{
    const size_t page = 4096;
    size_t done = 0;

    while (done < count) {
        struct iovec parts[CLINUX_PARTS], local;
        size_t number = 0, size = 0;
        ssize_t copied;

        while (number < CLINUX_PARTS && done + size < count) {
            uint64_t at = address + done + size;
            size_t part = page - at % page;

            if (part > count - done - size)
                part = count - done - size;
            parts[number++] = (struct iovec){ (void *)(uintptr_t)at, part };
            size += part;
        }
        local = (struct iovec){ (char *)own + done, size };
        copied = syscall(writes ? SYS_process_vm_writev : SYS_process_vm_readv, process, &local, 1UL, parts, number, 0UL);
        if (copied <= 0)
            return done > 0 ? (ssize_t)done : -1;
        done += copied;
        if ((size_t)copied < size)
            break;
    }
    return done;
}

// The answer to statx(2), from the attributes of stat(2).
static inline void clinux_make_statx(const struct stat *from, uint32_t major, uint32_t minor, void *answer)
{
    struct statx *to = answer;

    memset(to, 0, sizeof(*to));
    to->stx_mask = STATX_BASIC_STATS;
    to->stx_blksize = from->st_blksize;
    to->stx_nlink = from->st_nlink;
    to->stx_uid = from->st_uid;
    to->stx_gid = from->st_gid;
    to->stx_mode = from->st_mode;
    to->stx_ino = from->st_ino;
    to->stx_atime = (struct statx_timestamp){ .tv_sec = from->st_atim.tv_sec, .tv_nsec = from->st_atim.tv_nsec };
    to->stx_mtime = (struct statx_timestamp){ .tv_sec = from->st_mtim.tv_sec, .tv_nsec = from->st_mtim.tv_nsec };
    to->stx_ctime = (struct statx_timestamp){ .tv_sec = from->st_ctim.tv_sec, .tv_nsec = from->st_ctim.tv_nsec };
    to->stx_rdev_major = major;
    to->stx_rdev_minor = minor;
    to->stx_dev_major = gnu_dev_major(from->st_dev);
    to->stx_dev_minor = gnu_dev_minor(from->st_dev);
}

static const size_t CLINUX_STATX_SIZE = sizeof(struct statx);

// The file system and the type of a file, as far as the kernel knows them without a request to the file system's server. The path is
// relative to no directory, or empty for the descriptor.
static inline int clinux_known_file(int descriptor, const char *path, int follows, uint64_t *device, uint32_t *type)
{
    const int empty_path = 0x1000, no_follow = 0x100, dont_sync = 0x4000; // AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW, AT_STATX_DONT_SYNC
    struct statx answer;

    if (syscall(SYS_statx, descriptor, path, empty_path | dont_sync | (follows ? 0 : no_follow), STATX_TYPE, &answer) != 0)
        return -1;
    *device = (uint64_t)answer.stx_dev_major << 32 | answer.stx_dev_minor;
    *type = answer.stx_mode & S_IFMT;
    return 0;
}

// Opens a path (O_PATH) if the kernel knows all names of it already: openat2(2), RESOLVE_CACHED. EAGAIN if it does not.
static inline int clinux_open_known_path(const char *path)
{
    const struct {
        uint64_t flags, mode, resolve;
    } how = { __O_PATH | O_CLOEXEC, 0, 0x20 };

    return syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
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
