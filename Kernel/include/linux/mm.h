/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef LINUX_MM_H
#define LINUX_MM_H

#include <linux/bug.h>
#include <linux/gfp.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <asm/page.h>

/* A mapping of a program. No mapping is ever made here: mmap() of a module is not supported. */
struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	unsigned long vm_pgoff;
	unsigned long vm_flags;
	struct { unsigned long pgprot; } vm_page_prot;
	const struct vm_operations_struct *vm_ops;
	void *vm_private_data;
	struct file *vm_file;
};

typedef unsigned int vm_fault_t;
struct vm_operations_struct {
	void (*open)(struct vm_area_struct *area);
	void (*close)(struct vm_area_struct *area);
};

#define VM_IO 0x4000ul
#define VM_DONTEXPAND 0x40000ul
#define VM_DONTDUMP 0x4000000ul
#define pgprot_noncached(protection) (protection)
#define remap_pfn_range(area, address, frame, size, protection) (-38)
#define io_remap_pfn_range(area, address, frame, size, protection) (-38)
#define vm_iomap_memory(area, start, length) (-38)

#endif
