/* SPDX-License-Identifier: GPL-2.0 */
#ifndef LINUX_KOBJECT_H
#define LINUX_KOBJECT_H

#include <linux/kref.h>
#include <linux/types.h>

struct kobject {
	const char *name;
	struct kobject *parent;
	struct kref kref;
};

static inline const char *kobject_name(const struct kobject *kobject)
{
	return kobject->name;
}

#endif
