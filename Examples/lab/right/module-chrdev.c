// SPDX-License-Identifier: GPL-2.0
/*
 * The old style: register_chrdev() with a dynamic major, a class, and a device of it. Reads and writes log what they do, and write() takes all
 * bytes of a call, of which the last one stays.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/device.h>
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/io.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/uaccess.h>
#include <linux/version.h>

#define DEVICE_NAME "virt_walker"
#define CLASS_NAME "walker"

static int major;
static struct class *walker_class;
static struct device *walker_device;
static void __iomem *mmio;

static int dev_open(struct inode *inodep, struct file *filep)
{
	pr_info("device opened, minor %u\n", iminor(inodep));
	return 0;
}

static int dev_release(struct inode *inodep, struct file *filep)
{
	pr_info("device closed\n");
	return 0;
}

static ssize_t dev_read(struct file *filep, char *buffer, size_t len, loff_t *offset)
{
	char value = ioread8(mmio + 1);

	pr_info("read %zu bytes, value 0x%02x\n", len, value);
	if (put_user(value, buffer))
		return -EFAULT;
	return sizeof(value);
}

static ssize_t dev_write(struct file *filep, const char *buffer, size_t len, loff_t *offset)
{
	size_t i;

	for (i = 0; i < len; i++) {
		char value;

		if (get_user(value, buffer + i))
			return -EFAULT;
		iowrite8(value, mmio);
	}
	pr_info("wrote %ld bytes\n", len);
	return len;
}

static struct file_operations fops = {
	.owner = THIS_MODULE,
	.open = dev_open,
	.read = dev_read,
	.write = dev_write,
	.release = dev_release,
};

static int __init walker_init(void)
{
	int ret;

	mmio = ioremap(0x0b000000, 2);
	if (!mmio) {
		pr_alert("cannot map the registers\n");
		return -ENOMEM;
	}
	major = register_chrdev(0, DEVICE_NAME, &fops);
	if (major < 0) {
		pr_alert("failed to register a major number\n");
		ret = major;
		goto unmap;
	}
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	walker_class = class_create(CLASS_NAME);
#else
	walker_class = class_create(THIS_MODULE, CLASS_NAME);
#endif
	if (IS_ERR(walker_class)) {
		ret = PTR_ERR(walker_class);
		goto unregister;
	}
	walker_device = device_create(walker_class, NULL, MKDEV(major, 0), NULL, DEVICE_NAME);
	if (IS_ERR(walker_device)) {
		ret = PTR_ERR(walker_device);
		goto destroy_class;
	}
	dev_info(walker_device, "ready\n");
	return 0;

destroy_class:
	class_destroy(walker_class);
unregister:
	unregister_chrdev(major, DEVICE_NAME);
unmap:
	iounmap(mmio);
	return ret;
}

static void __exit walker_exit(void)
{
	device_destroy(walker_class, MKDEV(major, 0));
	class_destroy(walker_class);
	unregister_chrdev(major, DEVICE_NAME);
	iounmap(mmio);
	pr_info("goodbye\n");
}

module_init(walker_init);
module_exit(walker_exit);

MODULE_LICENSE("GPL");
MODULE_AUTHOR("A student");
MODULE_DESCRIPTION("The guest's driver of the walker");
MODULE_VERSION("0.1");
