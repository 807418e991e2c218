// SPDX-License-Identifier: GPL-2.0
/* Mistakes that do not end a module: an ioctl each. */
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/vmalloc.h>

static DEFINE_MUTEX(lock);
static DEFINE_SPINLOCK(spinlock);
static struct mutex uninitialized;
static char *memory;
static void __iomem *regs;

static long mistake_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	switch (cmd) {
	case 1:
		memory = kmalloc(8, GFP_KERNEL);
		kfree(memory);
		kfree(memory);
		return 0;
	case 2:
		kfree("a string");
		return 0;
	case 3:
		memory = kmalloc(8, GFP_KERNEL);
		kfree(memory + 4);
		kfree(memory);
		return 0;
	case 4:
		memory = vmalloc(100);
		kfree(memory);
		return 0;
	case 5:
		mutex_unlock(&lock);
		return 0;
	case 6:
		mutex_lock(&uninitialized);
		mutex_unlock(&uninitialized);
		return 0;
	case 7:
		spin_unlock(&spinlock);
		return 0;
	case 8:
		spin_lock(&spinlock);
		mutex_lock(&lock);
		mutex_unlock(&lock);
		spin_unlock(&spinlock);
		return 0;
	case 9:
		spin_lock(&spinlock);
		return 0;
	case 10:
		iounmap(regs);
		iounmap(regs);
		return 0;
	case 11:
		readb(regs);
		return 0;
	case 12:
		regs = ioremap(0x0b000000, 2);
		return readb(regs + 5);
	case 13:
		return readl(regs + 1);
	case 14:
		return readb(regs + 4096);
	case 15:
		unregister_chrdev(240, "nothing");
		return 0;
	case 16:
		BUG_ON(arg == 5);
		return 0;
	case 17:
		spin_lock(&spinlock);
		spin_lock(&spinlock);
		return 0;
	case 18:
		memory = kmalloc(100 << 20, GFP_KERNEL);
		return memory ? 0 : -ENOMEM;
	}
	return -ENOTTY;
}

static int mistake_mmap(struct file *file, struct vm_area_struct *area)
{
	return -EINVAL;
}

static const struct file_operations mistake_fops = {
	.unlocked_ioctl = mistake_ioctl,
	.mmap = mistake_mmap,
};

static struct miscdevice mistakes = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "mistakes",
	.fops = &mistake_fops,
};

static int __init mistakes_init(void)
{
	regs = ioremap(0x0b000000, 2);
	return misc_register(&mistakes);
}

module_init(mistakes_init);
