/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef LINUX_KOBJECT_H
#define LINUX_KOBJECT_H

#include <linux/compiler.h>
#include <linux/kref.h>
#include <linux/types.h>

struct kobject {
	const char *name;
	struct kobject *parent;
	struct kref kref;
};

/* The variables of an event of a device, for udev. Here, DEVMODE counts: the mode of the node. */
struct kobj_uevent_env {
	unsigned int mode;
};

int add_uevent_var(struct kobj_uevent_env *environment, const char *fmt, ...) __printf(2, 3);

static inline const char *kobject_name(const struct kobject *kobject)
{
	return kobject->name;
}

#endif
