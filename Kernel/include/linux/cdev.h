/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Character devices. */
#ifndef LINUX_CDEV_H
#define LINUX_CDEV_H

#include <linux/device.h>
#include <linux/fs.h>
#include <linux/kdev_t.h>
#include <linux/list.h>

struct cdev {
	struct kobject kobj;
	struct module *owner;
	const struct file_operations *ops;
	struct list_head list;
	dev_t dev;
	unsigned int count;
	/* Of the runtime. */
	bool is_initialized;
	bool is_allocated;
	bool is_added;
	unsigned long pc;
};

void cdev_init(struct cdev *cdev, const struct file_operations *operations);
struct cdev *cdev_alloc(void);
int cdev_add(struct cdev *cdev, dev_t first, unsigned int count);
void cdev_del(struct cdev *cdev);
int cdev_device_add(struct cdev *cdev, struct device *device);
void cdev_device_del(struct cdev *cdev, struct device *device);
void cdev_set_parent(struct cdev *cdev, struct kobject *parent);

#endif
