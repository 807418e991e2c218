/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Classes of devices, and devices. A device with a number has a node in /dev. */
#ifndef LINUX_DEVICE_H
#define LINUX_DEVICE_H

#include <linux/dev_printk.h>
#include <linux/err.h>
#include <linux/export.h>
#include <linux/gfp.h>
#include <linux/kdev_t.h>
#include <linux/kobject.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/types.h>
#include <linux/uidgid.h>
#include <linux/version.h>

struct attribute_group;
struct device;
struct module;

struct class {
	const char *name;
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
	struct module *owner;
#else
	struct module *__no_owner;
#endif
	const struct attribute_group **class_groups;
	const struct attribute_group **dev_groups;
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
	int (*dev_uevent)(struct device *device, struct kobj_uevent_env *environment);
	char *(*devnode)(struct device *device, umode_t *mode);
#else
	int (*dev_uevent)(const struct device *device, struct kobj_uevent_env *environment);
	char *(*devnode)(const struct device *device, umode_t *mode);
#endif
	void (*class_release)(struct class *class);
	void (*dev_release)(struct device *device);
};

struct device {
	struct kobject kobj;
	struct device *parent;
	const char *init_name;
	struct class *class;
	void *driver_data;
	void *platform_data;
	dev_t devt;
	void (*release)(struct device *device);
	const struct attribute_group **groups;
	/* Of the runtime. */
	struct list_head entry;
	char __name[64];
	bool is_added;
	bool is_created;
	unsigned long pc;
};

struct class *__class_create(const char *name);
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
#define class_create(owner, name) ({ (void)(owner); __class_create(name); })
#else
#define class_create(name) __class_create(name)
#endif
void class_destroy(struct class *class);
int __must_check class_register(struct class *class);
void class_unregister(struct class *class);

struct device *device_create(struct class *class, struct device *parent, dev_t number, void *data, const char *fmt, ...) __printf(5, 6);
void device_destroy(struct class *class, dev_t number);
void device_initialize(struct device *device);
int __must_check device_add(struct device *device);
void device_del(struct device *device);
int __must_check device_register(struct device *device);
void device_unregister(struct device *device);
struct device *get_device(struct device *device);
void put_device(struct device *device);
int dev_set_name(struct device *device, const char *fmt, ...) __printf(2, 3);

static inline const char *dev_name(const struct device *device)
{
	return device->init_name ? device->init_name : device->kobj.name;
}

static inline void *dev_get_drvdata(const struct device *device)
{
	return device->driver_data;
}

static inline void dev_set_drvdata(struct device *device, void *data)
{
	device->driver_data = data;
}

void *devm_kmalloc(struct device *device, size_t size, gfp_t flags) __malloc;
void *devm_kzalloc(struct device *device, size_t size, gfp_t flags) __malloc;
void devm_kfree(struct device *device, const void *memory);

#endif
