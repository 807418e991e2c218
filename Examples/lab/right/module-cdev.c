// SPDX-License-Identifier: GPL-2.0
/*
 * A cdev with numbers of its own, state in one allocated structure, and a mutex around the registers. Address and name are parameters of the
 * module.
 */
#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>

static unsigned long address = 0x0b000000;
module_param(address, ulong, 0444);
MODULE_PARM_DESC(address, "Guest physical address of the registers");

static char *name = "virt_walker";
module_param(name, charp, 0444);
MODULE_PARM_DESC(name, "Name of the device");

struct walker {
	dev_t devt;
	struct cdev cdev;
	struct class *class;
	struct mutex lock;
	void __iomem *regs;
	unsigned int hidden;
};

static struct walker *walker;

static int walker_open(struct inode *inode, struct file *file)
{
	file->private_data = container_of(inode->i_cdev, struct walker, cdev);
	return nonseekable_open(inode, file);
}

static ssize_t walker_read(struct file *file, char __user *buf, size_t count, loff_t *ppos)
{
	struct walker *w = file->private_data;
	u8 value;

	if (!count)
		return 0;
	if (mutex_lock_interruptible(&w->lock))
		return -ERESTARTSYS;
	value = readb(w->regs + 1);
	mutex_unlock(&w->lock);
	return put_user(value, buf) ?: 1;
}

static ssize_t walker_write(struct file *file, const char __user *buf, size_t count, loff_t *ppos)
{
	struct walker *w = file->private_data;
	u8 value;

	if (!count)
		return -EINVAL;
	if (get_user(value, buf))
		return -EFAULT;
	if (mutex_lock_interruptible(&w->lock))
		return -ERESTARTSYS;
	writeb(value, w->regs);
	w->hidden++;
	mutex_unlock(&w->lock);
	return 1;
}

static const struct file_operations walker_fops = {
	.owner = THIS_MODULE,
	.open = walker_open,
	.read = walker_read,
	.write = walker_write,
	.llseek = no_llseek,
};

static int __init walker_init(void)
{
	struct device *device;
	int ret;

	walker = kzalloc(sizeof(*walker), GFP_KERNEL);
	if (!walker)
		return -ENOMEM;
	mutex_init(&walker->lock);
	walker->regs = ioremap(address, 2);
	if (!walker->regs) {
		ret = -ENOMEM;
		goto err_free;
	}
	ret = alloc_chrdev_region(&walker->devt, 0, 1, name);
	if (ret)
		goto err_unmap;
	cdev_init(&walker->cdev, &walker_fops);
	walker->cdev.owner = THIS_MODULE;
	ret = cdev_add(&walker->cdev, walker->devt, 1);
	if (ret)
		goto err_region;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 4, 0)
	walker->class = class_create(name);
#else
	walker->class = class_create(THIS_MODULE, name);
#endif
	if (IS_ERR(walker->class)) {
		ret = PTR_ERR(walker->class);
		goto err_cdev;
	}
	device = device_create(walker->class, NULL, walker->devt, walker, "%s", name);
	if (IS_ERR(device)) {
		ret = PTR_ERR(device);
		goto err_class;
	}
	return 0;

err_class:
	class_destroy(walker->class);
err_cdev:
	cdev_del(&walker->cdev);
err_region:
	unregister_chrdev_region(walker->devt, 1);
err_unmap:
	iounmap(walker->regs);
err_free:
	kfree(walker);
	return ret;
}

static void __exit walker_exit(void)
{
	pr_info("%s: %u bytes were hidden\n", name, walker->hidden);
	device_destroy(walker->class, walker->devt);
	class_destroy(walker->class);
	cdev_del(&walker->cdev);
	unregister_chrdev_region(walker->devt, 1);
	iounmap(walker->regs);
	kfree(walker);
}

module_init(walker_init);
module_exit(walker_exit);
MODULE_LICENSE("GPL v2");
