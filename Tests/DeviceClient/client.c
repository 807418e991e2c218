// A client of the devices in Examples, Tests/TestDevice and Tests/GuestDrivers, as programs in C are; prints TAP. No check depends on the
// duration of a call. A time limit ends a call that should have returned and has not.
//
//   device-client queue NODE fuse|cuse|exec
//   device-client ioctl NODE fuse|cuse|exec [unrestricted]
//   device-client memory NODE fuse|cuse|exec
//   device-client mirror NODE fuse|cuse|exec
//   device-client fifo NODE fuse|cuse|exec                 (Tests/GuestDrivers, as the next one)
//   device-client positions NODE fuse|cuse|exec
//   device-client test NODE fuse|cuse|exec                 (Tests/TestDevice)
//   device-client wait read|write|poll|ioctl NODE     (waits in one call, and prints what it gives)
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define GET _IOR('w', 1, uint32_t)
#define SET _IOW('w', 2, uint32_t)
#define ADD _IOWR('w', 3, uint32_t)
#define EXCHANGE _IO('w', 4)
#define WAIT _IOR('w', 5, uint32_t)
#define FILL _IO('w', 6)
#define FIFO_COUNT _IOR('f', 1, uint32_t)
#define FIFO_SET_CAPACITY _IOWR('f', 2, uint32_t)
#define FIFO_DRAIN _IO('f', 3)
#define FIFO_WAITING _IO('f', 4)
#define FILE_NUMBER _IO('m', 1)

enum { second = 1000, long_time = 30 * second };

static const char *node;
// The node has positions, and the device gets all calls for them: FUSE and exec.
static int is_fuse;
// The node is a character device that exists for this program only.
static int is_exec;
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

// The result of a system call is as expected: a number of 0 or more, or an error.
static void gives(long expected, int error, long result, const char *what)
{
    int number = errno;

    check(result == expected && (result >= 0 || number == error), what);
    if (result != expected || (result < 0 && number != error))
        printf("# expected %ld, errno %d; got %ld\n", expected, error, result);
}

static int open_node(int flags)
{
    int file = open(node, flags | O_CLOEXEC);

    if (file < 0) {
        printf("Bail out! cannot open %s: %s\n", node, strerror(errno));
        exit(1);
    }
    return file;
}

static void pause_ms(int ms)
{
    usleep(ms * 1000);
}

// Starts a process that calls `body` a little later, when its parent sleeps.
static pid_t later(void (*body)(void))
{
    pid_t child = fork();

    if (child == 0) {
        pause_ms(100);
        body();
        _exit(0);
    }
    return child;
}

static int end_of(pid_t child)
{
    int status = -1;

    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

// Whether the process ends with success, and without further help.
static int ends_soon(pid_t child)
{
    int status;

    for (int attempt = 0; attempt < 200; attempt++) {
        if (waitpid(child, &status, WNOHANG) == child)
            return status == 0;
        pause_ms(100);
    }
    return 0;
}

static void on_signal(int number)
{
    (void)number;
}

// Starts repeated signals, because the first one may come before the call. They continue until the call has ended.
static void start_signals(void)
{
    struct sigaction action = { .sa_handler = on_signal };
    struct itimerval times = { { 0, 50000 }, { 0, 50000 } };

    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &times, NULL);
}

static void stop_signals(void)
{
    struct itimerval times = { 0 };

    setitimer(ITIMER_REAL, &times, NULL);
}

// Stops the signals after a call, whose result this returns. A signal could end the call that prints the result.
static long signalled(long result)
{
    int number = errno;

    stop_signals();
    errno = number;
    return result;
}

static int events_of(int file, int events, int timeout)
{
    struct pollfd entry = { .fd = file, .events = events };

    return poll(&entry, 1, timeout) < 0 ? -1 : entry.revents;
}

// --- The queue

static void write_a(void)
{
    int file = open_node(O_WRONLY);

    if (write(file, "a", 1) != 1)
        _exit(1);
}

static void read_all(void)
{
    char bytes[8192];
    int file = open_node(O_RDONLY);

    if (read(file, bytes, sizeof(bytes)) < 1)
        _exit(1);
}

static void check_poll(int file, int events, void (*cause)(void), const char *what)
{
    char name[100];
    pid_t child;
    int result;

    snprintf(name, sizeof(name), "poll: %s wakes", what);
    child = later(cause);
    result = events_of(file, events, long_time);
    check(result & events, name);
    end_of(child);
}

// Before Linux 6.2, a write that waits blocks all other writes of a file on FUSE.
static int writes_wait_side_by_side(void)
{
    struct utsname system;
    int major = 0, minor = 0;

    uname(&system);
    sscanf(system.release, "%d.%d", &major, &minor);
    return is_exec || !is_fuse || major > 6 || (major == 6 && minor >= 2);
}

static void queue(void)
{
    char bytes[8192] = { 0 };
    int file = open_node(O_RDWR), other = open_node(O_RDWR | O_NONBLOCK), epoll = epoll_create1(EPOLL_CLOEXEC), flags, status;
    struct epoll_event event = { .events = EPOLLIN | EPOLLET }, found = { 0 };
    struct timeval limit = { .tv_sec = 30 };
    pid_t child;
    fd_set set;
    long count, filled = 0;

    gives(-1, EAGAIN, read(other, bytes, 1), "O_NONBLOCK: a read of nothing gives EAGAIN");
    gives(2, 0, write(file, "ab", 2), "a write is taken");
    gives(2, 0, read(other, bytes, 10), "another open file reads it");
    check(bytes[0] == 'a' && bytes[1] == 'b', "... and has its bytes");
    flags = fcntl(file, F_GETFL);
    fcntl(file, F_SETFL, flags | O_NONBLOCK);
    gives(-1, EAGAIN, read(file, bytes, 1), "F_SETFL: a read has the present flags");
    fcntl(file, F_SETFL, flags);

    check(events_of(file, POLLIN | POLLOUT, 0) == POLLOUT, "poll: nothing to read, room to write");
    check_poll(file, POLLIN, write_a, "a byte");
    check(events_of(file, POLLIN | POLLOUT, 0) == (POLLIN | POLLOUT), "poll: something to read");
    read(file, bytes, 10);
    child = later(write_a);
    FD_ZERO(&set);
    FD_SET(file, &set);
    gives(1, 0, select(file + 1, &set, NULL, NULL, &limit), "select: a byte wakes");
    end_of(child);
    read(file, bytes, 10);
    event.data.fd = file;
    gives(0, 0, epoll_ctl(epoll, EPOLL_CTL_ADD, file, &event), "epoll: the file is added");
    gives(0, 0, epoll_wait(epoll, &found, 1, 0), "epoll: nothing to read");
    for (int round = 0; round < 3; round++) {
        child = later(write_a);
        gives(1, 0, epoll_wait(epoll, &found, 1, long_time), "epoll: a byte wakes, each time");
        end_of(child);
        read(file, bytes, 10);
    }
    close(epoll);

    child = later(write_a);
    gives(1, 0, read(file, bytes, 10), "a read waits for a byte");
    end_of(child);
    start_signals();
    gives(-1, EINTR, signalled(read(file, bytes, 10)), "a signal ends a read that waits");
    child = fork();
    if (child == 0) {
        read(file, bytes, 10);
        _exit(0);
    }
    pause_ms(200);
    kill(child, SIGKILL);
    status = end_of(child);
    check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "SIGKILL ends a client that waits");
    gives(1, 0, write(file, "x", 1), "a byte after that");
    gives(1, 0, read(other, bytes, 10), "... goes to the next read, not to the client that has ended");

    while ((count = write(other, bytes, sizeof(bytes))) > 0)
        filled += count;
    gives(-1, EAGAIN, count, "O_NONBLOCK: a write without room gives EAGAIN");
    check(filled == 4096, "... when as many bytes are in it as it can hold");
    check(events_of(file, POLLIN | POLLOUT, 0) == POLLIN, "poll: no room to write");
    check_poll(file, POLLOUT, read_all, "room");
    while (write(other, bytes, sizeof(bytes)) > 0)
        ;
    child = later(read_all);
    gives(3, 0, write(file, "xyz", 3), "a write waits for room and returns");
    end_of(child);
    gives(3, 0, read(other, bytes, 10), "... and can be read then");
    check(memcmp(bytes, "xyz", 3) == 0, "... with its bytes");
    while (write(other, bytes, sizeof(bytes)) > 0)
        ;
    start_signals();
    gives(-1, EINTR, signalled(write(file, "xyz", 3)), "a signal ends a write that waits");
    while (read(other, bytes, sizeof(bytes)) > 0)
        ;

    // A read that waits does not block a write of the same open file. A write that waits does not block another write.
    // A signal does not end a wait for the kernel's locks of files, so another process makes the call, and the test
    // ends the call that holds the lock.
    child = fork();
    if (child == 0)
        _exit(read(file, bytes, 10) != 1);
    pause_ms(200);
    pid_t writer = fork();
    if (writer == 0)
        _exit(write(file, "x", 1) != 1);
    int is_through = ends_soon(writer);
    check(is_through, "a read that waits does not hold up a write of the same open file");
    if (!is_through)
        kill(child, SIGKILL);
    check(end_of(child) == 0, "... and gets the written byte");
    while (write(other, bytes, sizeof(bytes)) > 0)
        ;
    child = fork();
    if (child == 0)
        _exit(write(file, "xyz", 3) != 3);
    pause_ms(200);
    writer = fork();
    if (writer == 0)
        _exit(!(write(other, "x", 1) < 0 && errno == EAGAIN));
    if (writes_wait_side_by_side())
        check(ends_soon(writer), "a write that waits does not hold up another one, which gives EAGAIN");
    kill(child, SIGKILL);
    end_of(child);
    if (!writes_wait_side_by_side())
        end_of(writer);
    while (read(other, bytes, sizeof(bytes)) > 0)
        ;

    // The client that has waited for the longest time gets the first byte. Each byte comes once.
    pid_t readers[4];
    for (int index = 0; index < 4; index++) {
        readers[index] = fork();
        if (readers[index] == 0)
            _exit(read(file, bytes, 1) == 1 ? bytes[0] : 255);
    }
    for (char byte = 1; byte <= 4; byte++)
        write(other, &byte, 1);
    int seen = 0;
    for (int index = 0; index < 4; index++) {
        status = end_of(readers[index]);
        if (WIFEXITED(status) && WEXITSTATUS(status) <= 4)
            seen |= 1 << WEXITSTATUS(status);
    }
    check(seen == 0x1e, "four clients that wait get four bytes");
    check(read(other, bytes, 10) < 0 && errno == EAGAIN, "... and nothing is left");
    gives(is_fuse ? -1 : 0, ESPIPE, lseek(file, 0, SEEK_SET), "lseek of a device without positions");
    gives(is_fuse ? -1 : 0, ESPIPE, lseek(file, 0, SEEK_END), "... to the end");
    fcntl(file, F_SETFL, flags | O_NONBLOCK);
    gives(-1, is_fuse ? ESPIPE : EAGAIN, pread(file, bytes, 1, 0), "pread of a device without positions");
}

// --- The counter

static void add_one(void)
{
    uint32_t value = 1;

    ioctl(open_node(O_RDONLY), ADD, &value);
}

static void counter(int is_unrestricted)
{
    uint32_t value = 5, words[1024] = { 0 };
    struct { uint64_t address, count; } where = { (uintptr_t)words, 1000 };
    int file = open_node(O_RDWR);
    pid_t child;

    gives(0, 0, ioctl(file, SET, &value), "_IOW: the device takes the bytes");
    value = 0;
    gives(0, 0, ioctl(file, GET, &value), "_IOR: the device gives bytes");
    check(value == 5, "... which it took before");
    value = 7;
    gives(0, 0, ioctl(file, ADD, &value), "_IOWR: both ways");
    check(value == 12, "... with the sum");
    gives(12, 0, ioctl(file, EXCHANGE, 99UL), "_IO: the argument is a number, and so is the result");
    ioctl(file, GET, &value);
    check(value == 99, "... which the device has got");
    gives(-1, ENOTTY, ioctl(file, _IO('w', 77)), "a command that the device does not know gives ENOTTY");
    gives(-1, EFAULT, ioctl(file, GET, (void *)16), "_IOR at a bad address gives EFAULT");
    gives(-1, EFAULT, ioctl(file, SET, (void *)16), "_IOW at a bad address gives EFAULT");
    child = later(add_one);
    value = 0;
    gives(0, 0, ioctl(file, WAIT, &value), "an ioctl waits");
    check(value == 100, "... and gives the value that came");
    end_of(child);
    start_signals();
    gives(-1, EINTR, signalled(ioctl(file, WAIT, &value)), "a signal ends an ioctl that waits");
    if (is_unrestricted) {
        gives(0, 0, ioctl(file, FILL, &where), "unrestricted: areas of memory that a structure names");
        check(words[0] == 100 && words[999] == 100 && words[1000] == 0, "... are written, and no more");
        where.address = 16;
        gives(-1, EFAULT, ioctl(file, FILL, &where), "unrestricted: a bad address in the structure gives EFAULT");
        gives(-1, EFAULT, ioctl(file, FILL, (void *)16), "unrestricted: a bad address of the structure gives EFAULT");
    } else {
        gives(-1, ENOTTY, ioctl(file, FILL, &where), "restricted: a command that names areas of memory gives ENOTTY");
    }
    gives(-1, EINVAL, read(file, words, 1), "a device without read gives EINVAL");
    gives(-1, EINVAL, write(file, words, 1), "a device without write gives EINVAL");
    check(events_of(file, POLLIN | POLLOUT, 0) == (POLLIN | POLLOUT), "a device without poll is always ready");
}

// --- The memory

static void memory(void)
{
    char bytes[65536 + 1] = { 0 };
    int file = open_node(O_RDWR), other;
    struct stat attributes;

    gives(5, 0, write(file, "hello", 5), "a write at the start");
    if (is_fuse) {
        gives(0, 0, lseek(file, 0, SEEK_SET), "SEEK_SET");
        gives(5, 0, read(file, bytes, 5), "a read there");
        check(memcmp(bytes, "hello", 5) == 0, "... gives the bytes");
        gives(5, 0, lseek(file, 0, SEEK_CUR), "SEEK_CUR");
        gives(65536, 0, lseek(file, 0, SEEK_END), "SEEK_END is the size");
        gives(0, 0, read(file, bytes, 1), "a read at the end gives nothing");
        gives(-1, ENOSPC, write(file, "x", 1), "a write at the end gives ENOSPC");
        gives(1, 0, pwrite(file, "z", 1, 65535), "pwrite of the last byte");
        gives(3, 0, pwrite(file, "abc", 3, 40000), "pwrite in the middle");
        gives(3, 0, pread(file, bytes, 3, 40000), "pread there");
        check(memcmp(bytes, "abc", 3) == 0, "... gives the bytes");
        gives(2, 0, pwrite(file, "yz!", 3, 65534), "a write over the end is short");
        gives(65536, 0, pread(file, bytes, sizeof(bytes), 0), "a read of all");
        check(memcmp(bytes, "hello", 5) == 0 && memcmp(bytes + 65534, "yz", 2) == 0, "... has each byte in its place");
        gives(40000, 0, lseek(file, 40000, SEEK_DATA), "SEEK_DATA");
        gives(65536, 0, lseek(file, 40000, SEEK_HOLE), "SEEK_HOLE is the end");
        gives(-1, ENXIO, lseek(file, 65536, SEEK_DATA), "SEEK_DATA at the end gives ENXIO");
        check(fstat(file, &attributes) == 0 && attributes.st_size == (is_exec ? 0 : 65536), "stat gives the size of a file");
        gives(-1, EINVAL, lseek(file, -1, SEEK_SET), "a negative position gives EINVAL");
        if (is_exec)
            gives(-1, ENXIO, lseek(file, INT64_MIN, SEEK_DATA), "SEEK_DATA at a negative position gives ENXIO");
    } else {
        gives(0, 0, lseek(file, 3, SEEK_SET), "lseek on CUSE does nothing, and returns no error");
        gives(0, 0, lseek(file, 0, SEEK_END), "SEEK_END on CUSE, too");
        gives(3, 0, write(file, "abc", 3), "the next write continues at the device's position");
        other = open_node(O_RDONLY);
        gives(8, 0, read(other, bytes, 8), "another open file has a position of its own");
        check(memcmp(bytes, "helloabc", 8) == 0, "... and reads from the start");
        gives(1, 0, pwrite(file, "x", 1, 100), "pwrite on CUSE");
        gives(1, 0, read(other, bytes, 1), "... writes at the device's position");
        check(bytes[0] == 'x', "... because the kernel passes none");
        // The count is larger than one request.
        other = open_node(O_RDWR);
        gives(65536, 0, write(other, bytes, 65536), "a write of all");
        gives(-1, ENOSPC, write(other, bytes, 1), "a write at the end gives ENOSPC");
        check(fstat(file, &attributes) == 0 && attributes.st_size == 0, "stat gives no size");
    }
}

// --- The mirror

static void mirror(void)
{
    char bytes[10] = { 0 };
    int one, two;

    one = open_node(O_RDWR);
    gives(5, 0, write(one, "hello", 5), "a write is taken");
    two = open_node(O_RDONLY);
    gives(2, 0, read(one, bytes, 2), "one client reads two bytes");
    gives(5, 0, read(two, bytes, 10), "another one reads all of them");
    check(memcmp(bytes, "olleh", 5) == 0, "... backwards");
    gives(3, 0, read(one, bytes, 10), "the first one reads the others");
    check(memcmp(bytes, "leh", 3) == 0, "... which follow");
    gives(0, 0, read(one, bytes, 10), "... and is at the end then");
    two = dup(two);
    gives(0, 0, read(two, bytes, 10), "a duplicate has the position of its file");
}

// --- The guest's drivers

static void read_one(void)
{
    char byte;

    if (read(open_node(O_RDONLY), &byte, 1) != 1)
        _exit(1);
}

// Waits until so many calls wait in the driver.
static int wait_for(int file, int calls)
{
    for (int attempt = 0; attempt < 300 && ioctl(file, FIFO_WAITING) != calls; attempt++)
        pause_ms(100);
    return ioctl(file, FIFO_WAITING) == calls;
}

static void fifo(void)
{
    char bytes[5000];
    uint32_t value = 0;
    int file = open_node(O_RDWR), other = open_node(O_RDWR | O_NONBLOCK), status;
    pid_t child, killed;

    gives(0, 0, ioctl(file, FIFO_DRAIN), "an ioctl that does not have to wait");
    gives(3, 0, write(file, "abc", 3), "a write is taken");
    gives(0, 0, ioctl(file, FIFO_COUNT, &value), "an ioctl gives bytes");
    check(value == 3, "... the number of bytes");
    gives(-1, EAGAIN, ioctl(other, FIFO_DRAIN), "O_NONBLOCK: an ioctl that has to wait gives EAGAIN");
    value = 4;
    gives(0, 0, ioctl(file, FIFO_SET_CAPACITY, &value), "an ioctl takes bytes and gives bytes");
    check(value == 4096, "... those of before");
    gives(1, 0, write(file, "def", 3), "a write has the new capacity");
    gives(-1, ENOTTY, ioctl(file, _IO('f', 77)), "a command that the driver does not know gives ENOTTY");

    child = fork();
    if (child == 0)
        _exit(write(file, "xyz", 3) != 3);
    check(wait_for(file, 1), "a write waits");
    value = 100;
    ioctl(file, FIFO_SET_CAPACITY, &value);
    check(end_of(child) == 0, "... until an ioctl makes room");
    child = fork();
    if (child == 0)
        _exit(ioctl(file, FIFO_DRAIN) != 0);
    check(wait_for(file, 1), "an ioctl waits");
    gives(7, 0, read(other, bytes, 10), "... until the bytes are read");
    check(memcmp(bytes, "abcdxyz", 7) == 0, "... those of all writes, in their order");
    check(end_of(child) == 0, "... and succeeds then");

    killed = fork();
    if (killed == 0)
        _exit(read(file, bytes, 1) != 1);
    check(wait_for(file, 1), "a read waits");
    child = fork();
    if (child == 0) {
        read_one();
        _exit(0);
    }
    check(wait_for(file, 2), "... and another one");
    kill(killed, SIGKILL);
    status = end_of(killed);
    check(WIFSIGNALED(status), "SIGKILL ends the first one");
    check(wait_for(file, 1), "... and the driver hears of it");
    gives(1, 0, write(file, "x", 1), "a byte after that");
    check(end_of(child) == 0, "... goes to the second one");
    gives(0, 0, ioctl(file, FIFO_COUNT, &value), "nothing is left");
    check(value == 0, "... no byte");
    check(wait_for(file, 0), "... and no call");
}

static void positions(void)
{
    char bytes[70000] = { 0 };
    int file = open_node(O_RDWR), other = open_node(O_RDONLY);
    struct stat attributes;

    gives(2, 0, ioctl(other, FILE_NUMBER) - ioctl(file, FILE_NUMBER) + 1, "each open file has its own private data");
    gives(5, 0, write(file, "hello", 5), "a write at the start");
    gives(3, 0, read(other, bytes, 3), "another file reads there");
    gives(3, 0, read(other, bytes + 3, 3), "... and goes on");
    check(memcmp(bytes, "hello\0", 6) == 0, "... with its own position");
    check(fstat(file, &attributes) == 0 && attributes.st_size == 0, "stat gives no size, as that of a character device");
    check(events_of(file, POLLIN | POLLOUT, 0) == (POLLIN | POLLOUT), "a driver without poll is always ready");
    gives(-1, ENOTTY, ioctl(file, _IO('m', 77)), "a command that the driver does not know gives ENOTTY");
    if (is_fuse) {
        gives(1, 0, lseek(other, 1, SEEK_SET), "SEEK_SET");
        gives(4, 0, read(other, bytes, 4), "a read there");
        check(memcmp(bytes, "ello", 4) == 0, "... gives the bytes");
        gives(5, 0, lseek(other, 0, SEEK_CUR), "SEEK_CUR");
        gives(65536, 0, lseek(other, 0, SEEK_END), "SEEK_END is the driver's");
        gives(0, 0, read(other, bytes, 1), "a read at the end gives nothing");
        gives(65534, 0, lseek(file, -2, SEEK_END), "SEEK_END with an offset");
        gives(2, 0, write(file, "yz!", 3), "a write there is short");
        gives(-1, ENOSPC, write(file, "x", 1), "a write at the end gives ENOSPC");
        gives(3, 0, pwrite(file, "abc", 3, 40000), "pwrite in the middle");
        gives(3, 0, pread(other, bytes, 3, 40000), "pread there");
        check(memcmp(bytes, "abc", 3) == 0, "... gives the bytes");
        gives(0, 0, lseek(other, 0, SEEK_SET), "SEEK_SET back to the start");
        gives(2, 0, read(other, bytes, 2), "a read there");
        gives(3, 0, pread(other, bytes + 2, 3, 65533), "pread at the end");
        gives(3, 0, read(other, bytes + 5, 3), "the next read goes on after the last one");
        check(memcmp(bytes, "he\0yzllo", 8) == 0, "... with the bytes of each place");
        gives(40000, 0, lseek(file, 40000, SEEK_DATA), "SEEK_DATA is the driver's");
        gives(65536, 0, lseek(file, 40000, SEEK_HOLE), "SEEK_HOLE, too");
        gives(-1, ENXIO, lseek(file, 65536, SEEK_DATA), "SEEK_DATA at the end gives ENXIO");
    } else {
        gives(0, 0, lseek(other, 1, SEEK_SET), "lseek on CUSE does nothing");
        gives(0, 0, lseek(other, 0, SEEK_END), "SEEK_END on CUSE, too");
        gives(1, 0, write(file, "x", 1), "the next write goes on");
        gives(65530, 0, read(other, bytes, 66000), "... and the next read");
    }
    file = open_node(O_RDWR | O_APPEND);
    gives(2, 0, write(file, "AB", 2), "O_APPEND: the position is the file's own, as that of a character device");
    gives(2, 0, write(file, "CD", 2), "... and the next write goes on");
    other = open_node(O_RDONLY);
    gives(5, 0, read(other, bytes, 5), "a read of both");
    check(memcmp(bytes, "ABCDo", 5) == 0, "... gives the bytes");
}

// --- The device for tests

struct report {
    int opens, releases, flushes, pid, uid, gid, offset, is_nonblocking;
};

static int parse(const char *text, struct report *report)
{
    memset(report, 255, sizeof(*report));
    return sscanf(text, "%d %d %d %d %d %d %d %d", &report->opens, &report->releases, &report->flushes, &report->pid, &report->uid,
                  &report->gid, &report->offset, &report->is_nonblocking) == 8;
}

static void test(void)
{
    char text[200] = { 0 };
    struct report before, after;
    int file = open_node(O_RDWR), other, closed;
    pid_t child;

    check(read(file, text, sizeof(text) - 1) > 0 && parse(text, &before), "a read");
    check(before.pid == getpid(), "... has the caller's pid");
    check(before.uid == (int)getuid() && before.gid == (int)getgid(), "... uid and gid");
    check(before.offset == 0 && before.is_nonblocking == 0, "... no O_NONBLOCK, and the start");
    memset(text, 0, sizeof(text));
    check(pread(file, text, sizeof(text) - 1, 12345) > 0 && parse(text, &after), "pread");
    gives(is_fuse ? 12345 : 0, 0, after.offset, "... has the offset on FUSE, and none on CUSE");
    other = open_node(O_RDWR | O_NONBLOCK);
    check(read(other, text, sizeof(text) - 1) > 0 && parse(text, &after), "a read of a second open file");
    check(after.is_nonblocking == 1, "... with its own flags");
    check(after.opens == before.opens + 1 && after.releases == before.releases, "... which was opened, and none released");
    close(dup(other));
    read(other, text, sizeof(text) - 1);
    parse(text, &after);
    check(after.releases == before.releases, "the end of a duplicate releases nothing");
    gives(before.flushes + (is_fuse && !is_exec), 0, after.flushes, "... and flushes on FUSE");
    child = fork();
    if (child == 0) {
        // The child has another pid and, as root, another uid and gid.
        if (getuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
            _exit(1);
        _exit(!(read(other, text, sizeof(text) - 1) > 0 && parse(text, &after) && after.pid == getpid() &&
                (is_exec || (after.uid == (int)getuid() && after.gid == (int)getgid()))));
    }
    check(end_of(child) == 0, "a read by a child with another uid has the child's pid, and on FUSE and CUSE its uid and gid");
    gives(-1, EIO, write(file, "drop", 4), "a request that is dropped gives EIO");
    gives(6, 0, write(file, "thread", 6), "a wish for another thread");
    check(read(file, text, sizeof(text) - 1) > 0, "a read is answered by another thread");
    write(file, "drop-read", 9);
    gives(-1, EIO, read(file, text, sizeof(text) - 1), "a read that another thread drops gives EIO");
    gives(-1, EBUSY, open(node, O_RDWR | O_SYNC), "an open that the device refuses");
    if (is_fuse) {
        gives(0, 0, fsync(file), "fsync");
        gives(-1, ENOSPC, fdatasync(file), "the device gets fdatasync, and not fsync");
    } else {
        gives(-1, EINVAL, fsync(file), "fsync on CUSE ends in the kernel");
    }
    write(other, "close", 5);
    closed = close(other);
    gives(is_fuse && !is_exec ? -1 : 0, EDQUOT, closed, "the device's error is the result of close on FUSE");
    // The kernel does not wait for the answer to a release.
    for (int attempt = 0; attempt < 300 && after.releases != before.releases + 1; attempt++) {
        pause_ms(100);
        read(file, text, sizeof(text) - 1);
        parse(text, &after);
    }
    check(after.releases == before.releases + 1, "the end of the last descriptor releases the file");
}

// --- One call that waits, for tests that end the server

static int wait_in(const char *what)
{
    char bytes[8192];
    uint32_t value;
    int file = open_node(O_RDWR), flags = fcntl(file, F_GETFL);
    long result = 0;

    if (strcmp(what, "write") == 0) {
        fcntl(file, F_SETFL, flags | O_NONBLOCK);
        while (write(file, bytes, sizeof(bytes)) > 0)
            ;
        fcntl(file, F_SETFL, flags);
    }
    puts("waits");
    fflush(stdout);
    errno = 0;
    if (strcmp(what, "read") == 0)
        result = read(file, bytes, 1);
    else if (strcmp(what, "write") == 0)
        result = write(file, bytes, 1);
    else if (strcmp(what, "poll") == 0)
        result = events_of(file, POLLIN, -1);
    else if (strcmp(what, "ioctl") == 0)
        result = ioctl(file, WAIT, &value);
    if (result < 0)
        printf("%s: %s\n", what, strerror(errno));
    else
        printf("%s: %ld\n", what, result);
    return 0;
}

int main(int count, char **arguments)
{
    // A check that hangs ends the client, and its children, too.
    if (count == 4 && strcmp(arguments[1], "wait") == 0) {
        node = arguments[3];
        return wait_in(arguments[2]);
    }
    if (count < 4)
        return 64;
    node = arguments[2];
    is_exec = strcmp(arguments[3], "exec") == 0;
    is_fuse = is_exec || strcmp(arguments[3], "fuse") == 0;
    if (strcmp(arguments[1], "queue") == 0)
        queue();
    else if (strcmp(arguments[1], "ioctl") == 0)
        counter(count == 5);
    else if (strcmp(arguments[1], "memory") == 0)
        memory();
    else if (strcmp(arguments[1], "mirror") == 0)
        mirror();
    else if (strcmp(arguments[1], "fifo") == 0)
        fifo();
    else if (strcmp(arguments[1], "positions") == 0)
        positions();
    else if (strcmp(arguments[1], "test") == 0)
        test();
    else
        return 64;
    printf("1..%d\n", tests);
    return failures != 0;
}
