// SPDX-License-Identifier: GPL-2.0
/* Styles that courses have: init_module(), cdev_alloc(), a mode by the class's uevent, and no unwinding. */
#include <linux/cdev.h>
#include <linux/delay.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/interrupt.h>
#include <linux/io.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/slab.h>
#include <linux/types.h>
#include <asm/io.h>
#include <asm/uaccess.h>

static dev_t dev;
static struct cdev *cdev;
static struct class *cls;
static unsigned char *regs;
static char buffer[80];

static int my_uevent(struct device *device, struct kobj_uevent_env *env)
{
	add_uevent_var(env, "DEVMODE=%#o", 0666);
	return 0;
}

static int my_open(struct inode *i, struct file *f)
{
	printk(KERN_INFO "open %d:%d %s\n", imajor(i), MINOR(f->f_path.dentry->d_inode->i_rdev), f->f_path.dentry->d_name.name);
	return 0;
}

static ssize_t my_read(struct file *f, char *buf, size_t len, loff_t *off)
{
	sprintf(buffer, "%c", ioread8(regs + 1));
	return simple_read_from_buffer(buf, len, off, buffer, strlen(buffer));
}

static ssize_t my_write(struct file *f, const char *buf, size_t len, loff_t *off)
{
	ssize_t n = simple_write_to_buffer(buffer, sizeof(buffer) - 1, off, buf, len);

	if (n < 0)
		return n;
	buffer[n] = 0;
	printk(KERN_INFO "write length: %ld bytes: %s\n", len, buffer);
	iowrite8(buffer[0], regs);
	return n;
}

static struct file_operations fops = {
	.owner = THIS_MODULE,
	.open = my_open,
	.read = my_read,
	.write = my_write,
};

int init_module(void)
{
	if (alloc_chrdev_region(&dev, 0, 1, "styles") < 0)
		return -1;
	cdev = cdev_alloc();
	cdev->ops = &fops;
	cdev->owner = THIS_MODULE;
	if (cdev_add(cdev, dev, 1) == -1)
		return -1;
	cls = class_create(THIS_MODULE, "styles");
	cls->dev_uevent = my_uevent;
	device_create(cls, NULL, dev, NULL, "style%d", 0);
	regs = ioremap(0x0b000000, 2);
	return 0;
}

void cleanup_module(void)
{
	cdev_del(cdev);
	device_destroy(cls, dev);
	class_destroy(cls);
	unregister_chrdev_region(dev, 1);
}

MODULE_LICENSE("GPL");
