/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef LINUX_VMALLOC_H
#define LINUX_VMALLOC_H

#include <linux/types.h>

void *vmalloc(unsigned long size) __malloc;
void *vzalloc(unsigned long size) __malloc;
void *vmalloc_user(unsigned long size) __malloc;
void vfree(const void *memory);
#define is_vmalloc_addr(address) false

#endif
