// SPDX-License-Identifier: GPL-2.0
/*
 * A misc device: a byte that is written goes to the register HIDE, and a byte that is read comes from SEEK. The functions take one byte of
 * each call, and the error path of the init function unwinds.
 */
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>

#define REGISTERS 0x0b000000
#define HIDE 0
#define SEEK 1
#define SIZE 2

static void __iomem *base;

static ssize_t walker_read(struct file *file, char __user *buf, size_t count, loff_t *ppos)
{
	u8 value;

	if (count < 1)
		return 0;
	value = readb(base + SEEK);
	if (copy_to_user(buf, &value, 1))
		return -EFAULT;
	return 1;
}

static ssize_t walker_write(struct file *file, const char __user *buf, size_t count, loff_t *ppos)
{
	u8 value;

	if (count < 1)
		return -EINVAL;
	if (copy_from_user(&value, buf, 1))
		return -EFAULT;
	writeb(value, base + HIDE);
	return 1;
}

static const struct file_operations walker_fops = {
	.owner = THIS_MODULE,
	.read = walker_read,
	.write = walker_write,
	.llseek = noop_llseek,
};

static struct miscdevice walker = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "virt_walker",
	.fops = &walker_fops,
	.mode = 0666,
};

static int __init walker_init(void)
{
	int ret;

	base = ioremap(REGISTERS, SIZE);
	if (!base)
		return -ENOMEM;
	ret = misc_register(&walker);
	if (ret) {
		iounmap(base);
		return ret;
	}
	pr_info("virt_walker: loaded\n");
	return 0;
}

static void __exit walker_exit(void)
{
	misc_deregister(&walker);
	iounmap(base);
	pr_info("virt_walker: unloaded\n");
}

module_init(walker_init);
module_exit(walker_exit);
MODULE_LICENSE("GPL");
