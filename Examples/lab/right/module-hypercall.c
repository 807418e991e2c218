// SPDX-License-Identifier: GPL-2.0
/*
 * No registers: a byte that is written goes to the hypervisor by a call, and a byte that is read is the result of another call. Of the result,
 * x0 is the status, and x1 is the byte. hypercall.c has the other side of these calls.
 *
 * Without a kernel: virt-walkerd serve --module module-hypercall.c --hook hypercall.c --hook-function hide_seek_hypercall
 */
#include <linux/arm-smccc.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>

#define WALKER_HIDE ARM_SMCCC_CALL_VAL(ARM_SMCCC_FAST_CALL, ARM_SMCCC_SMC_64, ARM_SMCCC_OWNER_VENDOR_HYP, 0x100)
#define WALKER_SEEK ARM_SMCCC_CALL_VAL(ARM_SMCCC_FAST_CALL, ARM_SMCCC_SMC_64, ARM_SMCCC_OWNER_VENDOR_HYP, 0x101)

static ssize_t call_read(struct file *file, char __user *buf, size_t count, loff_t *ppos)
{
	struct arm_smccc_res res;

	if (!count)
		return 0;
	arm_smccc_1_1_hvc(WALKER_SEEK, 0x40, &res);
	if ((long)res.a0 < 0)
		return -EIO;
	return put_user((u8)res.a1, buf) ? -EFAULT : 1;
}

static ssize_t call_write(struct file *file, const char __user *buf, size_t count, loff_t *ppos)
{
	struct arm_smccc_res res;
	u8 value;

	if (!count)
		return -EINVAL;
	if (get_user(value, buf))
		return -EFAULT;
	arm_smccc_hvc(WALKER_HIDE, value, 0, 0, 0, 0, 0, 0, &res);
	return (long)res.a0 < 0 ? -EIO : 1;
}

static const struct file_operations call_fops = {
	.owner = THIS_MODULE,
	.read = call_read,
	.write = call_write,
};

static struct miscdevice call_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "virt_walker",
	.fops = &call_fops,
};

module_misc_device(call_device);
MODULE_LICENSE("GPL");
