// SPDX-License-Identifier: GPL-2.0
/*
 * The mistake: the exit function does not deregister the device, whose functions are gone after it.
 */
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>

static void __iomem *regs;

static ssize_t walker_read(struct file *file, char __user *buf, size_t count, loff_t *ppos)
{
	u8 value = readb(regs + 1);

	if (!count)
		return 0;
	return put_user(value, buf) ? -EFAULT : 1;
}

static ssize_t walker_write(struct file *file, const char __user *buf, size_t count, loff_t *ppos)
{
	u8 value;

	if (!count)
		return -EINVAL;
	if (get_user(value, buf))
		return -EFAULT;
	writeb(value, regs);
	return 1;
}

static const struct file_operations walker_fops = {
	.owner = THIS_MODULE,
	.read = walker_read,
	.write = walker_write,
};

static struct miscdevice walker = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "virt_walker",
	.fops = &walker_fops,
};

static int __init walker_init(void)
{
	int err;

	regs = ioremap(0x0b000000, 2);
	if (!regs)
		return -ENOMEM;
	err = misc_register(&walker);
	if (err)
		iounmap(regs);
	return err;
}

static void __exit walker_exit(void)
{
	iounmap(regs);
}

module_init(walker_init);
module_exit(walker_exit);
MODULE_LICENSE("GPL");
