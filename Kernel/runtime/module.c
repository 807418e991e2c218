// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * A guest's kernel module: what it registers, and the calls of its functions.
 *
 * All that a module registers is kept with the place in its code that registered it, so that rmmod can name what it has left behind.
 */
#include <linux/arm-smccc.h>
#include <linux/cdev.h>
#include <linux/ctype.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/kfifo.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/uaccess.h>
#include "runtime.h"
#include "system.h"

struct module __this_module;

/* The module may have no such function. */
extern typeof(init_module) init_module __weak;
extern typeof(cleanup_module) cleanup_module __weak;
extern const char __start_modinfo[] __weak, __stop_modinfo[] __weak;
extern const struct kernel_param __start_module_parameters[] __weak, __stop_module_parameters[] __weak;

/* The addresses of registers. No memory is there: the code has to use readb() and the like. */
#define REGISTERS_BEGIN 0x2aac00000000ULL
#define REGISTERS_END 0x2abc00000000ULL
#define MAPPINGS 256
#define REGIONS 64
/* An access of more bytes behind the program's buffer is an access of another address. */
#define USER_NEIGHBOURHOOD (1ULL << 30)

/* A range of device numbers. */
struct region {
	dev_t first;
	unsigned int count;
	const char *name;
	unsigned long pc;
	bool is_used;
	/* register_chrdev() has made it, with a device of its own. */
	struct cdev *cdev;
};

struct mapping {
	u64 begin;
	u64 size;
	u64 guest;
	u64 address;
	unsigned long pc;
	unsigned long unmap_pc;
	bool is_live;
	bool is_managed;
	/* An access behind the size has been told. */
	bool is_exceeded;
};

/* A node in /dev. */
struct node {
	struct list_head entry;
	struct inode inode;
	struct dentry dentry;
	char name[64];
	dev_t number;
	struct miscdevice *misc;
};

struct open_file {
	struct list_head entry;
	struct file file;
	u64 number;
	struct node *node;
	struct module *owner;
	struct cred cred;
	pid_t pid;
};

struct class_entry {
	struct list_head entry;
	struct class class;
	struct class *registered;
	char name[64];
	unsigned long pc;
};

static struct region regions[REGIONS];
static struct mapping mappings[MAPPINGS];
static int mapping_count;
static u64 next_mapping = REGISTERS_BEGIN;
static struct resource *resources;
static LIST_HEAD(cdevs);
static LIST_HEAD(devices);
static LIST_HEAD(classes);
static LIST_HEAD(miscs);
static LIST_HEAD(nodes);
static LIST_HEAD(files);
static struct class misc_class = { .name = "misc" };
static struct {
	struct miscdevice *misc;
	unsigned long pc;
} misc_places[64];

/*
 * Device numbers.
 */

static struct region *find_region(dev_t first, unsigned int count)
{
	for (int i = 0; i < REGIONS; i++) {
		struct region *region = &regions[i];

		if (region->is_used && first < region->first + region->count && region->first < first + count)
			return region;
	}
	return NULL;
}

static struct region *add_region(unsigned int major, unsigned int minor, unsigned int count, const char *name, int *error)
{
	if (major == 0) {
		/* The kernel looks for a free number here, from above. */
		for (major = 254; major >= 234 && find_region(MKDEV(major, 0), MINORMASK + 1); major--)
			;
		if (major < 234) {
			*error = -EBUSY;
			return NULL;
		}
	}
	if (major >= 512) {
		_printk(KERN_ERR "CHRDEV \"%s\" major requested (%u) is greater than the maximum (%u)\n", name, major, 511);
		*error = -EINVAL;
		return NULL;
	}
	if (major == MISC_MAJOR || find_region(MKDEV(major, minor), count)) {
		*error = -EBUSY;
		return NULL;
	}
	for (int i = 0; i < REGIONS; i++) {
		if (regions[i].is_used)
			continue;
		regions[i] = (struct region){
			.first = MKDEV(major, minor), .count = count, .name = name, .pc = runtime_caller(), .is_used = true,
		};
		return &regions[i];
	}
	*error = -ENOMEM;
	return NULL;
}

int alloc_chrdev_region(dev_t *first, unsigned int first_minor, unsigned int count, const char *name)
{
	int error;
	struct region *region = add_region(0, first_minor, count, name, &error);

	if (!region)
		return error;
	*first = region->first;
	return 0;
}

int register_chrdev_region(dev_t first, unsigned int count, const char *name)
{
	int error;

	return add_region(MAJOR(first), MINOR(first), count, name, &error) ? 0 : error;
}

void unregister_chrdev_region(dev_t first, unsigned int count)
{
	struct region *region = find_region(first, count);

	if (!region || region->first != first || region->count != count)
		runtime_finding("unregister_chrdev_region() of numbers that are not registered: %u:%u, count %u", MAJOR(first), MINOR(first),
				count);
	else
		region->is_used = false;
}

static void check_operations(const struct file_operations *operations)
{
	if (operations->mmap)
		runtime_finding("mmap is not supported here: the device's mmap() fails with ENODEV. Use --engine kernel for it");
	if ((operations->read_iter && !operations->read) || (operations->write_iter && !operations->write))
		runtime_finding("read_iter and write_iter are not supported here: use read and write, or --engine kernel");
}

int __register_chrdev(unsigned int major, unsigned int first_minor, unsigned int count, const char *name,
		      const struct file_operations *operations)
{
	int error = -ENOMEM;
	struct region *region = add_region(major, first_minor, count, name, &error);

	if (!region)
		return error;
	region->cdev = runtime_allocate(sizeof(*region->cdev));
	if (!region->cdev)
		return -ENOMEM;
	check_operations(operations);
	region->cdev->ops = operations;
	region->cdev->owner = operations->owner;
	region->cdev->dev = region->first;
	region->cdev->count = count;
	list_add_tail(&region->cdev->list, &cdevs);
	return major ? 0 : MAJOR(region->first);
}

void __unregister_chrdev(unsigned int major, unsigned int first_minor, unsigned int count, const char *name)
{
	struct region *region = find_region(MKDEV(major, first_minor), count);

	if (!region || !region->cdev) {
		runtime_finding("unregister_chrdev() of %u, \"%s\", which is not registered", major, name);
		return;
	}
	list_del(&region->cdev->list);
	runtime_free(region->cdev);
	*region = (struct region){ .is_used = false };
}

void cdev_init(struct cdev *cdev, const struct file_operations *operations)
{
	memset(cdev, 0, sizeof(*cdev));
	cdev->ops = operations;
	cdev->is_initialized = true;
}

struct cdev *cdev_alloc(void)
{
	struct cdev *cdev = runtime_allocate(sizeof(*cdev));

	if (cdev) {
		cdev->is_initialized = true;
		cdev->is_allocated = true;
	}
	return cdev;
}

int cdev_add(struct cdev *cdev, dev_t first, unsigned int count)
{
	struct cdev *other;

	if (!cdev->is_initialized)
		runtime_finding("cdev_add() without cdev_init() or cdev_alloc()");
	if (cdev->is_added) {
		runtime_finding("cdev_add() of a cdev that is added already at " RUNTIME_PLACE, cdev->pc);
		return -EBUSY;
	}
	list_for_each_entry(other, &cdevs, list) {
		if (first < other->dev + other->count && other->dev < first + count)
			return -EBUSY;
	}
	if (!find_region(first, count))
		runtime_finding("cdev_add() for %u:%u, whose numbers are not registered: alloc_chrdev_region() does it", MAJOR(first),
				MINOR(first));
	if (cdev->ops)
		check_operations(cdev->ops);
	cdev->dev = first;
	cdev->count = count;
	cdev->pc = runtime_caller();
	cdev->is_added = true;
	list_add_tail(&cdev->list, &cdevs);
	return 0;
}

void cdev_del(struct cdev *cdev)
{
	if (cdev->is_added)
		list_del(&cdev->list);
	else if (!cdev->is_allocated)
		runtime_finding("cdev_del() of a cdev that is not added");
	cdev->is_added = false;
	if (cdev->is_allocated)
		runtime_free(cdev);
}

int cdev_device_add(struct cdev *cdev, struct device *device)
{
	int error = 0;

	if (device->devt) {
		error = cdev_add(cdev, device->devt, 1);
		if (error)
			return error;
	}
	error = device_add(device);
	if (error && device->devt)
		cdev_del(cdev);
	return error;
}

void cdev_device_del(struct cdev *cdev, struct device *device)
{
	device_del(device);
	if (device->devt)
		cdev_del(cdev);
}

void cdev_set_parent(struct cdev *cdev, struct kobject *parent)
{
	cdev->kobj.parent = parent;
}

static struct cdev *find_cdev(dev_t number)
{
	struct cdev *cdev;

	list_for_each_entry(cdev, &cdevs, list) {
		if (number >= cdev->dev && number < cdev->dev + cdev->count)
			return cdev;
	}
	return NULL;
}

/*
 * Nodes, classes and devices.
 */

static struct node *find_node(const char *name)
{
	struct node *node;

	list_for_each_entry(node, &nodes, entry) {
		if (!strcmp(node->name, name))
			return node;
	}
	return NULL;
}

static void tell_node(enum channel_request kind, const struct node *node, umode_t mode)
{
	struct channel_message message = {
		.kind = kind, .length = strlen(node->name), .arguments = { MINOR(node->number), mode, MAJOR(node->number) },
	};

	runtime_keep_user_memory(runtime_task);
	memcpy(runtime_channel->data, node->name, message.length);
	runtime_request(&message);
}

static struct node *add_node(const char *name, dev_t number, umode_t mode, struct miscdevice *misc)
{
	struct node *node = runtime_allocate(sizeof(*node));

	if (!node)
		return NULL;
	strscpy(node->name, name, sizeof(node->name));
	for (char *byte = node->name; *byte; byte++) {
		if (*byte == '!')
			*byte = '/';
	}
	node->number = number;
	node->misc = misc;
	node->inode.i_mode = S_IFCHR | (mode ? mode : 0600);
	node->inode.i_rdev = number;
	node->dentry.d_name = (struct qstr){ .name = (unsigned char *)node->name, .len = strlen(node->name) };
	node->dentry.d_inode = &node->inode;
	list_add_tail(&node->entry, &nodes);
	tell_node(CHANNEL_NODE, node, mode);
	return node;
}

static void remove_node(dev_t number)
{
	struct node *node;

	list_for_each_entry(node, &nodes, entry) {
		if (node->number != number)
			continue;
		/* An open file still has it. */
		list_del(&node->entry);
		tell_node(CHANNEL_NODE_GONE, node, 0);
		return;
	}
}

static struct class_entry *find_class(const struct class *class)
{
	struct class_entry *entry;

	list_for_each_entry(entry, &classes, entry) {
		if (entry->registered == class)
			return entry;
	}
	return NULL;
}

static int add_class(struct class_entry *entry, struct class *class)
{
	struct class_entry *other;

	list_for_each_entry(other, &classes, entry) {
		if (!strcmp(other->registered->name, class->name)) {
			_printk(KERN_WARNING "sysfs: cannot create duplicate filename '/class/%s'\n", class->name);
			return -EEXIST;
		}
	}
	entry->registered = class;
	entry->pc = runtime_caller();
	list_add_tail(&entry->entry, &classes);
	return 0;
}

struct class *__class_create(const char *name)
{
	struct class_entry *entry = runtime_allocate(sizeof(*entry));
	int error;

	if (!entry)
		return ERR_PTR(-ENOMEM);
	strscpy(entry->name, name, sizeof(entry->name));
	entry->class.name = entry->name;
	error = add_class(entry, &entry->class);
	if (error) {
		runtime_free(entry);
		return ERR_PTR(error);
	}
	return &entry->class;
}

int class_register(struct class *class)
{
	struct class_entry *entry = runtime_allocate(sizeof(*entry));
	int error = entry ? add_class(entry, class) : -ENOMEM;

	if (error)
		runtime_free(entry);
	return error;
}

void class_unregister(struct class *class)
{
	struct class_entry *entry = find_class(class);
	struct device *device;

	if (!entry) {
		runtime_finding("class_unregister() of a class that is not registered");
		return;
	}
	list_for_each_entry(device, &devices, entry) {
		if (device->class == class)
			runtime_finding("class_destroy() of the class \"%s\", which still has the device \"%s\"", class->name, dev_name(device));
	}
	list_del(&entry->entry);
	runtime_free(entry);
}

void class_destroy(struct class *class)
{
	if (!IS_ERR_OR_NULL(class))
		class_unregister(class);
}

void device_initialize(struct device *device)
{
	kref_init(&device->kobj.kref);
	INIT_LIST_HEAD(&device->entry);
}

int dev_set_name(struct device *device, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vscnprintf(device->__name, sizeof(device->__name), fmt, args);
	va_end(args);
	device->kobj.name = device->__name;
	return 0;
}

int add_uevent_var(struct kobj_uevent_env *environment, const char *fmt, ...)
{
	char text[128];
	va_list args;

	va_start(args, fmt);
	vscnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (strstarts(text, "DEVMODE="))
		environment->mode = simple_strtoul(text + 8, NULL, 0);
	return 0;
}

int device_add(struct device *device)
{
	struct kobj_uevent_env environment = { .mode = 0 };
	struct device *other;
	umode_t mode = 0;
	char *name = NULL;

	if (device->init_name && !device->kobj.name)
		dev_set_name(device, "%s", device->init_name);
	if (!device->kobj.name || !device->kobj.name[0])
		return -EINVAL;
	list_for_each_entry(other, &devices, entry) {
		if (other->class == device->class && !strcmp(dev_name(other), dev_name(device))) {
			_printk(KERN_WARNING "sysfs: cannot create duplicate filename '/devices/virtual/%s/%s'\n",
				device->class ? device->class->name : "", dev_name(device));
			return -EEXIST;
		}
	}
	device->pc = runtime_caller();
	device->is_added = true;
	list_add_tail(&device->entry, &devices);
	if (device->class && device->class->devnode)
		name = device->class->devnode(device, &mode);
	if (device->class && device->class->dev_uevent && !device->class->dev_uevent(device, &environment) && environment.mode)
		mode = environment.mode;
	if (MAJOR(device->devt))
		add_node(name ? name : dev_name(device), device->devt, mode, NULL);
	kfree(name);
	return 0;
}

void device_del(struct device *device)
{
	if (!device->is_added) {
		runtime_finding("device_del() of a device that is not added");
		return;
	}
	device->is_added = false;
	list_del(&device->entry);
	if (MAJOR(device->devt))
		remove_node(device->devt);
}

int device_register(struct device *device)
{
	device_initialize(device);
	return device_add(device);
}

struct device *get_device(struct device *device)
{
	if (device)
		kref_get(&device->kobj.kref);
	return device;
}

static void release_device(struct kref *kref)
{
	struct device *device = container_of(kref, struct device, kobj.kref);

	if (device->release)
		device->release(device);
	else if (device->class && device->class->dev_release)
		device->class->dev_release(device);
	else if (device->is_created)
		runtime_free(device);
	else
		runtime_finding("Device '%s' does not have a release() function, it is broken and must be fixed.", dev_name(device));
}

void put_device(struct device *device)
{
	if (device)
		kref_put(&device->kobj.kref, release_device);
}

void device_unregister(struct device *device)
{
	device_del(device);
	put_device(device);
}

struct device *device_create(struct class *class, struct device *parent, dev_t number, void *data, const char *fmt, ...)
{
	struct device *device;
	va_list args;
	int error;

	if (IS_ERR_OR_NULL(class))
		return ERR_PTR(-ENODEV);
	device = runtime_allocate(sizeof(*device));
	if (!device)
		return ERR_PTR(-ENOMEM);
	device_initialize(device);
	va_start(args, fmt);
	vscnprintf(device->__name, sizeof(device->__name), fmt, args);
	va_end(args);
	device->kobj.name = device->__name;
	device->class = class;
	device->parent = parent;
	device->devt = number;
	device->driver_data = data;
	device->is_created = true;
	error = device_add(device);
	if (error) {
		runtime_free(device);
		return ERR_PTR(error);
	}
	return device;
}

void device_destroy(struct class *class, dev_t number)
{
	struct device *device;

	list_for_each_entry(device, &devices, entry) {
		if (device->class == class && device->devt == number) {
			device_unregister(device);
			return;
		}
	}
	runtime_finding("device_destroy(): the class has no device %u:%u", MAJOR(number), MINOR(number));
}

void *devm_kmalloc(struct device *device __maybe_unused, size_t size, gfp_t flags)
{
	return runtime_allocate(size + (flags & 0));
}

void *devm_kzalloc(struct device *device, size_t size, gfp_t flags)
{
	return devm_kmalloc(device, size, flags);
}

void devm_kfree(struct device *device __maybe_unused, const void *memory)
{
	runtime_free((void *)memory);
}

static void print_device(const char *level, const struct device *device, const char *fmt, va_list args)
{
	struct va_format format = { .fmt = fmt };
	va_list copy;

	va_copy(copy, args);
	format.va = &copy;
	if (device)
		_printk("%s%s %s: %pV", level, device->class ? device->class->name : "", dev_name(device), &format);
	else
		_printk("%s(NULL device *): %pV", level, &format);
	va_end(copy);
}

void _dev_printk(const char *level, const struct device *device, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	print_device(level, device, fmt, args);
	va_end(args);
}

int dev_err_probe(const struct device *device, int error, const char *fmt, ...)
{
	char text[256];
	va_list args;

	va_start(args, fmt);
	vscnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	_dev_printk(KERN_ERR, device, "error %pe: %s", ERR_PTR(error), text);
	return error;
}

static int misc_index(const struct miscdevice *misc)
{
	for (size_t i = 0; i < ARRAY_SIZE(misc_places); i++) {
		if (misc_places[i].misc == misc)
			return i;
	}
	return -1;
}

static bool has_minor(int minor)
{
	struct miscdevice *misc;

	list_for_each_entry(misc, &miscs, list) {
		if (misc->minor == minor)
			return true;
	}
	return false;
}

int misc_register(struct miscdevice *misc)
{
	bool is_dynamic = misc->minor == MISC_DYNAMIC_MINOR;
	struct device *device;
	int place = misc_index(NULL);

	if (misc_index(misc) >= 0) {
		runtime_finding("misc_register() of \"%s\", which is registered already at " RUNTIME_PLACE, misc->name,
				misc_places[misc_index(misc)].pc);
		return -EBUSY;
	}
	if (place < 0)
		return -ENOMEM;
	if (is_dynamic) {
		/* Dynamic numbers go down from 127. */
		for (misc->minor = 127; misc->minor > 0 && has_minor(misc->minor); misc->minor--)
			;
	} else if (has_minor(misc->minor)) {
		return -EBUSY;
	}
	device = runtime_allocate(sizeof(*device));
	if (!device)
		return -ENOMEM;
	if (!misc->name || find_node(misc->name)) {
		_printk(KERN_WARNING "sysfs: cannot create duplicate filename '/devices/virtual/misc/%s'\n", misc->name);
		runtime_free(device);
		if (is_dynamic)
			misc->minor = MISC_DYNAMIC_MINOR;
		return -EEXIST;
	}
	device_initialize(device);
	dev_set_name(device, "%s", misc->name);
	device->class = &misc_class;
	device->parent = misc->parent;
	device->driver_data = misc;
	device->devt = MKDEV(MISC_MAJOR, misc->minor);
	misc->this_device = device;
	check_operations(misc->fops);
	misc_places[place].misc = misc;
	misc_places[place].pc = runtime_caller();
	list_add(&misc->list, &miscs);
	add_node(misc->nodename ? misc->nodename : misc->name, device->devt, misc->mode, misc);
	return 0;
}

void misc_deregister(struct miscdevice *misc)
{
	int place = misc_index(misc);

	if (place < 0) {
		runtime_finding("misc_deregister() of a device that is not registered");
		return;
	}
	misc_places[place].misc = NULL;
	list_del(&misc->list);
	remove_node(MKDEV(MISC_MAJOR, misc->minor));
	runtime_free(misc->this_device);
	misc->this_device = NULL;
	if (misc->minor > 63)
		misc->minor = MISC_DYNAMIC_MINOR;
}

bool try_module_get(struct module *module)
{
	if (module)
		module->references++;
	return true;
}

void __module_get(struct module *module)
{
	try_module_get(module);
}

void module_put(struct module *module)
{
	if (!module)
		return;
	if (module->references <= 0)
		runtime_finding("module_put() without try_module_get()");
	else
		module->references--;
}

int module_refcount(struct module *module)
{
	return module->references;
}

/*
 * Parameters.
 */

#define DEFINE_NUMBER_PARAMETER(name, type, format, parse) \
static int set_##name(const char *value, const struct kernel_param *parameter) \
{ \
	return value ? parse(value, 0, (type *)parameter->arg) : -EINVAL; \
} \
static int get_##name(char *buffer, const struct kernel_param *parameter) \
{ \
	return scnprintf(buffer, 4096, format "\n", *(type *)parameter->arg); \
} \
const struct kernel_param_ops param_ops_##name = { .set = set_##name, .get = get_##name }

DEFINE_NUMBER_PARAMETER(byte, unsigned char, "%hhu", kstrtou8);
DEFINE_NUMBER_PARAMETER(short, short, "%hi", kstrtos16);
DEFINE_NUMBER_PARAMETER(ushort, unsigned short, "%hu", kstrtou16);
DEFINE_NUMBER_PARAMETER(int, int, "%i", kstrtoint);
DEFINE_NUMBER_PARAMETER(uint, unsigned int, "%u", kstrtouint);
DEFINE_NUMBER_PARAMETER(hexint, unsigned int, "%#08x", kstrtouint);
DEFINE_NUMBER_PARAMETER(long, long, "%li", kstrtol);
DEFINE_NUMBER_PARAMETER(ulong, unsigned long, "%lu", kstrtoul);
DEFINE_NUMBER_PARAMETER(ullong, unsigned long long, "%llu", kstrtoull);

int param_set_int(const char *value, const struct kernel_param *parameter)
{
	return set_int(value, parameter);
}

int param_get_int(char *buffer, const struct kernel_param *parameter)
{
	return get_int(buffer, parameter);
}

int param_set_uint(const char *value, const struct kernel_param *parameter)
{
	return set_uint(value, parameter);
}

int param_set_bool(const char *value, const struct kernel_param *parameter)
{
	/* The name alone sets it. */
	return kstrtobool(value ? value : "1", parameter->arg);
}

static int set_invbool(const char *value, const struct kernel_param *parameter)
{
	bool flag;
	int error = kstrtobool(value, &flag);

	if (!error)
		*(bool *)parameter->arg = !flag;
	return error;
}

static char *keep_text(const char *text)
{
	char *copy = runtime_allocate(strlen(text) + 1);

	return copy ? strcpy(copy, text) : NULL;
}

int param_set_charp(const char *value, const struct kernel_param *parameter)
{
	char *copy;

	if (!value)
		return -EINVAL;
	if (strlen(value) > 1024) {
		_printk(KERN_ERR "%s: string parameter too long\n", parameter->name);
		return -ENOSPC;
	}
	copy = keep_text(value);
	if (!copy)
		return -ENOMEM;
	*(char **)parameter->arg = copy;
	return 0;
}

static int set_string(const char *value, const struct kernel_param *parameter)
{
	if (!value || strlen(value) + 1 > parameter->str->maxlen) {
		_printk(KERN_ERR "%s: string doesn't fit in %u chars.\n", parameter->name, parameter->str->maxlen - 1);
		return -ENOSPC;
	}
	strcpy(parameter->str->string, value);
	return 0;
}

static int set_array(const char *value, const struct kernel_param *parameter)
{
	const struct kparam_array *array = parameter->arr;
	char text[1024];
	char *at = text, *part;
	unsigned int count = 0;

	if (!value || strscpy(text, value, sizeof(text)) < 0)
		return -EINVAL;
	while ((part = strsep(&at, ","))) {
		struct kernel_param element = *parameter;
		int error;

		if (count == array->max) {
			_printk(KERN_ERR "%s: can only take %i arguments\n", parameter->name, array->max);
			return -EINVAL;
		}
		element.ops = array->ops;
		element.arg = array->elem + count * array->elemsize;
		error = array->ops->set(part, &element);
		if (error)
			return error;
		count++;
	}
	if (array->num)
		*array->num = count;
	return 0;
}

const struct kernel_param_ops param_ops_charp = { .set = param_set_charp };
const struct kernel_param_ops param_ops_bool = { .flags = KERNEL_PARAM_OPS_FL_NOARG, .set = param_set_bool };
const struct kernel_param_ops param_ops_invbool = { .set = set_invbool };
const struct kernel_param_ops param_ops_string = { .set = set_string };
const struct kernel_param_ops param_array_ops = { .set = set_array };

/* In names of parameters, "-" and "_" are the same. */
static bool is_same_parameter(const char *a, const char *b)
{
	for (; *a && *b; a++, b++) {
		if ((*a == '-' ? '_' : *a) != (*b == '-' ? '_' : *b))
			return false;
	}
	return *a == *b;
}

static int set_parameter(const char *name, const char *value)
{
	for (const struct kernel_param *parameter = __start_module_parameters; parameter < __stop_module_parameters; parameter++) {
		int error;

		if (!is_same_parameter(name, parameter->name))
			continue;
		if (!value && !(parameter->ops->flags & KERNEL_PARAM_OPS_FL_NOARG))
			error = -EINVAL;
		else
			error = parameter->ops->set(value, parameter);
		if (error == -ENOSPC)
			_printk(KERN_ERR "%s: `%s' too large for parameter `%s'\n", __this_module.name, value ? value : "", name);
		else if (error)
			_printk(KERN_ERR "%s: `%s' invalid for parameter `%s'\n", __this_module.name, value ? value : "", name);
		return error;
	}
	_printk(KERN_WARNING "%s: unknown parameter '%s' ignored\n", __this_module.name, name);
	return 0;
}

/* "name=value name=value"; blanks in a value stand in quotes. */
static int set_parameters(char *text)
{
	int error = 0;

	for (text = skip_spaces(text); *text && !error; text = skip_spaces(text)) {
		char *name = text, *value = NULL, *end;
		bool is_quoted = false;

		if (*name == '"') {
			name++;
			text++;
			is_quoted = true;
		}
		for (end = text; *end && (is_quoted || !isspace((u8)*end)); end++) {
			if (*end == '=' && !value)
				value = end + 1;
			if (*end == '"')
				is_quoted = !is_quoted;
		}
		text = *end ? end + 1 : end;
		*end = 0;
		if (value) {
			size_t length;

			value[-1] = 0;
			if (*value == '"')
				value++;
			length = strlen(value);
			if (length && value[length - 1] == '"')
				value[length - 1] = 0;
		}
		error = set_parameter(name, value);
	}
	return error;
}

/*
 * The memory of the program.
 */

/* Gives a part of the program's memory. "most" becomes the bytes that are there, and the rest is only said to be there. */
static u8 *user_memory(u64 address, unsigned long count, bool is_write, unsigned long *most, const char *function)
{
	struct runtime_user_memory *user = &runtime_task->user;
	size_t limit = is_write ? user->writable : user->readable;
	u64 offset = address - user->address;

	runtime_may_sleep();
	if (!user->address || address < user->address || offset >= USER_NEIGHBOURHOOD || count > USER_NEIGHBOURHOOD)
		return NULL;
	if (offset + count > limit) {
		switch (runtime_task->message.kind) {
		case CHANNEL_IOCTL:
			/* The number of the command says how many bytes the program gives and takes: no others can be had. */
			runtime_finding("%s() of %lu bytes at byte %llu, but the number of the ioctl command has %zu bytes in this direction "
					"(_IOR, _IOW or _IOWR with the right type); it fails with EFAULT", function, count, offset, limit);
			return NULL;
		case CHANNEL_READ:
		case CHANNEL_WRITE:
			if (limit == 0 && user->readable + user->writable)
				runtime_finding("%s() of %lu bytes: the program's memory of this call is for the other direction", function, count);
			else
				runtime_finding("%s() of %lu bytes at byte %llu of the program's buffer, but the program's count is %zu: more than the "
						"caller's count", function, count, offset, limit);
			break;
		default:
			return NULL;
		}
	}
	*most = offset >= limit ? 0 : min_t(u64, count, limit - offset);
	if (is_write && *most) {
		size_t given = max(user->written, user->readable);

		/* Bytes that the code has not written are 0, and not bytes of an earlier call. */
		if (offset > given)
			memset(user->bytes + given, 0, offset - given);
		user->written = max_t(size_t, user->written, offset + *most);
	}
	return user->bytes + offset;
}

int __access_ok(unsigned long address, unsigned long size)
{
	return size <= (1UL << 47) && address <= (1UL << 47) - size;
}

unsigned long copy_to_user(void __user *to, const void *from, unsigned long count)
{
	unsigned long most = 0;
	u8 *memory;

	if (!count)
		return 0;
	memory = user_memory((u64)to, count, true, &most, "copy_to_user");
	if (!memory)
		return count;
	memcpy(memory, from, most);
	return 0;
}

unsigned long copy_from_user(void *to, const void __user *from, unsigned long count)
{
	unsigned long most = 0;
	u8 *memory;

	if (!count)
		return 0;
	memory = user_memory((u64)from, count, false, &most, "copy_from_user");
	if (!memory) {
		memset(to, 0, count);
		return count;
	}
	memcpy(to, memory, most);
	memset(to + most, 0, count - most);
	return 0;
}

unsigned long clear_user(void __user *to, unsigned long count)
{
	unsigned long most = 0;
	u8 *memory = count ? user_memory((u64)to, count, true, &most, "clear_user") : NULL;

	if (memory)
		memset(memory, 0, most);
	return memory ? 0 : count;
}

int __get_user_bytes(void *to, const void __user *from, unsigned int size)
{
	unsigned long most = 0;
	u8 *memory = user_memory((u64)from, size, false, &most, "get_user");

	if (!memory)
		return -EFAULT;
	memcpy(to, memory, most);
	return 0;
}

int __put_user_bytes(const void *from, void __user *to, unsigned int size)
{
	unsigned long most = 0;
	u8 *memory = user_memory((u64)to, size, true, &most, "put_user");

	if (!memory)
		return -EFAULT;
	memcpy(memory, from, most);
	return 0;
}

/* The bytes of a string that are there, without a finding if it has no end. */
static const u8 *user_text(u64 address, long *most)
{
	struct runtime_user_memory *user = &runtime_task->user;
	u64 offset = address - user->address;

	if (!user->address || address < user->address || offset >= user->readable)
		return NULL;
	*most = min_t(u64, *most, user->readable - offset);
	return user->bytes + offset;
}

long strncpy_from_user(char *to, const char __user *from, long count)
{
	long most = count, length;
	const u8 *text;

	if (count <= 0)
		return 0;
	text = user_text((u64)from, &most);
	if (!text)
		return -EFAULT;
	length = strnlen((const char *)text, most);
	memcpy(to, text, length);
	if (length < most) {
		to[length] = 0;
		return length;
	}
	if (most == count)
		return count;
	runtime_finding("strncpy_from_user(): the program's %ld bytes have no 0 at their end, so that the string goes on behind the caller's "
			"count", most);
	to[length] = 0;
	return length;
}

long strnlen_user(const char __user *from, long count)
{
	long most = count, length;
	const u8 *text = count > 0 ? user_text((u64)from, &most) : NULL;

	if (!text)
		return 0;
	length = strnlen((const char *)text, most);
	return length + 1;
}

int copy_struct_from_user(void *to, size_t size, const void __user *from, size_t user_size)
{
	size_t both = min(size, user_size);

	if (copy_from_user(to, from, both))
		return -EFAULT;
	memset(to + both, 0, size - both);
	for (size_t i = both; i < user_size; i++) {
		u8 byte;

		if (get_user(byte, (const u8 __user *)from + i))
			return -EFAULT;
		if (byte)
			return -E2BIG;
	}
	return 0;
}

void *memdup_user(const void __user *from, size_t size)
{
	void *memory = kmalloc(size, GFP_KERNEL);

	if (!memory)
		return ERR_PTR(-ENOMEM);
	if (copy_from_user(memory, from, size)) {
		kfree(memory);
		return ERR_PTR(-EFAULT);
	}
	return memory;
}

void *memdup_user_nul(const void __user *from, size_t size)
{
	char *memory = kmalloc(size + 1, GFP_KERNEL);

	if (!memory)
		return ERR_PTR(-ENOMEM);
	if (copy_from_user(memory, from, size)) {
		kfree(memory);
		return ERR_PTR(-EFAULT);
	}
	memory[size] = 0;
	return memory;
}

char *strndup_user(const char __user *from, long size)
{
	long length = strnlen_user(from, size);

	if (!length)
		return ERR_PTR(-EFAULT);
	if (length > size)
		return ERR_PTR(-EINVAL);
	return memdup_user_nul(from, length - 1);
}

ssize_t simple_read_from_buffer(void __user *to, size_t count, loff_t *position, const void *from, size_t available)
{
	loff_t begin = *position;
	size_t left;

	if (begin < 0)
		return -EINVAL;
	if ((u64)begin >= available || !count)
		return 0;
	count = min_t(size_t, count, available - begin);
	left = copy_to_user(to, from + begin, count);
	if (left == count)
		return -EFAULT;
	count -= left;
	*position = begin + count;
	return count;
}

ssize_t simple_write_to_buffer(void *to, size_t available, loff_t *position, const void __user *from, size_t count)
{
	loff_t begin = *position;
	size_t left;

	if (begin < 0)
		return -EINVAL;
	if ((u64)begin >= available || !count)
		return 0;
	count = min_t(size_t, count, available - begin);
	left = copy_from_user(to + begin, from, count);
	if (left == count)
		return -EFAULT;
	count -= left;
	*position = begin + count;
	return count;
}

#define KSTRTO_FROM_USER(name, parse, type) \
int name(const char __user *from, size_t count, unsigned int base, type *result) \
{ \
	char text[80]; \
 \
	count = min(count, sizeof(text) - 1); \
	if (copy_from_user(text, from, count)) \
		return -EFAULT; \
	text[count] = 0; \
	return parse(text, base, result); \
}

KSTRTO_FROM_USER(kstrtoull_from_user, kstrtoull, unsigned long long)
KSTRTO_FROM_USER(kstrtoul_from_user, kstrtoul, unsigned long)
KSTRTO_FROM_USER(kstrtol_from_user, kstrtol, long)
KSTRTO_FROM_USER(kstrtouint_from_user, kstrtouint, unsigned int)
KSTRTO_FROM_USER(kstrtoint_from_user, kstrtoint, int)
KSTRTO_FROM_USER(kstrtou8_from_user, kstrtou8, u8)

int kstrtobool_from_user(const char __user *from, size_t count, bool *result)
{
	char text[4];

	count = min(count, sizeof(text) - 1);
	if (copy_from_user(text, from, count))
		return -EFAULT;
	text[count] = 0;
	return kstrtobool(text, result);
}

/*
 * Queues in a ring.
 */

int __kfifo_alloc(struct __kfifo *fifo, unsigned int size, size_t esize, gfp_t flags)
{
	size = roundup_pow_of_two(size);
	*fifo = (struct __kfifo){ .esize = esize };
	if (size < 2)
		return -EINVAL;
	fifo->data = kmalloc_array(esize, size, flags);
	if (!fifo->data)
		return -ENOMEM;
	fifo->mask = size - 1;
	return 0;
}

int __kfifo_init(struct __kfifo *fifo, void *buffer, unsigned int size, size_t esize)
{
	size /= esize;
	if (!is_power_of_2(size))
		size = rounddown_pow_of_two(size);
	*fifo = (struct __kfifo){ .esize = esize, .data = buffer };
	if (size < 2)
		return -EINVAL;
	fifo->mask = size - 1;
	return 0;
}

void __kfifo_free(struct __kfifo *fifo)
{
	kfree(fifo->data);
	*fifo = (struct __kfifo){ .esize = 0 };
}

unsigned int __kfifo_in(struct __kfifo *fifo, const void *from, unsigned int count)
{
	count = min(count, fifo->mask + 1 - (fifo->in - fifo->out));
	for (unsigned int i = 0; i < count; i++)
		memcpy(fifo->data + (fifo->in++ & fifo->mask) * fifo->esize, from + i * fifo->esize, fifo->esize);
	return count;
}

unsigned int __kfifo_out(struct __kfifo *fifo, void *to, unsigned int count, bool is_peek)
{
	unsigned int at = fifo->out;

	count = min(count, fifo->in - fifo->out);
	for (unsigned int i = 0; i < count; i++)
		memcpy(to + i * fifo->esize, fifo->data + (at++ & fifo->mask) * fifo->esize, fifo->esize);
	if (!is_peek)
		fifo->out = at;
	return count;
}

int __kfifo_from_user(struct __kfifo *fifo, const void __user *from, unsigned long size, unsigned int *copied)
{
	unsigned int count = min_t(unsigned long, size / fifo->esize, fifo->mask + 1 - (fifo->in - fifo->out));

	*copied = 0;
	for (unsigned int i = 0; i < count; i++) {
		if (copy_from_user(fifo->data + (fifo->in & fifo->mask) * fifo->esize, from + i * fifo->esize, fifo->esize))
			return -EFAULT;
		fifo->in++;
		*copied += fifo->esize;
	}
	return 0;
}

int __kfifo_to_user(struct __kfifo *fifo, void __user *to, unsigned long size, unsigned int *copied)
{
	unsigned int count = min_t(unsigned long, size / fifo->esize, fifo->in - fifo->out);

	*copied = 0;
	for (unsigned int i = 0; i < count; i++) {
		if (copy_to_user(to + i * fifo->esize, fifo->data + (fifo->out & fifo->mask) * fifo->esize, fifo->esize))
			return -EFAULT;
		fifo->out++;
		*copied += fifo->esize;
	}
	return 0;
}

/*
 * Registers.
 */

static void __iomem *map_registers(phys_addr_t address, size_t size, bool is_managed)
{
	struct channel_message message = { .kind = CHANNEL_IOREMAP, .arguments = { address, size } };
	struct mapping *mapping;

	runtime_may_sleep();
	if (!size || address + size - 1 < address) {
		runtime_finding("ioremap() of %zu bytes at %#llx fails: the size is 0 or too large", size, address);
		return NULL;
	}
	if (mapping_count == MAPPINGS || size > REGISTERS_END - next_mapping - (2 << 16))
		return NULL;
	runtime_request(&message);
	if (!message.arguments[0])
		return NULL;
	mapping = &mappings[mapping_count++];
	*mapping = (struct mapping){
		.begin = next_mapping + offset_in_page(address), .size = size, .guest = message.arguments[0], .address = address,
		.pc = runtime_caller(), .is_live = true, .is_managed = is_managed,
	};
	next_mapping = ALIGN(mapping->begin + size, 1 << 16) + (1 << 16);
	return (void __iomem *)mapping->begin;
}

void __iomem *ioremap(phys_addr_t address, size_t size)
{
	return map_registers(address, size, false);
}

void __iomem *devm_ioremap(struct device *device __maybe_unused, resource_size_t address, resource_size_t size)
{
	return map_registers(address, size, true);
}

/* The mapping to whose pages an address belongs. */
static struct mapping *find_mapping(u64 address)
{
	for (int i = 0; i < mapping_count; i++) {
		if (address >= ALIGN_DOWN(mappings[i].begin, PAGE_SIZE) && address < PAGE_ALIGN(mappings[i].begin + mappings[i].size))
			return &mappings[i];
	}
	return NULL;
}

static void unmap(u64 address)
{
	struct mapping *mapping = find_mapping(address);
	struct channel_message message = { .kind = CHANNEL_IOUNMAP };

	if (!mapping) {
		runtime_finding("iounmap() of %#llx, which is no result of ioremap()", address);
		return;
	}
	if (!mapping->is_live) {
		runtime_finding("iounmap() of a mapping that is unmapped already at " RUNTIME_PLACE, mapping->unmap_pc);
		return;
	}
	mapping->is_live = false;
	mapping->unmap_pc = runtime_caller();
	message.arguments[0] = mapping->guest;
	runtime_request(&message);
}

void iounmap(volatile void __iomem *registers)
{
	unmap((u64)registers);
}

void devm_iounmap(struct device *device __maybe_unused, void __iomem *registers)
{
	unmap((u64)registers);
}

void *memremap(resource_size_t address __maybe_unused, size_t size __maybe_unused, unsigned long flags __maybe_unused)
{
	runtime_finding("memremap() is not supported here: use ioremap(), or --engine kernel");
	return NULL;
}

struct resource *request_mem_region(resource_size_t start, resource_size_t size, const char *name)
{
	struct resource *resource;

	for (resource = resources; resource; resource = resource->__next) {
		if (start <= resource->end && resource->start <= start + size - 1)
			return NULL;
	}
	resource = runtime_allocate(sizeof(*resource));
	if (!resource)
		return NULL;
	*resource = (struct resource){
		.start = start, .end = start + size - 1, .name = name, .flags = IORESOURCE_MEM, .__next = resources, .pc = runtime_caller(),
	};
	resources = resource;
	return resource;
}

void release_mem_region(resource_size_t start, resource_size_t size)
{
	for (struct resource **at = &resources; *at; at = &(*at)->__next) {
		struct resource *resource = *at;

		if (resource->start == start && resource->end == start + size - 1) {
			*at = resource->__next;
			runtime_free(resource);
			return;
		}
	}
	_printk(KERN_WARNING "Trying to free nonexistent resource <%016llx-%016llx>\n", start, start + size - 1);
}

/* The guest has stopped under the call: it never goes on. */
static void __noreturn abandon_call(void)
{
	runtime_task->message = (struct channel_message){ .call = runtime_task->message.call, .result = CHANNEL_STOPPED };
	runtime_end_call();
}

static u64 access_register(u64 address, unsigned int size, bool is_store, u64 value, const char *function)
{
	struct mapping *mapping = find_mapping(address);
	struct channel_message message;

	if (!mapping)
		runtime_fault(CHANNEL_FAULT_BUG, "Unable to handle kernel paging request: %s() of %#llx, which is no address of a mapping of ioremap()",
			      function, address);
	if (!mapping->is_live)
		runtime_fault(CHANNEL_FAULT_BUG, "Unable to handle kernel paging request: %s() after iounmap() at " RUNTIME_PLACE, function,
			      mapping->unmap_pc);
	if (address % size)
		runtime_fault(CHANNEL_FAULT_BUG, "Unhandled fault: alignment fault: %s() of %u bytes at offset %lld of the registers, which is no "
			      "multiple of %u", function, size, address - mapping->begin, size);
	if ((address < mapping->begin || address + size > mapping->begin + mapping->size) && !mapping->is_exceeded) {
		mapping->is_exceeded = true;
		runtime_finding("%s() of %u bytes at offset %lld of a mapping of %llu bytes (ioremap() at " RUNTIME_PLACE
				"); it works only because the rest of the page is mapped, too", function, size, address - mapping->begin,
				mapping->size, mapping->pc);
	}
	message = (struct channel_message){
		.kind = CHANNEL_ACCESS, .arguments = { mapping->guest + (address - mapping->begin), size, is_store, value },
	};
	runtime_request(&message);
	if (message.result)
		abandon_call();
	return message.arguments[0];
}

static bool is_register(u64 address)
{
	return address >= REGISTERS_BEGIN && address < REGISTERS_END;
}

/* A pointer that is none of registers is used as what it is: memory, or a fault. */
u64 __io_read(const volatile void __iomem *address, unsigned int size, const char *function)
{
	if (is_register((u64)address))
		return access_register((u64)address, size, false, 0, function);
	switch (size) {
	case 1:
		return *(const volatile u8 *)address;
	case 2:
		return *(const volatile u16 *)address;
	case 4:
		return *(const volatile u32 *)address;
	default:
		return *(const volatile u64 *)address;
	}
}

void __io_write(volatile void __iomem *address, unsigned int size, u64 value, const char *function)
{
	if (is_register((u64)address)) {
		access_register((u64)address, size, true, value, function);
		return;
	}
	switch (size) {
	case 1:
		*(volatile u8 *)address = value;
		break;
	case 2:
		*(volatile u16 *)address = value;
		break;
	case 4:
		*(volatile u32 *)address = value;
		break;
	default:
		*(volatile u64 *)address = value;
	}
}

/* As on arm64: bytes up to an address that is a multiple of 8, then words of 8 bytes, then bytes. */
void memcpy_fromio(void *to, const volatile void __iomem *from, size_t size)
{
	while (size) {
		unsigned int step = size >= 8 && (u64)from % 8 == 0 ? 8 : 1;
		u64 value = __io_read(from, step, "memcpy_fromio");

		memcpy(to, &value, step);
		to += step;
		from += step;
		size -= step;
	}
}

void memcpy_toio(volatile void __iomem *to, const void *from, size_t size)
{
	while (size) {
		unsigned int step = size >= 8 && (u64)to % 8 == 0 ? 8 : 1;
		u64 value = 0;

		memcpy(&value, from, step);
		__io_write(to, step, value, "memcpy_toio");
		to += step;
		from += step;
		size -= step;
	}
}

void memset_io(volatile void __iomem *to, int byte, size_t size)
{
	while (size) {
		unsigned int step = size >= 8 && (u64)to % 8 == 0 ? 8 : 1;

		__io_write(to, step, step == 8 ? REPEAT_BYTE((u8)byte) : (u8)byte, "memset_io");
		to += step;
		size -= step;
	}
}

void ioread8_rep(const volatile void __iomem *address, void *to, unsigned long count)
{
	for (u8 *byte = to; count; count--)
		*byte++ = __io_read(address, 1, "ioread8_rep");
}

void iowrite8_rep(volatile void __iomem *address, const void *from, unsigned long count)
{
	for (const u8 *byte = from; count; count--)
		__io_write(address, 1, *byte++, "iowrite8_rep");
}

void __arm_smccc_hvc(const unsigned long *arguments, struct arm_smccc_res *result)
{
	struct channel_message message = { .kind = CHANNEL_HVC };

	for (int i = 0; i < 7; i++)
		message.arguments[i] = arguments[i];
	runtime_request(&message);
	if (message.result)
		abandon_call();
	if (result)
		*result = (struct arm_smccc_res){ message.arguments[0], message.arguments[1], message.arguments[2], message.arguments[3] };
}

bool runtime_describe_address(struct channel_fault *fault)
{
	struct runtime_user_memory *user = &runtime_task->user;
	static const char *const verbs[] = { "reads", "writes", "jumps to" };
	const char *verb = verbs[fault->access];
	u64 address = fault->address;
	char *text = fault->text;
	size_t size = sizeof(fault->text);

	if ((address >= CHANNEL_USER_ADDRESS && address < CHANNEL_USER_ADDRESS + USER_NEIGHBOURHOOD) ||
	    (user->address && address >= user->address && address < user->address + max3(user->readable, user->writable, (size_t)1))) {
		snprintf(text, size, "Unable to handle kernel access to user memory outside uaccess routines: the code %s byte %llu of the program's "
			 "memory itself; it has to use copy_to_user(), copy_from_user(), get_user() or put_user()", verb,
			 address - (user->address ? user->address : CHANNEL_USER_ADDRESS));
		return true;
	}
	if (is_register(address)) {
		struct mapping *mapping = find_mapping(address);

		if (mapping)
			snprintf(text, size, "the code %s the register at offset %lld of the mapping of ioremap() at " RUNTIME_PLACE
				 " by a plain pointer; it has to use readb(), writeb() or the like", verb, address - mapping->begin, mapping->pc);
		else
			snprintf(text, size, "the code %s memory outside the mappings of ioremap()", verb);
		return true;
	}
	return false;
}

/*
 * Files.
 */

loff_t noop_llseek(struct file *file, loff_t offset __maybe_unused, int whence __maybe_unused)
{
	return file->f_pos;
}

loff_t no_llseek(struct file *file __maybe_unused, loff_t offset __maybe_unused, int whence __maybe_unused)
{
	return -ESPIPE;
}

loff_t vfs_setpos(struct file *file, loff_t offset, loff_t most)
{
	if (offset < 0 || offset > most)
		return -EINVAL;
	file->f_pos = offset;
	return offset;
}

static loff_t seek(struct file *file, loff_t offset, int whence, loff_t size, loff_t most)
{
	switch (whence) {
	case SEEK_SET:
		break;
	case SEEK_CUR:
		if (!offset)
			return file->f_pos;
		offset += file->f_pos;
		break;
	case SEEK_END:
		offset += size;
		break;
	case SEEK_DATA:
		if (offset < 0 || offset >= size)
			return -ENXIO;
		break;
	case SEEK_HOLE:
		if (offset < 0 || offset >= size)
			return -ENXIO;
		offset = size;
		break;
	default:
		return -EINVAL;
	}
	return vfs_setpos(file, offset, most);
}

loff_t default_llseek(struct file *file, loff_t offset, int whence)
{
	return seek(file, offset, whence, file->f_inode->i_size, S64_MAX);
}

loff_t generic_file_llseek(struct file *file, loff_t offset, int whence)
{
	return seek(file, offset, whence, file->f_inode->i_size, S64_MAX);
}

loff_t fixed_size_llseek(struct file *file, loff_t offset, int whence, loff_t size)
{
	return whence > SEEK_END ? -EINVAL : seek(file, offset, whence, size, size);
}

loff_t no_seek_end_llseek(struct file *file, loff_t offset, int whence)
{
	return whence == SEEK_SET || whence == SEEK_CUR ? seek(file, offset, whence, 0, S64_MAX) : -EINVAL;
}

int nonseekable_open(struct inode *inode __maybe_unused, struct file *file)
{
	file->f_mode &= ~(FMODE_LSEEK | FMODE_PREAD | FMODE_PWRITE);
	return 0;
}

int stream_open(struct inode *inode __maybe_unused, struct file *file)
{
	file->f_mode &= ~(FMODE_LSEEK | FMODE_PREAD | FMODE_PWRITE | FMODE_ATOMIC_POS);
	file->f_mode |= FMODE_STREAM;
	return 0;
}

int simple_open(struct inode *inode, struct file *file)
{
	if (inode->i_private)
		file->private_data = inode->i_private;
	return 0;
}

long compat_ptr_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	return file->f_op->unlocked_ioctl ? file->f_op->unlocked_ioctl(file, command, argument) : -ENOIOCTLCMD;
}

/* The daemon asks again after each wake-up: the queue is only looked at. */
void poll_wait(struct file *file __maybe_unused, wait_queue_head_t *queue, poll_table *table __maybe_unused)
{
	if (queue)
		waitqueue_active(queue);
}

static struct open_file *find_file(u64 number)
{
	struct open_file *file;

	list_for_each_entry(file, &files, entry) {
		if (file->number == number)
			return file;
	}
	return NULL;
}

static long open_node(struct channel_message *message)
{
	struct runtime_task *task = runtime_task;
	struct node *node = NULL;
	struct open_file *open;
	const struct file_operations *operations;
	struct cdev *cdev = NULL;
	long error;

	if (message->length) {
		char name[64];
		size_t length = min_t(size_t, message->length, sizeof(name) - 1);

		memcpy(name, runtime_channel->data, length);
		name[length] = 0;
		node = find_node(name);
	} else if (!list_empty(&nodes)) {
		node = list_first_entry(&nodes, struct node, entry);
	}
	message->length = 0;
	if (!node)
		return -ENXIO;
	if (!node->misc) {
		cdev = find_cdev(node->number);
		if (!cdev)
			return -ENXIO;
	}
	operations = node->misc ? node->misc->fops : cdev->ops;
	if (!operations)
		return -ENXIO;
	open = runtime_allocate(sizeof(*open));
	if (!open)
		return -ENOMEM;
	open->number = message->file;
	open->node = node;
	open->owner = operations->owner;
	open->cred = task->cred;
	open->pid = task->task.pid;
	node->inode.i_cdev = cdev;
	open->file = (struct file){
		.f_path.dentry = &node->dentry, .f_inode = &node->inode, .f_op = operations, .f_flags = message->arguments[0],
		.f_mode = ((message->arguments[0] + 1) & 3) | FMODE_LSEEK | FMODE_PREAD | FMODE_PWRITE | FMODE_ATOMIC_POS,
		.f_cred = &open->cred, .private_data = node->misc,
	};
	if (!operations->llseek)
		open->file.f_mode &= ~FMODE_LSEEK;
	try_module_get(open->owner);
	list_add_tail(&open->entry, &files);
	error = operations->open ? operations->open(&node->inode, &open->file) : 0;
	runtime_check_locks(task, "open");
	if (error > 0)
		runtime_finding_at((unsigned long)operations->open, "open() returned %ld: it has to return 0 or an error below 0", error);
	if (error) {
		list_del(&open->entry);
		module_put(open->owner);
		runtime_free(open);
	} else {
		message->arguments[0] = !(open->file.f_mode & FMODE_PREAD);
	}
	return error;
}

static void release_file(struct open_file *open)
{
	const struct file_operations *operations = open->file.f_op;

	if (operations->flush)
		operations->flush(&open->file, NULL);
	if (operations->release)
		operations->release(open->file.f_inode, &open->file);
	runtime_check_locks(runtime_task, "release");
	list_del(&open->entry);
	module_put(open->owner);
	runtime_free(open);
}

/* Sets the memory of the program for a call. */
static void set_user_memory(u64 address, size_t readable, size_t writable)
{
	runtime_task->user = (struct runtime_user_memory){
		.address = address, .bytes = runtime_channel->data, .readable = min_t(size_t, readable, CHANNEL_DATA_SIZE),
		.writable = min_t(size_t, writable, CHANNEL_DATA_SIZE),
	};
}

/* Gives the program's bytes to the daemon. */
static u32 return_user_memory(void)
{
	struct runtime_user_memory *user = &runtime_task->user;

	if (user->is_private) {
		memcpy(runtime_channel->data, user->bytes, user->written);
		runtime_free(user->bytes);
	}
	return user->written;
}

static long transfer(struct open_file *open, struct channel_message *message, bool is_write)
{
	const struct file_operations *operations = open->file.f_op;
	size_t count = message->arguments[0];
	loff_t position = message->arguments[1];
	loff_t *place = open->file.f_mode & FMODE_STREAM ? NULL : &position;
	char __user *buffer = (char __user *)CHANNEL_USER_ADDRESS;
	long result;

	open->file.f_flags = message->arguments[2];
	open->file.f_pos = position;
	if (!(is_write ? (void *)operations->write : (void *)operations->read)) {
		message->length = 0;
		message->arguments[0] = position;
		return -EINVAL;
	}
	if (message->arguments[3] & 1)
		set_user_memory(0, 0, 0);
	else if (is_write)
		set_user_memory(CHANNEL_USER_ADDRESS, min_t(size_t, count, message->length), 0);
	else
		set_user_memory(CHANNEL_USER_ADDRESS, 0, count);
	message->length = 0;
	result = is_write ? operations->write(&open->file, buffer, count, place) : operations->read(&open->file, buffer, count, place);
	runtime_check_locks(runtime_task, is_write ? "write" : "read");
	if (result > (long)count && count)
		runtime_finding_at(is_write ? (unsigned long)operations->write : (unsigned long)operations->read,
				   "%s() returned %ld, more than the caller's count %zu", is_write ? "write" : "read", result, count);
	else if (!is_write && result > (long)runtime_task->user.written && count)
		runtime_finding_at((unsigned long)operations->read, "read() returned %ld, but has copied only %zu bytes to the program", result,
				   runtime_task->user.written);
	message->arguments[0] = position;
	open->file.f_pos = position;
	message->length = is_write ? 0 : return_user_memory();
	if (is_write)
		return_user_memory();
	return result;
}

static long control(struct open_file *open, struct channel_message *message)
{
	const struct file_operations *operations = open->file.f_op;
	long result;

	open->file.f_flags = message->arguments[2];
	if (!operations->unlocked_ioctl) {
		message->length = 0;
		return -ENOTTY;
	}
	set_user_memory(message->arguments[1], message->length, message->arguments[3]);
	message->length = 0;
	result = operations->unlocked_ioctl(&open->file, message->arguments[0], message->arguments[1]);
	runtime_check_locks(runtime_task, "unlocked_ioctl");
	message->length = return_user_memory();
	return result == -ENOIOCTLCMD ? -ENOTTY : result;
}

/*
 * insmod and rmmod.
 */

/* Reports all that the module has left. Returns the number of findings. */
static unsigned int report_rest(const char *reason)
{
	unsigned int count = 0;
	struct class_entry *class;
	struct device *device;
	struct miscdevice *misc;
	struct cdev *cdev;

#define REST(pc, fmt, ...) (count++, runtime_finding_at(pc, "%s: " fmt, reason, ##__VA_ARGS__))
	list_for_each_entry(misc, &miscs, list)
		REST(misc_places[misc_index(misc)].pc, "the device \"%s\" is still registered: misc_deregister() is missing", misc->name);
	list_for_each_entry(device, &devices, entry)
		REST(device->pc, "the device \"%s\" still exists: %s() is missing", dev_name(device),
		     device->is_created ? "device_destroy" : "device_unregister");
	list_for_each_entry(class, &classes, entry)
		REST(class->pc, "the class \"%s\" still exists: %s() is missing", class->registered->name,
		     class->registered == &class->class ? "class_destroy" : "class_unregister");
	list_for_each_entry(cdev, &cdevs, list) {
		struct region *region = find_region(cdev->dev, cdev->count);

		if (!region || region->cdev != cdev)
			REST(cdev->pc, "the cdev of %u:%u is still added: cdev_del() is missing", MAJOR(cdev->dev), MINOR(cdev->dev));
	}
	for (int i = 0; i < REGIONS; i++) {
		if (regions[i].is_used)
			REST(regions[i].pc, "the device numbers of \"%s\" (major %u) are still registered: %s() is missing", regions[i].name,
			     MAJOR(regions[i].first), regions[i].cdev ? "unregister_chrdev" : "unregister_chrdev_region");
	}
	for (int i = 0; i < mapping_count; i++) {
		if (mappings[i].is_live && !mappings[i].is_managed)
			REST(mappings[i].pc, "the registers at %#llx are still mapped: iounmap() is missing", mappings[i].address);
	}
	for (struct resource *resource = resources; resource; resource = resource->__next)
		REST(resource->pc, "the region \"%s\" at %#llx is still requested: release_mem_region() is missing", resource->name, resource->start);
#undef REST
	return count + runtime_report_memory();
}

/* The text behind "tag=" in what MODULE_LICENSE() and the like have said; NULL if none has. */
static const char *module_information(const char *tag)
{
	for (const char *text = __start_modinfo; text < __stop_modinfo; text += strlen(text) + 1) {
		if (strstarts(text, tag))
			return text + strlen(tag);
	}
	return NULL;
}

static long start_module(struct channel_message *message)
{
	size_t length = min_t(size_t, message->length, CHANNEL_DATA_SIZE - 1);
	char *text = runtime_allocate(length + 1);
	long error;

	if (!text)
		return -ENOMEM;
	memcpy(text, runtime_channel->data, length);
	message->length = 0;
	__this_module.name = module_information("name=");
	if (!__this_module.name)
		__this_module.name = "module";
	if (!module_information("license="))
		runtime_finding_at((unsigned long)init_module, "ERROR: modpost: missing MODULE_LICENSE(): the kernel's build refuses this module");
	error = set_parameters(text);
	runtime_free(text);
	if (error)
		return error;
	error = init_module ? init_module() : 0;
	runtime_check_locks(runtime_task, "the init function");
	if (error > 0)
		runtime_finding_at((unsigned long)init_module, "the init function returned %ld: it has to return 0 or an error below 0", error);
	if (error < 0)
		report_rest("the init function has failed, and has left something behind");
	else if (list_empty(&nodes))
		runtime_finding_at((unsigned long)init_module, "the module has made no node in /dev: class_create() and device_create(), or "
				   "misc_register(), make one");
	return min(error, 0L);
}

static long stop_module(void)
{
	struct open_file *open;

	list_for_each_entry(open, &files, entry) {
		if (open->owner)
			return -EWOULDBLOCK;
		runtime_finding("rmmod while a file of the module is open: .owner = THIS_MODULE is missing in the file operations, and the kernel would "
				"call code that is gone");
	}
	if (__this_module.references > 0) {
		runtime_finding("rmmod is not possible: module_put() is missing for %d references of try_module_get()", __this_module.references);
		return -EWOULDBLOCK;
	}
	if (init_module && !cleanup_module) {
		runtime_finding_at((unsigned long)init_module, "rmmod is not possible: the module has an init function, and no exit function");
		return -EBUSY;
	}
	if (cleanup_module) {
		cleanup_module();
		runtime_check_locks(runtime_task, "the exit function");
	}
	report_rest("rmmod");
	return 0;
}

static long perform(struct channel_message *message)
{
	struct open_file *open = NULL;
	struct task_struct *task = &runtime_task->task;

	task->pid = task->tgid = message->kind == CHANNEL_OPEN ? message->arguments[3] : 1;
	strscpy(task->comm, message->kind == CHANNEL_START ? "insmod" : message->kind == CHANNEL_STOP ? "rmmod" : "program", sizeof(task->comm));
	if (message->kind == CHANNEL_OPEN) {
		kuid_t uid = KUIDT_INIT(message->arguments[1]);
		kgid_t gid = KGIDT_INIT(message->arguments[2]);

		runtime_task->cred = (struct cred){ uid, uid, uid, uid, gid, gid, gid, gid };
		return open_node(message);
	}
	if (message->kind == CHANNEL_START)
		return start_module(message);
	if (message->kind == CHANNEL_STOP)
		return stop_module();
	open = find_file(message->file);
	if (!open) {
		message->length = 0;
		return -EBADF;
	}
	/* The program that has opened the file makes its calls. */
	runtime_task->cred = open->cred;
	task->pid = task->tgid = open->pid;
	switch (message->kind) {
	case CHANNEL_RELEASE:
		release_file(open);
		return 0;
	case CHANNEL_READ:
		return transfer(open, message, false);
	case CHANNEL_WRITE:
		return transfer(open, message, true);
	case CHANNEL_IOCTL:
		return control(open, message);
	case CHANNEL_LLSEEK: {
		long result;

		open->file.f_pos = message->arguments[2];
		result = open->file.f_op->llseek && (open->file.f_mode & FMODE_LSEEK) ?
			open->file.f_op->llseek(&open->file, message->arguments[0], message->arguments[1]) : -ESPIPE;
		runtime_check_locks(runtime_task, "llseek");
		message->arguments[0] = open->file.f_pos;
		return result;
	}
	case CHANNEL_POLL: {
		poll_table table = { ._key = ~(__poll_t)0 };
		long result;

		open->file.f_flags = message->arguments[0];
		result = open->file.f_op->poll ? open->file.f_op->poll(&open->file, &table) : DEFAULT_POLLMASK;
		runtime_check_locks(runtime_task, "poll");
		return result;
	}
	}
	return -ENOSYS;
}

void runtime_call(struct runtime_task *task)
{
	struct channel_message *message = &task->message;

	message->result = perform(message);
	/* The error that the kernel gives to a program when no other call is to be made again. */
	if (message->result <= -ERESTARTSYS && message->result >= -ERESTARTNOHAND)
		message->result = -EINTR;
}
