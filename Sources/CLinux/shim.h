// What Linux has and Swift's Glibc module leaves out.
#ifndef CLINUX_SHIM_H
#define CLINUX_SHIM_H

#include <fcntl.h>
#include <stdint.h>
#include <mntent.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/vfs.h>
#include <time.h>

// These two need _GNU_SOURCE, which cannot be set for one module. O_DIRECT differs between architectures.
static const int CLINUX_O_DIRECT = __O_DIRECT;
static const short CLINUX_POSIX_SPAWN_SETSID = 0x80;

// Nanoseconds since the host was started, without the time that it was suspended. In C, as Swift would take struct timespec
// from whichever module it saw it in first.
static inline uint64_t clinux_monotonic_nanoseconds(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * UINT64_C(1000000000) + time.tv_nsec;
}

#endif
