// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/virt_walker in the guest: a byte written goes to the register HIDE, a byte read comes from SEEK. There is no
 * memory at their addresses, so each access is a stage-2 abort, which the hook in the host's KVM handles.
 */
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>

#define REGISTERS_ADDRESS 0x0b000000	/* guest physical */

enum {
	HIDE,
	SEEK,
	REGISTERS_SIZE,
};

static void __iomem *registers;

static ssize_t virt_walker_read(struct file *file, char __user *buffer, size_t length, loff_t *position)
{
	u8 byte;

	pr_info("read length: %zu bytes\n", length);
	byte = readb(registers + SEEK);
	/* One byte for any length, also for 0. */
	return put_user(byte, buffer) ? -EFAULT : 1;
}

static ssize_t virt_walker_write(struct file *file, const char __user *buffer, size_t length, loff_t *position)
{
	u8 byte;

	pr_info("write length: %zu bytes\n", length);
	if (get_user(byte, buffer))
		return -EFAULT;
	writeb(byte, registers + HIDE);
	return 1;
}

static const struct file_operations virt_walker_operations = {
	.owner = THIS_MODULE,
	.read = virt_walker_read,
	.write = virt_walker_write,
};

static struct miscdevice virt_walker = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "virt_walker",
	.fops = &virt_walker_operations,
	.mode = 0600,
};

static int __init virt_walker_init(void)
{
	int error;

	registers = ioremap(REGISTERS_ADDRESS, REGISTERS_SIZE);
	if (!registers)
		return -ENOMEM;
	error = misc_register(&virt_walker);
	if (error)
		iounmap(registers);
	return error;
}

static void __exit virt_walker_exit(void)
{
	misc_deregister(&virt_walker);
	iounmap(registers);
}

module_init(virt_walker_init);
module_exit(virt_walker_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Hides a byte in a stage-2 page-table entry, with a host whose KVM has the hook");
