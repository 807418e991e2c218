/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Devices that share major 10. */
#ifndef LINUX_MISCDEVICE_H
#define LINUX_MISCDEVICE_H

#include <linux/device.h>
#include <linux/fs.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/types.h>

#define MISC_MAJOR 10
#define MISC_DYNAMIC_MINOR 255

struct miscdevice {
	int minor;
	const char *name;
	const struct file_operations *fops;
	struct list_head list;
	struct device *parent;
	struct device *this_device;
	const struct attribute_group **groups;
	const char *nodename;
	umode_t mode;
};

int misc_register(struct miscdevice *misc);
void misc_deregister(struct miscdevice *misc);
#define module_misc_device(misc) \
	static int __init misc##_module_init(void) { return misc_register(&misc); } \
	module_init(misc##_module_init); \
	static void __exit misc##_module_exit(void) { misc_deregister(&misc); } \
	module_exit(misc##_module_exit)

#endif
