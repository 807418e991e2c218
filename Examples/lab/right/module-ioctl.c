// SPDX-License-Identifier: GPL-2.0
/*
 * ioctl() in the place of read() and write(): one command hides a byte, one brings it back, and one gives the number of both.
 */
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/ioctl.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>

struct walker_stats {
	__u32 hidden;
	__u32 found;
};

#define WALKER_HIDE _IOW('w', 1, __u8)
#define WALKER_SEEK _IOR('w', 2, __u8)
#define WALKER_STATS _IOR('w', 3, struct walker_stats)

static void __iomem *regs;
static struct walker_stats stats;

static long walker_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	void __user *argp = (void __user *)arg;
	u8 value;

	switch (cmd) {
	case WALKER_HIDE:
		if (get_user(value, (u8 __user *)argp))
			return -EFAULT;
		writeb(value, regs);
		stats.hidden++;
		return 0;
	case WALKER_SEEK:
		value = readb(regs + 1);
		stats.found++;
		return put_user(value, (u8 __user *)argp);
	case WALKER_STATS:
		return copy_to_user(argp, &stats, sizeof(stats)) ? -EFAULT : 0;
	default:
		return -ENOTTY;
	}
}

static const struct file_operations walker_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = walker_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
};

static struct miscdevice walker_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "virt_walker",
	.fops = &walker_fops,
};

static int __init walker_init(void)
{
	int err;

	regs = ioremap(0x0b000000, 2);
	if (!regs)
		return -ENXIO;
	err = misc_register(&walker_misc);
	if (err)
		iounmap(regs);
	return err;
}

static void __exit walker_exit(void)
{
	misc_deregister(&walker_misc);
	iounmap(regs);
}

module_init(walker_init);
module_exit(walker_exit);
MODULE_LICENSE("GPL");
