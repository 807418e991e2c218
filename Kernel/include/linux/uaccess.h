/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The memory of the program that makes the call. */
#ifndef LINUX_UACCESS_H
#define LINUX_UACCESS_H

#include <linux/kernel.h>
#include <linux/sched.h>
#include <linux/types.h>

#define access_ok(address, size) __access_ok((unsigned long)(address), size)
int __access_ok(unsigned long address, unsigned long size);

/* These return the number of bytes that could not be copied. */
unsigned long __must_check copy_to_user(void __user *to, const void *from, unsigned long count);
unsigned long __must_check copy_from_user(void *to, const void __user *from, unsigned long count);
unsigned long __must_check clear_user(void __user *to, unsigned long count);
long __must_check strncpy_from_user(char *to, const char __user *from, long count);
long __must_check strnlen_user(const char __user *text, long count);
int __must_check copy_struct_from_user(void *to, size_t size, const void __user *from, size_t user_size);
#define __copy_to_user(to, from, count) copy_to_user(to, from, count)
#define __copy_from_user(to, from, count) copy_from_user(to, from, count)
#define __copy_to_user_inatomic(to, from, count) copy_to_user(to, from, count)
#define __copy_from_user_inatomic(to, from, count) copy_from_user(to, from, count)
#define __clear_user(to, count) clear_user(to, count)

int __get_user_bytes(void *to, const void __user *from, unsigned int size);
int __put_user_bytes(const void *from, void __user *to, unsigned int size);

#define get_user(x, pointer) ({ \
	u64 __user_value = 0; \
	int __user_error; \
	BUILD_BUG_ON(sizeof(*(pointer)) > 8); \
	__user_error = __get_user_bytes(&__user_value, pointer, sizeof(*(pointer))); \
	(x) = (__typeof__(*(pointer)))__user_value; \
	__user_error; })
#define put_user(x, pointer) ({ \
	__typeof__(*(pointer)) __user_value = (x); \
	__put_user_bytes(&__user_value, pointer, sizeof(*(pointer))); })
#define __get_user(x, pointer) get_user(x, pointer)
#define __put_user(x, pointer) put_user(x, pointer)

#endif
