// SPDX-License-Identifier: GPL-2.0
/* A module that wants more than a module can have: it opens a file of the machine by a system call. The sandbox ends its process. */
#include <linux/module.h>

static long open_file(const char *name)
{
#if defined(__x86_64__)
	long result = 2;

	__asm__ volatile("syscall" : "+a"(result) : "D"(name), "S"(0), "d"(0) : "rcx", "r11", "memory");
	return result;
#else
	register long number __asm__("x8") = 56;
	register long result __asm__("x0") = -100;

	__asm__ volatile("svc #0" : "+r"(result) : "r"(number), "r"(name) : "memory");
	return result;
#endif
}

/* It does not wait for insmod. */
static void __attribute__((constructor)) early(void)
{
	open_file("/etc/passwd");
}

static int __init call_init(void)
{
	pr_info("a file is open: %ld\n", open_file("/etc/passwd"));
	return 0;
}

module_init(call_init);
MODULE_LICENSE("GPL");
