/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* System calls of the runtime: it has no C library. */
#ifndef SYSTEM_H
#define SYSTEM_H

#include <linux/types.h>

#if defined(__x86_64__)
#define SYSTEM_ARCHITECTURE 0xc000003eu
enum {
	SYS_READ = 0, SYS_WRITE = 1, SYS_CLOSE = 3, SYS_POLL = 7, SYS_MMAP = 9, SYS_MPROTECT = 10, SYS_MUNMAP = 11, SYS_BRK = 12,
	SYS_RT_SIGACTION = 13, SYS_RT_SIGPROCMASK = 14, SYS_RT_SIGRETURN = 15, SYS_SCHED_YIELD = 24, SYS_MREMAP = 25, SYS_MADVISE = 28,
	SYS_NANOSLEEP = 35, SYS_SETITIMER = 38, SYS_GETPID = 39, SYS_RECVMSG = 47, SYS_EXIT = 60, SYS_SIGALTSTACK = 131,
	SYS_PRCTL = 157, SYS_GETTID = 186, SYS_FUTEX = 202, SYS_CLOCK_GETTIME = 228, SYS_CLOCK_NANOSLEEP = 230, SYS_EXIT_GROUP = 231,
	SYS_PPOLL = 271, SYS_GETRANDOM = 318,
	/* Sanitizers try these. */
	SYS_OPEN = 2, SYS_STAT = 4, SYS_FSTAT = 5, SYS_LSEEK = 8, SYS_IOCTL = 16, SYS_CLONE = 56, SYS_READLINK = 89,
	SYS_SCHED_GETAFFINITY = 204, SYS_OPENAT = 257, SYS_NEWFSTATAT = 262, SYS_READLINKAT = 267, SYS_PRLIMIT64 = 302,
};

static inline long system_call(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}
#elif defined(__aarch64__)
#define SYSTEM_ARCHITECTURE 0xc00000b7u
enum {
	SYS_READ = 63, SYS_WRITE = 64, SYS_CLOSE = 57, SYS_POLL = 73, SYS_MMAP = 222, SYS_MPROTECT = 226, SYS_MUNMAP = 215, SYS_BRK = 214,
	SYS_RT_SIGACTION = 134, SYS_RT_SIGPROCMASK = 135, SYS_RT_SIGRETURN = 139, SYS_SCHED_YIELD = 124, SYS_MREMAP = 216,
	SYS_MADVISE = 233, SYS_NANOSLEEP = 101, SYS_SETITIMER = 103, SYS_GETPID = 172, SYS_RECVMSG = 212, SYS_EXIT = 93,
	SYS_SIGALTSTACK = 132, SYS_PRCTL = 167, SYS_GETTID = 178, SYS_FUTEX = 98, SYS_CLOCK_GETTIME = 113, SYS_CLOCK_NANOSLEEP = 115,
	SYS_EXIT_GROUP = 94, SYS_PPOLL = 73, SYS_GETRANDOM = 278,
	/* Sanitizers try these. Calls that only x86-64 has stand for their successors. */
	SYS_OPEN = 56, SYS_STAT = 79, SYS_FSTAT = 80, SYS_LSEEK = 62, SYS_IOCTL = 29, SYS_CLONE = 220, SYS_READLINK = 78,
	SYS_SCHED_GETAFFINITY = 123, SYS_OPENAT = 56, SYS_NEWFSTATAT = 79, SYS_READLINKAT = 78, SYS_PRLIMIT64 = 261,
};

static inline long system_call(long number, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
}
#else
#error "The runtime has no code for this architecture yet: x86_64 and arm64 are supported."
#endif

#define SYSTEM_CALL_6(number, a, b, c, d, e, f, ...) \
	system_call(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define system(number, ...) SYSTEM_CALL_6(number, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)

#define PROT_NONE 0
#define PROT_READ 1
#define PROT_WRITE 2
#define PROT_EXEC 4
#define MAP_SHARED 1
#define MAP_PRIVATE 2
#define MAP_FIXED_NOREPLACE 0x100000
#define MAP_ANONYMOUS 0x20
#define MAP_NORESERVE 0x4000
#define MADV_DONTNEED 4

struct system_timespec {
	long tv_sec;
	long tv_nsec;
};

#endif
