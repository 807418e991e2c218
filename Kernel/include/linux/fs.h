/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Files, and the functions with which a module serves them. */
#ifndef LINUX_FS_H
#define LINUX_FS_H

#include <linux/err.h>
#include <linux/fcntl.h>
#include <linux/kdev_t.h>
#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include <linux/stat.h>
#include <linux/wait.h>

struct cdev;
struct dentry;
struct file;
struct iov_iter;
struct kiocb;
struct module;
struct pipe_inode_info;
struct poll_table_struct;
struct vm_area_struct;
struct dir_context;
struct seq_file;
typedef void *fl_owner_t;

#define SEEK_SET 0
#define SEEK_CUR 1
#define SEEK_END 2
#define SEEK_DATA 3
#define SEEK_HOLE 4

#define FMODE_READ 0x1u
#define FMODE_WRITE 0x2u
#define FMODE_LSEEK 0x4u
#define FMODE_PREAD 0x8u
#define FMODE_PWRITE 0x10u
#define FMODE_EXCL 0x80u
#define FMODE_ATOMIC_POS 0x8000u
#define FMODE_STREAM 0x200000u

struct qstr {
	const unsigned char *name;
	u32 len;
};

struct inode {
	umode_t i_mode;
	kuid_t i_uid;
	kgid_t i_gid;
	dev_t i_rdev;
	loff_t i_size;
	struct cdev *i_cdev;
	void *i_private;
};

struct dentry {
	struct qstr d_name;
	struct inode *d_inode;
};

struct path {
	struct dentry *dentry;
};

struct file {
	struct path f_path;
	struct inode *f_inode;
	const struct file_operations *f_op;
	spinlock_t f_lock;
	unsigned int f_flags;
	fmode_t f_mode;
	loff_t f_pos;
	const struct cred *f_cred;
	void *private_data;
};

struct file_operations {
	struct module *owner;
	loff_t (*llseek)(struct file *file, loff_t offset, int whence);
	ssize_t (*read)(struct file *file, char __user *buffer, size_t count, loff_t *position);
	ssize_t (*write)(struct file *file, const char __user *buffer, size_t count, loff_t *position);
	ssize_t (*read_iter)(struct kiocb *iocb, struct iov_iter *iterator);
	ssize_t (*write_iter)(struct kiocb *iocb, struct iov_iter *iterator);
	int (*iterate_shared)(struct file *file, struct dir_context *context);
	__poll_t (*poll)(struct file *file, struct poll_table_struct *table);
	long (*unlocked_ioctl)(struct file *file, unsigned int command, unsigned long argument);
	long (*compat_ioctl)(struct file *file, unsigned int command, unsigned long argument);
	int (*mmap)(struct file *file, struct vm_area_struct *area);
	int (*open)(struct inode *inode, struct file *file);
	int (*flush)(struct file *file, fl_owner_t id);
	int (*release)(struct inode *inode, struct file *file);
	int (*fsync)(struct file *file, loff_t begin, loff_t end, int datasync);
	int (*fasync)(int descriptor, struct file *file, int on);
	ssize_t (*splice_write)(struct pipe_inode_info *pipe, struct file *file, loff_t *position, size_t count, unsigned int flags);
	ssize_t (*splice_read)(struct file *file, loff_t *position, struct pipe_inode_info *pipe, size_t count, unsigned int flags);
	long (*fallocate)(struct file *file, int mode, loff_t offset, loff_t count);
	void (*show_fdinfo)(struct seq_file *seq, struct file *file);
};

static inline struct inode *file_inode(const struct file *file)
{
	return file->f_inode;
}

static inline unsigned int iminor(const struct inode *inode)
{
	return MINOR(inode->i_rdev);
}

static inline unsigned int imajor(const struct inode *inode)
{
	return MAJOR(inode->i_rdev);
}

static inline loff_t i_size_read(const struct inode *inode)
{
	return inode->i_size;
}

static inline void i_size_write(struct inode *inode, loff_t size)
{
	inode->i_size = size;
}

int __register_chrdev(unsigned int major, unsigned int first_minor, unsigned int count, const char *name,
		      const struct file_operations *operations);
void __unregister_chrdev(unsigned int major, unsigned int first_minor, unsigned int count, const char *name);
int register_chrdev_region(dev_t first, unsigned int count, const char *name);
int alloc_chrdev_region(dev_t *first, unsigned int first_minor, unsigned int count, const char *name);
void unregister_chrdev_region(dev_t first, unsigned int count);

static inline int register_chrdev(unsigned int major, const char *name, const struct file_operations *operations)
{
	return __register_chrdev(major, 0, 256, name, operations);
}

static inline void unregister_chrdev(unsigned int major, const char *name)
{
	__unregister_chrdev(major, 0, 256, name);
}

loff_t noop_llseek(struct file *file, loff_t offset, int whence);
loff_t no_llseek(struct file *file, loff_t offset, int whence);
loff_t default_llseek(struct file *file, loff_t offset, int whence);
loff_t generic_file_llseek(struct file *file, loff_t offset, int whence);
loff_t fixed_size_llseek(struct file *file, loff_t offset, int whence, loff_t size);
loff_t no_seek_end_llseek(struct file *file, loff_t offset, int whence);
loff_t vfs_setpos(struct file *file, loff_t offset, loff_t most);
int nonseekable_open(struct inode *inode, struct file *file);
int stream_open(struct inode *inode, struct file *file);
int simple_open(struct inode *inode, struct file *file);
long compat_ptr_ioctl(struct file *file, unsigned int command, unsigned long argument);
ssize_t simple_read_from_buffer(void __user *to, size_t count, loff_t *position, const void *from, size_t available);
ssize_t simple_write_to_buffer(void *to, size_t available, loff_t *position, const void __user *from, size_t count);

#endif
