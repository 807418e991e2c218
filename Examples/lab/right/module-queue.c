// SPDX-License-Identifier: GPL-2.0
/*
 * A read that finds nothing waits until another program writes: a wait queue with poll() and O_NONBLOCK. Each byte passes the registers, and
 * is read once.
 */
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

static DEFINE_MUTEX(lock);
static DECLARE_WAIT_QUEUE_HEAD(readers);
static DECLARE_WAIT_QUEUE_HEAD(writers);
static bool is_hidden;
static void __iomem *regs;

static ssize_t queue_read(struct file *file, char __user *buf, size_t count, loff_t *ppos)
{
	u8 value;

	if (!count)
		return 0;
	mutex_lock(&lock);
	while (!is_hidden) {
		mutex_unlock(&lock);
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		if (wait_event_interruptible(readers, is_hidden))
			return -ERESTARTSYS;
		mutex_lock(&lock);
	}
	value = readb(regs + 1);
	is_hidden = false;
	mutex_unlock(&lock);
	wake_up_interruptible(&writers);
	return put_user(value, buf) ? -EFAULT : 1;
}

static ssize_t queue_write(struct file *file, const char __user *buf, size_t count, loff_t *ppos)
{
	u8 value;

	if (!count)
		return 0;
	if (get_user(value, buf))
		return -EFAULT;
	mutex_lock(&lock);
	while (is_hidden) {
		mutex_unlock(&lock);
		if (file->f_flags & O_NONBLOCK)
			return -EAGAIN;
		if (wait_event_interruptible(writers, !is_hidden))
			return -ERESTARTSYS;
		mutex_lock(&lock);
	}
	writeb(value, regs);
	is_hidden = true;
	mutex_unlock(&lock);
	wake_up_interruptible(&readers);
	return 1;
}

static __poll_t queue_poll(struct file *file, poll_table *wait)
{
	poll_wait(file, &readers, wait);
	poll_wait(file, &writers, wait);
	return is_hidden ? EPOLLIN | EPOLLRDNORM : EPOLLOUT | EPOLLWRNORM;
}

static const struct file_operations queue_fops = {
	.owner = THIS_MODULE,
	.open = stream_open,
	.read = queue_read,
	.write = queue_write,
	.poll = queue_poll,
};

static struct miscdevice queue = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "virt_walker",
	.fops = &queue_fops,
};

static int __init queue_init(void)
{
	int err;

	regs = ioremap(0x0b000000, 2);
	if (!regs)
		return -ENOMEM;
	err = misc_register(&queue);
	if (err)
		iounmap(regs);
	return err;
}

static void __exit queue_exit(void)
{
	misc_deregister(&queue);
	iounmap(regs);
}

module_init(queue_init);
module_exit(queue_exit);
MODULE_LICENSE("GPL");
