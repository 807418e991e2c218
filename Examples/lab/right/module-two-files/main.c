// SPDX-License-Identifier: GPL-2.0
/* A module of two files: this one has the device, and registers.c has the registers. */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>
#include "registers.h"

static ssize_t walker_read(struct file *file, char __user *buf, size_t count, loff_t *ppos)
{
	u8 value = registers_seek();

	return simple_read_from_buffer(buf, count, ppos, &value, 1);
}

static ssize_t walker_write(struct file *file, const char __user *buf, size_t count, loff_t *ppos)
{
	u8 value;

	if (!count)
		return -EINVAL;
	if (copy_from_user(&value, buf, 1))
		return -EFAULT;
	registers_hide(value);
	return 1;
}

static loff_t walker_llseek(struct file *file, loff_t offset, int whence)
{
	return fixed_size_llseek(file, offset, whence, 1);
}

static const struct file_operations walker_fops = {
	.owner = THIS_MODULE,
	.read = walker_read,
	.write = walker_write,
	.llseek = walker_llseek,
};

static struct miscdevice walker = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "virt_walker",
	.fops = &walker_fops,
};

static int __init walker_init(void)
{
	int err = registers_map();

	if (err)
		return err;
	err = misc_register(&walker);
	if (err)
		registers_unmap();
	return err;
}

static void __exit walker_exit(void)
{
	misc_deregister(&walker);
	registers_unmap();
}

module_init(walker_init);
module_exit(walker_exit);
MODULE_LICENSE("GPL");
