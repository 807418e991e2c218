/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef LINUX_CONTAINER_OF_H
#define LINUX_CONTAINER_OF_H

#include <linux/build_bug.h>
#include <linux/compiler.h>
#include <linux/stddef.h>

#define container_of(pointer, type, member) ({ \
	void *__member_pointer = (void *)(pointer); \
	_Static_assert(__same_type(*(pointer), ((type *)0)->member) || __same_type(*(pointer), void), \
		       "pointer type mismatch in container_of()"); \
	((type *)(__member_pointer - offsetof(type, member))); })

#endif
