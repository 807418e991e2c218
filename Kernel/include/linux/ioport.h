/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Areas of physical addresses that a driver has taken. */
#ifndef LINUX_IOPORT_H
#define LINUX_IOPORT_H

#include <linux/types.h>

struct resource {
	resource_size_t start;
	resource_size_t end;
	const char *name;
	unsigned long flags;
	/* Of the runtime. */
	struct resource *__next;
	unsigned long pc;
};

#define IORESOURCE_MEM 0x200

static inline resource_size_t resource_size(const struct resource *resource)
{
	return resource->end - resource->start + 1;
}

struct resource *request_mem_region(resource_size_t start, resource_size_t size, const char *name);
void release_mem_region(resource_size_t start, resource_size_t size);

#endif
