// SPDX-License-Identifier: GPL-2.0
/* Waiting in all its forms, and the containers. The global functions have the names of the C library's on purpose. */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/kfifo.h>
#include <linux/list.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/semaphore.h>
#include <linux/slab.h>
#include <linux/wait.h>

static DECLARE_WAIT_QUEUE_HEAD(queue);
static DECLARE_COMPLETION(done);
static DEFINE_MUTEX(lock);
static struct semaphore semaphore;
static DEFINE_KFIFO(fifo, u8, 8);
static LIST_HEAD(items);
static int condition;
static int numbers[4];
static int count;
static bool flag;
static char name[8] = "none";

module_param_array(numbers, int, &count, 0444);
module_param(flag, bool, 0444);
module_param_string(name, name, sizeof(name), 0444);

struct item {
	struct list_head entry;
	u8 value;
};

ssize_t read(struct file *file, char __user *buf, size_t size, loff_t *ppos);
ssize_t write(struct file *file, const char __user *buf, size_t size, loff_t *ppos);
int open(struct inode *inode, struct file *file);

/* Takes all bytes of the queue; waits for the first one. */
ssize_t read(struct file *file, char __user *buf, size_t size, loff_t *ppos)
{
	unsigned int copied;
	int error;

	if (wait_event_interruptible(queue, !kfifo_is_empty(&fifo)))
		return -ERESTARTSYS;
	error = kfifo_to_user(&fifo, buf, size, &copied);
	return error ? error : (ssize_t)copied;
}

ssize_t write(struct file *file, const char __user *buf, size_t size, loff_t *ppos)
{
	unsigned int copied;
	int error = kfifo_from_user(&fifo, buf, size, &copied);

	wake_up_interruptible(&queue);
	if (!error && !copied)
		return -ENOSPC;
	return error ? error : (ssize_t)copied;
}

int open(struct inode *inode, struct file *file)
{
	pr_info("pid %d uid %u comm %s %s\n", current->pid, from_kuid(&init_user_ns, current_uid()), current->comm,
		capable(CAP_SYS_ADMIN) ? "capable" : "not capable");
	return 0;
}

static long control(struct file *file, unsigned int cmd, unsigned long arg)
{
	unsigned long begin = jiffies;
	struct item *item, *next;
	DEFINE_WAIT(wait);
	long left;

	switch (cmd) {
	case 1:
		left = wait_event_timeout(queue, condition, HZ / 50);
		pr_info("timeout: %s, %s\n", left ? "left" : "over", time_after_eq(jiffies, begin + HZ / 50) ? "later" : "early");
		return 0;
	case 2:
		left = wait_event_interruptible_timeout(queue, condition, 1000 * HZ);
		pr_info("timeout: %s\n", left == -ERESTARTSYS ? "signal" : left ? "left" : "over");
		return left < 0 ? left : 0;
	case 3:
		condition = arg;
		wake_up(&queue);
		return 0;
	case 4:
		wait_for_completion(&done);
		return 0;
	case 5:
		complete(&done);
		return 0;
	case 6:
		/* Waits with the mutex: the next one waits for the mutex. */
		if (mutex_lock_interruptible(&lock))
			return -ERESTARTSYS;
		wait_event(queue, condition);
		mutex_unlock(&lock);
		return 0;
	case 7:
		return down_interruptible(&semaphore) ? -ERESTARTSYS : 0;
	case 8:
		up(&semaphore);
		return 0;
	case 9:
		for (;;) {
			prepare_to_wait(&queue, &wait, TASK_INTERRUPTIBLE);
			if (condition || signal_pending(current))
				break;
			schedule();
		}
		finish_wait(&queue, &wait);
		return condition ? 0 : -ERESTARTSYS;
	case 10:
		msleep(2000);
		pr_info("%u ms later\n", jiffies_to_msecs(jiffies - begin) / 100 * 100);
		return 0;
	case 11:
		item = kmalloc(sizeof(*item), GFP_KERNEL);
		if (!item)
			return -ENOMEM;
		item->value = arg;
		list_add_tail(&item->entry, &items);
		return 0;
	case 12:
		list_for_each_entry_safe(item, next, &items, entry) {
			pr_info("item %u\n", item->value);
			list_del(&item->entry);
			kfree(item);
		}
		return 0;
	}
	return -ENOTTY;
}

static __poll_t poll(struct file *file, poll_table *table)
{
	poll_wait(file, &queue, table);
	return (kfifo_is_empty(&fifo) ? 0 : EPOLLIN | EPOLLRDNORM) | (kfifo_is_full(&fifo) ? 0 : EPOLLOUT | EPOLLWRNORM);
}

static const struct file_operations waiting_fops = {
	.owner = THIS_MODULE,
	.open = open,
	.read = read,
	.write = write,
	.poll = poll,
	.unlocked_ioctl = control,
};

static struct miscdevice waiting = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "waiting",
	.fops = &waiting_fops,
};

static int __init waiting_init(void)
{
	char *text = kasprintf(GFP_KERNEL, "%d numbers, the last %d, flag %d, %s", count, count ? numbers[count - 1] : 0, flag, name);

	if (!text)
		return -ENOMEM;
	pr_info("%s\n", text);
	kfree(text);
	sema_init(&semaphore, 1);
	return misc_register(&waiting);
}

static void __exit waiting_exit(void)
{
	misc_deregister(&waiting);
}

module_init(waiting_init);
module_exit(waiting_exit);
MODULE_LICENSE("GPL");
