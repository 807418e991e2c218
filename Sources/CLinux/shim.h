// What Linux has and Swift's Glibc module leaves out.
#ifndef CLINUX_SHIM_H
#define CLINUX_SHIM_H

#include <fcntl.h>
#include <mntent.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sys/vfs.h>

// These two need _GNU_SOURCE, which cannot be set for one module. O_DIRECT differs between architectures.
static const int CLINUX_O_DIRECT = __O_DIRECT;
static const short CLINUX_POSIX_SPAWN_SETSID = 0x80;

#endif
