// A command for `exec` that makes system calls as no ordinary program does; prints TAP. A time limit ends a call that does not return.
//
//   hostile-client NODE
//   hostile-client NODE queue            (the node is that of Examples/Queue)
//   hostile-client NODE static-child     (opens the node, writes the byte h, and says what it reads)
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>

static const char *node, *program;
// The compiler does not know these values, and so does not warn of them.
static void *volatile bad = (void *)8, *volatile in_kernel = (void *)-8;
static volatile size_t too_large = SIZE_MAX;
static volatile int negative = -1, too_many = 1 << 30;
static int tests, failures;

static void check(int is_ok, const char *what)
{
    int error = errno;

    tests++;
    if (!is_ok)
        failures++;
    printf("%s %d - %s\n", is_ok ? "ok" : "not ok", tests, what);
    if (!is_ok)
        printf("# errno %d: %s\n", error, strerror(error));
    fflush(stdout);
}

static void gives(long expected, int error, long result, const char *what)
{
    int number = errno;

    check(result == expected && (result >= 0 || number == error), what);
    if (result != expected || (result < 0 && number != error))
        printf("# expected %ld, errno %d; got %ld, errno %d\n", expected, error, result, number);
    fflush(stdout);
}

static int open_node(int flags)
{
    int file = open(node, flags);

    if (file < 0) {
        printf("Bail out! cannot open %s: %s\n", node, strerror(errno));
        exit(1);
    }
    return file;
}

static int end_of(pid_t child)
{
    int status = -1;

    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

// The device works: a byte comes back.
static int works(void)
{
    static char next = 'a';
    char byte = 0;
    int file = open(node, O_RDWR), is_right;

    next = next == 'z' ? 'a' : next + 1;
    is_right = file >= 0 && write(file, &next, 1) == 1 && read(file, &byte, 1) == 1 && byte == next;
    close(file);
    return is_right;
}

// --- Memory that is missing

static void memory(void)
{
    long page = sysconf(_SC_PAGESIZE);
    char *two = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *end = two + page;
    char *only_read = mmap(NULL, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int file = open_node(O_RDWR);
    struct iovec vector[2];
    struct open_how how = { .flags = O_RDONLY };

    munmap(end, page);
    gives(-1, EFAULT, read(file, bad, 1), "read to a bad address");
    gives(-1, EFAULT, write(file, bad, 1), "write from a bad address");
    gives(-1, EFAULT, read(file, in_kernel, 1), "read to an address of the kernel");
    gives(-1, EFAULT, read(file, only_read, 1), "read to memory that cannot be written");
    end[-1] = 'E';
    gives(1, 0, write(file, end - 1, 100), "write of more bytes than there are takes the first");
    gives(1, 0, read(file, end - 1, 100), "read to the last byte of a page");
    check(end[-1] == 'E', "... gives the byte");
    gives(-1, EFAULT, write(file, end, 1), "write from a page that is gone");
    gives(1, 0, write(file, end - 1, SIZE_MAX / 2), "write of a huge number of bytes");
    gives(-1, EINVAL, write(file, end - 1, too_large), "write of more bytes than a number of bytes can be");
    gives(1, 0, read(file, end - 1, SIZE_MAX / 2), "read of a huge number of bytes");
    gives(-1, EOVERFLOW, pread(file, end - 1, 1, LONG_MAX), "pread at the last position");
    gives(-1, EINVAL, pread(file, end - 1, 1, LONG_MIN), "pread at a negative position");
    gives(-1, EOVERFLOW, pwrite(file, end - 1, 1, LONG_MAX), "pwrite at the last position");
    gives(-1, ESPIPE, lseek(file, LONG_MIN, SEEK_CUR), "lseek by a huge negative number");
    gives(-1, EINVAL, lseek(file, 0, 77), "lseek from nowhere");
    gives(-1, EFAULT, readv(file, bad, 1), "readv of a bad vector");
    gives(-1, EINVAL, readv(file, vector, negative), "readv of -1 buffers");
    gives(-1, EINVAL, readv(file, vector, too_many), "readv of too many buffers");
    gives(0, 0, readv(file, vector, 0), "readv of no buffer");
    vector[0] = (struct iovec){ end - 1, SIZE_MAX };
    gives(-1, EINVAL, readv(file, vector, 1), "readv of a buffer with a bad length");
    vector[0] = (struct iovec){ end - 1, SIZE_MAX / 2 };
    vector[1] = (struct iovec){ end - 1, SIZE_MAX / 2 };
    gives(-1, EINVAL, readv(file, vector, 2), "readv of more bytes than there can be");
    vector[0] = (struct iovec){ end - 1, 1 };
    vector[1] = (struct iovec){ bad, 1 };
    gives(1, 0, writev(file, vector, 2), "writev whose second buffer is bad moves the first");
    gives(-1, EFAULT, open(bad, O_RDONLY), "open of a bad path");
    memset(two, 'x', page);
    gives(-1, EFAULT, open(two + 100, O_RDONLY), "open of a path without an end");
    memcpy(end - strlen(node) - 1, node, strlen(node) + 1);
    file = open(end - strlen(node) - 1, O_RDONLY);
    check(file >= 0, "open of a path at the end of the memory");
    close(file);
    gives(-1, EFAULT, syscall(SYS_fstat, open_node(O_RDWR), 8L), "fstat to a bad address");
    gives(-1, EFAULT, syscall(SYS_newfstatat, AT_FDCWD, node, 8L, 0), "stat to a bad address");
    gives(-1, EFAULT, syscall(SYS_statx, AT_FDCWD, node, 0, STATX_BASIC_STATS, 8L), "statx to a bad address");
    gives(-1, EFAULT, syscall(SYS_openat2, AT_FDCWD, node, 8L, sizeof(how)), "openat2 with a bad structure");
    gives(-1, EFAULT, ioctl(open_node(O_RDWR), FIONBIO, 8L), "ioctl FIONBIO with a bad address");
    check(works(), "the device works");
    munmap(two, page);
    munmap(only_read, page);
}

// --- The ways to the node

static void *changes_path(void *path)
{
    for (int i = 0; i < 20000; i++) {
        memcpy(path, i % 2 ? "/dev/null" : node, i % 2 ? 10 : strlen(node) + 1);
        sched_yield();
    }
    return NULL;
}

static void paths(void)
{
    char link[] = "/tmp/hostile-client-XXXXXX", name[200], text[200] = { 0 }, path[300];
    struct open_how how = { .flags = O_RDWR };
    struct stat by_path, by_file;
    struct statfs system;
    int file, other, directory, is_whole = 1;
    pthread_t thread;

    mkdtemp(link);
    snprintf(name, sizeof(name), "%s/link", link);
    symlink(node, name);
    file = open(name, O_RDWR);
    check(file >= 0, "a symbolic link leads to the node");
    gives(-1, ELOOP, open(name, O_RDWR | O_NOFOLLOW), "... but not with O_NOFOLLOW");
    check(lstat(name, &by_path) == 0 && S_ISLNK(by_path.st_mode), "... and lstat sees the link");
    check(stat(name, &by_path) == 0 && S_ISCHR(by_path.st_mode), "... and stat the node");
    check(fstat(file, &by_file) == 0 && by_file.st_ino == by_path.st_ino && by_file.st_dev == by_path.st_dev &&
              by_file.st_rdev == by_path.st_rdev && by_file.st_rdev != 0,
          "fstat and stat see the same device");
    unlink(name);
    symlink("link", name);
    gives(-1, ELOOP, open(name, O_RDWR), "a link to itself");
    unlink(name);
    symlink("/dev", name);
    snprintf(path, sizeof(path), "%s/%s", name, strrchr(node, '/') + 1);
    check((other = open(path, O_RDWR)) >= 0, "a link to the directory");
    close(other);
    unlink(name);
    rmdir(link);
    check((directory = open("/dev", O_RDONLY | O_DIRECTORY)) >= 0, "the directory");
    check((other = openat(directory, strrchr(node, '/') + 1, O_RDWR)) >= 0, "a path relative to its descriptor");
    close(other);
    check((other = syscall(SYS_openat2, directory, strrchr(node, '/') + 1, &how, sizeof(how))) >= 0, "... and with openat2");
    close(other);
    fchdir(directory);
    check((other = open(strrchr(node, '/') + 1, O_RDWR)) >= 0, "a path relative to the working directory");
    close(other);
    chdir("/");
    snprintf(path, sizeof(path), "/dev/../dev/./%s", strrchr(node, '/') + 1);
    check((other = open(path, O_RDWR)) >= 0, "a path with dots");
    close(other);
    snprintf(path, sizeof(path), "%s/", node);
    gives(-1, ENOTDIR, open(path, O_RDWR), "a slash after the node");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
    check((other = open(path, O_RDONLY)) >= 0, "the link in /proc/self/fd");
    gives(-1, EBADF, write(other, "x", 1), "... is opened with flags of its own");
    check(readlink(path, text, sizeof(text)) == (ssize_t)strlen(node) && strcmp(text, node) == 0, "... and has the node's path");
    close(other);
    gives(-1, EINVAL, readlink(node, text, sizeof(text)), "readlink of the node");
    dup2(file, 0);
    check(stat("/dev/stdin", &by_path) == 0 && S_ISCHR(by_path.st_mode) && by_path.st_rdev == by_file.st_rdev, "/dev/stdin");
    gives(0, 0, statfs(node, &system), "statfs");
    gives(-1, EACCES, execl(node, node, (char *)NULL), "execve of the node");
    gives(-1, EEXIST, mkdir(node, 0700), "mkdir at the node");
    gives(-1, EEXIST, symlink("x", node), "symlink at the node");
    gives(-1, EEXIST, mknod(node, S_IFREG | 0600, 0), "mknod at the node");
    gives(-1, EBUSY, unlink(node), "unlink of the node");
    gives(-1, ENOTDIR, rmdir(node), "rmdir of the node");
    gives(-1, EBUSY, rename(node, "/tmp/x"), "rename of the node");
    gives(-1, EBUSY, rename("/tmp/x", node), "rename to the node");
    gives(-1, EXDEV, linkat(AT_FDCWD, node, AT_FDCWD, "/tmp/x", 0), "link to the node");
    gives(-1, ENOTDIR, chdir(node), "chdir to the node");
    gives(-1, EOPNOTSUPP, getxattr(node, "user.x", text, sizeof(text)), "getxattr of the node");
    gives(-1, EACCES, inotify_add_watch(inotify_init1(0), node, IN_MODIFY), "inotify_add_watch");
    gives(0, 0, access(node, R_OK | W_OK), "access");
    gives(-1, EACCES, access(node, X_OK), "access X_OK");
    gives(0, 0, utime(node, &(struct utimbuf){ 1, 2 }), "utime");
    check(stat(node, &by_path) == 0 && by_path.st_atime == 1 && by_path.st_mtime == 2, "... sets the times");
    gives(0, 0, futimens(file, NULL), "futimens");
    gives(0, 0, fchmod(file, 0640), "fchmod");
    check(stat(node, &by_path) == 0 && (by_path.st_mode & 07777) == 0640, "... sets the mode");
    fchmod(file, 0600);
    other = open(node, O_PATH);
    gives(-1, EBADF, read(other, text, 1), "O_PATH: read");
    check(fstat(other, &by_file) == 0 && S_ISCHR(by_file.st_mode), "... and fstat");
    gives(-1, ENOTDIR, fchdir(other), "... and fchdir");
    close(other);
    // Another thread changes the path during the call. Each result is one of the two files.
    strcpy(path, node);
    pthread_create(&thread, NULL, changes_path, path);
    for (int i = 0; i < 500; i++) {
        other = open(path, O_RDWR);
        if (other < 0 ? errno != ENOENT && errno != EACCES : fstat(other, &by_file) != 0 || !S_ISCHR(by_file.st_mode))
            is_whole = 0;
        close(other);
    }
    pthread_join(thread, NULL);
    check(is_whole, "a path that changes during the call leads to one of the two files, or nowhere");
    close(file);
    check(works(), "the device works");
}

// --- Descriptors

static void send_file(int socket, int file)
{
    char control[CMSG_SPACE(sizeof(int))] = { 0 }, byte = 0;
    struct iovec vector = { &byte, 1 };
    struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);

    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &file, sizeof(int));
    sendmsg(socket, &message, 0);
}

static int receive_file(int socket)
{
    char control[CMSG_SPACE(sizeof(int))], byte;
    struct iovec vector = { &byte, 1 };
    struct msghdr message = { .msg_iov = &vector, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
    int file = -1;

    if (recvmsg(socket, &message, 0) == 1 && CMSG_FIRSTHDR(&message))
        memcpy(&file, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
    return file;
}

static int own_table(void *file)
{
    char byte;

    // The parent's descriptor of this number is another file by now, and this one still the node.
    usleep(100000);
    _exit(!(read(*(int *)file, &byte, 1) == 1 && byte == 'T'));
}

static void descriptors(void)
{
    static char stack[1 << 16];
    int file = open_node(O_RDWR), pair[2], other, low, ends[2], status;
    char byte = 0, text[100], *words[] = { (char *)program, (char *)node, "static-child", NULL };
    struct rlimit limit, old;
    struct stat attributes;
    pid_t child;

    write(file, "D", 1);
    socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
    send_file(pair[0], file);
    close(file);
    file = receive_file(pair[1]);
    check(read(file, &byte, 1) == 1 && byte == 'D', "a descriptor that came by a socket, after the end of the one that was sent");
    other = dup2(file, 700);
    check(read(700, &byte, 1) == 1 && byte == 'D', "dup2");
    close(file);
    check(read(700, &byte, 1) == 1 && byte == 'D', "... after the end of the first");
    low = fcntl(700, F_DUPFD, 3);
    check(read(low, &byte, 1) == 1, "F_DUPFD");
    other = open("/dev/null", O_RDWR);
    dup2(other, 700);
    gives(0, 0, read(700, &byte, 1), "the same number is another file after dup2");
    check(fstat(700, &attributes) == 0 && major(attributes.st_rdev) == 1, "... which has its own attributes");
    close(700);
    close(other);
    pipe(ends);
    write(ends[1], "p", 1);
    check(read(ends[0], &byte, 1) == 1 && byte == 'p', "a pipe of the program is a pipe");
    check(fstat(ends[0], &attributes) == 0 && S_ISFIFO(attributes.st_mode), "... for fstat, too");
    write(low, "T", 1);
    child = clone(own_table, stack + sizeof(stack), SIGCHLD | CLONE_VM, &low);
    other = open("/dev/null", O_RDWR);
    dup2(other, low);
    status = end_of(child);
    check(status == 0, "a child with a table of descriptors of its own keeps the file");
    close(low);
    close(other);

    getrlimit(RLIMIT_NOFILE, &old);
    limit = old;
    for (other = 3; other < 1024; other++)
        if (fcntl(other, F_GETFD) >= 0)
            limit.rlim_cur = other + 1;
    setrlimit(RLIMIT_NOFILE, &limit);
    while ((other = dup(0)) >= 0)
        ;
    gives(-1, EMFILE, open(node, O_RDWR), "open without a free descriptor");
    setrlimit(RLIMIT_NOFILE, &old);
    for (other = 3; other < 1024; other++)
        close(other);
    check(works(), "the device works");

    file = open_node(O_RDWR | O_CLOEXEC);
    check(fcntl(file, F_GETFD) == FD_CLOEXEC, "O_CLOEXEC");
    check((fcntl(file, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK)) == O_RDWR, "F_GETFL");
    gives(-1, EBADF, fcntl(file, F_GETPIPE_SZ), "F_GETPIPE_SZ");
    gives(-1, EINVAL, fcntl(file, F_SETFL, O_DIRECT), "F_SETFL O_DIRECT");
    close(file);
    pipe(ends);
    write(ends[1], "p", 1);
    file = open_node(O_WRONLY);
    gives(-1, EBADF, splice(file, NULL, ends[1], NULL, 1, 0), "splice from a file that is open for writing");
    gives(-1, EINVAL, splice(ends[0], NULL, file, NULL, 1, 0), "splice to it");
    close(file);
    file = open_node(O_RDONLY);
    gives(-1, EBADF, splice(ends[0], NULL, file, NULL, 1, 0), "splice to a file that is open for reading");
    gives(-1, EBADF, sendfile(file, file, NULL, 1), "sendfile to it");
    gives(-1, EINVAL, sendfile(ends[1], file, NULL, 1), "sendfile from it");
    close(file);
    close(ends[0]);
    close(ends[1]);

    // vfork shares the memory and the waiting of the parent.
    pipe(ends);
    child = vfork();
    if (child == 0) {
        dup2(ends[1], 1);
        execv(program, words);
        _exit(1);
    }
    status = end_of(child);
    memset(text, 0, sizeof(text));
    read(ends[0], text, sizeof(text) - 1);
    check(status == 0 && strcmp(text, "read h\n") == 0, "vfork and execve of a static program");
    close(ends[0]);
    close(ends[1]);
}

// --- Processes that end, signals, floods

static void *flood_thread(void *unused)
{
    int file = open_node(O_RDWR);
    char byte;

    for (int i = 0; i < 300; i++) {
        if (write(file, "f", 1) != 1 || read(file, &byte, 1) != 1)
            return "failed";
        if (i % 10 == 0) {
            close(file);
            file = open_node(O_RDWR);
        }
    }
    close(file);
    return unused;
}

static volatile sig_atomic_t signals;

static void on_signal(int number)
{
    (void)number;
    signals++;
}

static void floods(void)
{
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
    struct itimerval often = { { 0, 500 }, { 0, 500 } }, none = { 0 };
    pthread_t threads[16];
    void *result;
    int is_right = 1, file, lost = 0, children = 0;
    char byte;

    for (int i = 0; i < 16; i++)
        pthread_create(&threads[i], NULL, flood_thread, NULL);
    for (int i = 0; i < 16; i++) {
        pthread_join(threads[i], &result);
        if (result)
            is_right = 0;
    }
    check(is_right, "16 threads that open, write, read and close");

    sigaction(SIGALRM, &action, NULL);
    file = open_node(O_RDWR);
    setitimer(ITIMER_REAL, &often, NULL);
    for (int i = 0; i < 2000; i++)
        if (write(file, "s", 1) != 1 || read(file, &byte, 1) != 1)
            lost++;
    setitimer(ITIMER_REAL, &none, NULL);
    check(signals > 0, "signals come during calls");
    gives(0, 0, lost, "... and no call fails, with SA_RESTART");
    close(file);

    // Processes that are killed in the middle of a call.
    for (int i = 0; i < 60; i++) {
        pid_t child = fork();

        if (child == 0)
            for (;;) {
                int own = open(node, O_RDWR);

                write(own, "k", 1);
                read(own, &byte, 1);
                close(own);
            }
        usleep(i * 100);
        kill(child, SIGKILL);
        if (WIFSIGNALED(end_of(child)))
            children++;
    }
    gives(60, 0, children, "60 processes are killed in the middle of their calls");
    check(works(), "the device works");
}

// --- Rights

static void rights(void)
{
    pid_t child;
    int file;
    char byte;

    check(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1, "no_new_privs: a program with the setuid bit gets no rights");
    if (getuid() == 0) {
        child = fork();
        if (child == 0) {
            if (setgid(65534) != 0 || setuid(65534) != 0)
                _exit(1);
            _exit(!(open(node, O_RDWR) < 0 && errno == EACCES && access(node, R_OK) < 0 && chmod(node, 0666) < 0 && errno == EPERM));
        }
        check(end_of(child) == 0, "another user may not open the node with mode 0600");
        file = open_node(O_RDWR);
        child = fork();
        if (child == 0) {
            if (setgid(65534) != 0 || setuid(65534) != 0)
                _exit(1);
            _exit(!(write(file, "u", 1) == 1 && read(file, &byte, 1) == 1 && byte == 'u'));
        }
        check(end_of(child) == 0, "... but uses a file that was open before");
        close(file);
    }
    file = open_node(O_RDWR);
    child = fork();
    if (child == 0) {
        // A process with a filter of its own, which allows all calls.
        struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
        struct sock_fprog filter = { 1, &allow };

        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
            _exit(1);
        _exit(!works());
    }
    check(end_of(child) == 0, "a process with a filter of its own");
    child = fork();
    if (child == 0) {
        struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
        struct sock_fprog filter = { 1, &allow };

        _exit(!(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter) < 0 && errno == EBUSY));
    }
    check(end_of(child) == 0, "a second listener gives EBUSY");
    child = fork();
    if (child == 0) {
        struct { char text[256]; } parameters = { { 0 } };

        _exit(!(syscall(SYS_io_uring_setup, 4, &parameters) < 0 && errno == ENOSYS));
    }
    check(end_of(child) == 0, "io_uring_setup gives ENOSYS");
    child = fork();
    if (child == 0)
        _exit(unshare(CLONE_NEWUSER) == 0 ? !works() : 0);
    check(end_of(child) == 0, "a user namespace of its own");
    // The server cannot see the files of a process that forbids it, unless it is root. It goes on with the others.
    child = fork();
    if (child == 0) {
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
        close(open(node, O_RDWR));
        read(file, &byte, 1);
        _exit(0);
    }
    usleep(200000);
    kill(child, SIGKILL);
    end_of(child);
    check(works(), "the device works after a process that cannot be seen");
    close(file);
}

// Signals, with SA_RESTART and without it: each write that succeeds is made once, and each that fails is not made.
static void queue(int flags)
{
    struct sigaction action = { .sa_handler = on_signal, .sa_flags = flags };
    struct itimerval often = { { 0, 300 }, { 0, 300 } }, none = { 0 };
    unsigned char sent = 0, expected = 0, got[64];
    int file = open_node(O_RDWR | O_NONBLOCK), is_right = 1, interrupted = 0;

    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    for (int round = 0; round < 300; round++) {
        ssize_t count;

        for (int i = 0; i < 8; i++) {
            count = write(file, &sent, 1);
            if (count == 1)
                sent++;
            else if (errno == EINTR)
                interrupted++;
            else
                is_right = 0;
        }
        while ((count = read(file, got, sizeof(got))) > 0 || (count < 0 && errno == EINTR))
            for (int i = 0; i < count; i++)
                if (got[i] != expected++)
                    is_right = 0;
    }
    setitimer(ITIMER_REAL, &none, NULL);
    check(is_right && expected == sent, "signals during writes and reads: each byte comes once, in its order");
    check(!(flags & SA_RESTART) || interrupted == 0, "... and SA_RESTART makes interrupted calls again");
    close(file);
}

#ifdef __x86_64__
// A call of 32-bit programs is not in the filter. A kernel without these calls ends the process by SIGSEGV.
static void other_architecture(void)
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        long number = 20; // getpid

        __asm__ volatile("int $0x80" : "+a"(number) : : "memory");
        _exit(number != getpid());
    }
    status = end_of(child);
    check(WIFEXITED(status) ? WEXITSTATUS(status) == 0 : WTERMSIG(status) == SIGSEGV, "int 0x80 is the kernel's");
}
#endif

static void orphan(void)
{
    int ends[2];
    char text[10] = { 0 };

    pipe(ends);
    if (fork() == 0) {
        if (fork() == 0) {
            usleep(200000);
            write(ends[1], works() ? "yes" : "no", 3);
        }
        _exit(0);
    }
    close(ends[1]);
    read(ends[0], text, 3);
    check(strcmp(text, "yes") == 0, "a process whose parent has ended");
}

int main(int count, char **arguments)
{
    if (count < 2)
        return 64;
    program = "/proc/self/exe";
    node = arguments[1];
    if (count == 3 && strcmp(arguments[2], "queue") == 0) {
        queue(SA_RESTART);
        queue(0);
        printf("1..%d\n", tests);
        return failures != 0;
    }
    if (count == 3) {
        char byte = 0;
        int file = open(node, O_RDWR);

        return !(write(file, "h", 1) == 1 && read(file, &byte, 1) == 1 && printf("read %c\n", byte) > 0);
    }
    memory();
    paths();
    descriptors();
    floods();
    rights();
#ifdef __x86_64__
    other_architecture();
#endif
    orphan();
    printf("1..%d\n", tests);
    return failures != 0;
}
