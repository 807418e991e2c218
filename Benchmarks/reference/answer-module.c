/* A module whose read gives one byte that is part of the source, so that a reader sees which source runs. */
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>

#define ANSWER 'A'

static ssize_t answer_read(struct file *file, char __user *buf, size_t count, loff_t *ppos)
{
	u8 byte = ANSWER;

	return copy_to_user(buf, &byte, 1) ? -EFAULT : 1;
}

static const struct file_operations answer_operations = {
	.owner = THIS_MODULE,
	.read = answer_read,
};

static struct miscdevice answer = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "answer",
	.fops = &answer_operations,
};

module_misc_device(answer);
MODULE_LICENSE("GPL");
