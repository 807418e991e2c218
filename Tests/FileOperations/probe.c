/*
 * probe NODE: makes each system call that a program could make on the device, and prints each
 * answer on a line: a label, a tab, and the return value or the name of the error.
 *
 * The expected answers are in expected.txt beside this file, and
 * scripts/ci/check-file-operations compares them. The calls depend on each other (a later call
 * finds the byte that an earlier call has written), so their order is part of the test. Only the
 * byte in the node and the node's times change.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <linux/posix_acl_xattr.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

enum {
	TIME_LIMIT_SECONDS = 30,
	KIB = 1024,
	MIB = 1024 * KIB,
	UNTOUCHED = 0xee, /* fills each buffer before a read: what still has it was not read into */
};

static int node; /* the descriptor under test, open for reading and writing */

static void fail(const char *what)
{
	fprintf(stderr, "probe: %s: %s\n", what, strerror(errno));
	exit(1);
}

static const char *error_name(int error)
{
	static char number[sizeof "errno -2147483648"];

	/* strerrorname_np exists in glibc only. */
	switch (error) {
	case EACCES: return "EACCES";
	case EAGAIN: return "EAGAIN";
	case EBADF: return "EBADF";
	case EBUSY: return "EBUSY";
	case ECONNABORTED: return "ECONNABORTED";
	case EEXIST: return "EEXIST";
	case EFAULT: return "EFAULT";
	case EFBIG: return "EFBIG";
	case EINTR: return "EINTR";
	case EINVAL: return "EINVAL";
	case EIO: return "EIO";
	case EISDIR: return "EISDIR";
	case ENODEV: return "ENODEV";
	case ENOENT: return "ENOENT";
	case ENOLCK: return "ENOLCK";
	case ENOMEM: return "ENOMEM";
	case ENOSPC: return "ENOSPC";
	case ENOSYS: return "ENOSYS";
	case ENOTCONN: return "ENOTCONN";
	case ENOTDIR: return "ENOTDIR";
	case ENOTTY: return "ENOTTY";
	case ENXIO: return "ENXIO";
	case EOPNOTSUPP: return "EOPNOTSUPP";
	case EPERM: return "EPERM";
	case EROFS: return "EROFS";
	case ESPIPE: return "ESPIPE";
	case ETXTBSY: return "ETXTBSY";
	case EXDEV: return "EXDEV";
	}
	snprintf(number, sizeof number, "errno %d", error);
	return number;
}

/* ---- Functions that print one line. A call in an argument sets errno before the function reads it. ---- */

static void text(const char *label, const char *format, ...)
{
	va_list arguments;

	printf("%s\t", label);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
}

static void result(const char *label, long long returned)
{
	if (returned == -1)
		text(label, "%s", error_name(errno));
	else
		text(label, "%lld", returned);
}

/* For a call whose result differs in each run: a descriptor, an address. */
static void success(const char *label, int succeeded)
{
	text(label, "%s", succeeded ? "ok" : error_name(errno));
}

static int opened(const char *label, const char *path, int flags)
{
	int fd = open(path, flags, 0600); /* a mode for O_CREAT, which never creates: the node is there */

	success(label, fd >= 0);
	return fd;
}

static void mapped(const char *label, int flags)
{
	void *address = mmap(NULL, 1, PROT_READ, flags, node, 0);

	success(label, address != MAP_FAILED);
	if (address != MAP_FAILED)
		munmap(address, 1);
}

static void bytes(const char *label, const unsigned char *buffer, size_t count)
{
	printf("%s\t", label);
	for (size_t i = 0; i < count; i++)
		printf(i == 0 ? "%02x" : " %02x", buffer[i]);
	printf("\n");
}

/* The byte that the node holds now. */
static void value(const char *label)
{
	unsigned char byte = UNTOUCHED;
	ssize_t count = read(node, &byte, 1);

	if (count == 1)
		text(label, "%02x", byte);
	else
		text(label, "read: %s", count == 0 ? "end of file" : error_name(errno));
}

/* ---- The calls ---- */

static unsigned char buffer[2 * MIB];

static unsigned char *untouched(void)
{
	return memset(buffer, UNTOUCHED, sizeof buffer);
}

static void status(void)
{
	struct stat st;

	if (fstat(node, &st) == -1)
		fail("fstat");
	text("fstat: type", "%s", S_ISCHR(st.st_mode) ? "chr" : S_ISREG(st.st_mode) ? "reg" : "other");
	text("fstat: st_size", "%lld", (long long)st.st_size);
	text("fstat: st_blksize", "%lld", (long long)st.st_blksize);
}

static void plain_reads_and_writes(void)
{
	/* A page without access rights. All kernels treat it alike, unlike a wild pointer. */
	char *bad = mmap(NULL, 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (bad == MAP_FAILED)
		fail("mmap");

	result("write 1", write(node, "A", 1));
	value("write 1: value");
	result("write 2", write(node, "BC", 2));
	value("write 2: value");
	memset(buffer, '-', sizeof buffer);
	buffer[0] = 'Z';
	result("write 4096", write(node, buffer, 4096));
	value("write 4096: value");
	result("write 1 MiB", write(node, buffer, 1 * MIB));
	value("write 1 MiB: value");
	result("write 2 MiB", write(node, buffer, 2 * MIB));
	value("write 2 MiB: value");
	result("write 0", write(node, "Q", 0));
	value("write 0: value");

	result("read 0", read(node, untouched(), 0));
	bytes("read 0: buffer", buffer, 1);
	result("read 2", read(node, untouched(), 2));
	bytes("read 2: buffer", buffer, 2);
	result("read 4096", read(node, untouched(), 4096));
	result("read 1 MiB", read(node, untouched(), 1 * MIB));
	result("read 2 MiB", read(node, untouched(), 2 * MIB));

	result("read 1, bad address", read(node, bad, 1));
	result("write 1, bad address", write(node, bad, 1));
	value("write 1, bad address: value");
	result("write 0, bad address", write(node, bad, 0));
	result("read 0, bad address", read(node, bad, 0));
	munmap(bad, 1);
}

static void vectors(void)
{
	result("writev 2x2", writev(node, (struct iovec[]){{"DE", 2}, {"FG", 2}}, 2));
	value("writev 2x2: value");
	result("writev 2x1", writev(node, (struct iovec[]){{"H", 1}, {"I", 1}}, 2));
	value("writev 2x1: value");

	unsigned char *to = untouched();
	result("readv 2x1", readv(node, (struct iovec[]){{to, 1}, {to + 1, 1}}, 2));
	bytes("readv 2x1: buffers", to, 2);
	to = untouched();
	result("readv 2x2", readv(node, (struct iovec[]){{to, 2}, {to + 2, 2}}, 2));
	bytes("readv 2x2: buffers", to, 4);
}

static void positions(void)
{
	result("pwrite, offset 5", pwrite(node, "P", 1, 5));
	value("pwrite, offset 5: value");
	result("pread, offset 7", pread(node, untouched(), 1, 7));
	bytes("pread, offset 7: buffer", buffer, 1);
	result("pread, offset -1", pread(node, untouched(), 1, -1));

	result("lseek SEEK_SET 3", lseek(node, 3, SEEK_SET));
	result("lseek SEEK_CUR 0", lseek(node, 0, SEEK_CUR));
	result("lseek SEEK_END 0", lseek(node, 0, SEEK_END));
	result("lseek SEEK_DATA 0", lseek(node, 0, SEEK_DATA));
	result("lseek SEEK_HOLE 0", lseek(node, 0, SEEK_HOLE));
	value("lseek: value");
}

static void controls(void)
{
	unsigned char answer[256]; /* larger than what any of these could write */

	result("ioctl TCGETS", ioctl(node, TCGETS, answer));
	result("ioctl 0x1234", ioctl(node, 0x1234, answer));
	result("ioctl FIONREAD", ioctl(node, FIONREAD, answer));
	result("ioctl FS_IOC_GETFLAGS", ioctl(node, FS_IOC_GETFLAGS, answer));
}

static void storage(const char *path)
{
	result("fsync", fsync(node));
	result("fdatasync", fdatasync(node));
	result("syncfs", syncfs(node));
	result("ftruncate 0", ftruncate(node, 0));
	result("ftruncate 10", ftruncate(node, 10));
	result("truncate 0", truncate(path, 0));
	result("truncate 10", truncate(path, 10));
	result("fallocate", fallocate(node, 0, 0, 10));
	/* This one returns the error's number and leaves errno alone. */
	result("posix_fadvise", (errno = posix_fadvise(node, 0, 0, POSIX_FADV_DONTNEED)) == 0 ? 0 : -1);
	mapped("mmap MAP_SHARED", MAP_SHARED);
	mapped("mmap MAP_PRIVATE", MAP_PRIVATE);
}

static void readiness(void)
{
	struct pollfd asked = {.fd = node, .events = POLLIN | POLLOUT};
	struct epoll_event event = {.events = EPOLLIN};
	int epoll = epoll_create1(0);

	if (epoll == -1)
		fail("epoll_create1");
	result("poll", poll(&asked, 1, 0));
	text("poll: revents", "%s", asked.revents == (POLLIN | POLLOUT) ? "POLLIN|POLLOUT" : "other");
	result("epoll_ctl EPOLL_CTL_ADD", epoll_ctl(epoll, EPOLL_CTL_ADD, node, &event));
	result("epoll_wait", epoll_wait(epoll, &event, 1, 0));
	close(epoll);
}

static void locks_and_flags(void)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int flags = fcntl(node, F_GETFL);

	result("flock LOCK_EX", flock(node, LOCK_EX | LOCK_NB));
	flock(node, LOCK_UN);
	result("fcntl F_SETLK", fcntl(node, F_SETLK, &lock));
	lock.l_type = F_UNLCK;
	fcntl(node, F_SETLK, &lock);

	/* Each flag is set alone, because O_DIRECT would change the effect of the following calls. */
	result("fcntl F_SETFL O_NONBLOCK", fcntl(node, F_SETFL, flags | O_NONBLOCK));
	value("fcntl F_SETFL O_NONBLOCK: value");
	result("fcntl F_SETFL O_DIRECT", fcntl(node, F_SETFL, flags | O_DIRECT));
	result("fcntl F_SETFL O_ASYNC", fcntl(node, F_SETFL, flags | O_ASYNC));
	fcntl(node, F_SETFL, flags);
}

/* A file in memory with one byte, positioned at that byte. */
static int file_holding(const char *byte)
{
	int file = memfd_create("probe", 0);

	if (file == -1 || pwrite(file, byte, 1, 0) != 1)
		fail("memfd_create");
	return file;
}

static void copies_inside_the_kernel(void)
{
	int in[2], out[2]; /* a pipe for each call, so that the rest of one call is not the input of the next */
	int file = file_holding("F");

	if (pipe(in) == -1 || pipe(out) == -1 || write(out[1], "S", 1) != 1)
		fail("pipe");

	result("splice from node", splice(node, NULL, in[1], NULL, 1, SPLICE_F_NONBLOCK));
	result("splice to node", splice(out[0], NULL, node, NULL, 1, SPLICE_F_NONBLOCK));
	value("splice to node: value");
	result("sendfile from node", sendfile(in[1], node, NULL, 1));
	result("sendfile to node", sendfile(node, file, NULL, 1));
	value("sendfile to node: value");

	lseek(file, 0, SEEK_SET);
	result("copy_file_range from node", copy_file_range(node, NULL, file, NULL, 1, 0));
	lseek(file, 0, SEEK_SET);
	result("copy_file_range to node", copy_file_range(file, NULL, node, NULL, 1, 0));
	value("copy_file_range to node: value");

	close(in[0]), close(in[1]), close(out[0]), close(out[1]), close(file);
}

static void opens(const char *path)
{
	int fd;

	fd = opened("open O_RDONLY", path, O_RDONLY);
	result("open O_RDONLY: write 1", write(fd, "r", 1));
	close(fd);

	fd = opened("open O_WRONLY", path, O_WRONLY);
	result("open O_WRONLY: read 1", read(fd, untouched(), 1));
	close(fd);

	fd = opened("open O_TRUNC", path, O_WRONLY | O_TRUNC);
	value("open O_TRUNC: value");
	result("open O_TRUNC: write 1", write(fd, "T", 1));
	close(fd);
	value("open O_TRUNC: value after the write");

	fd = opened("open O_APPEND", path, O_WRONLY | O_APPEND);
	result("open O_APPEND: write 1", write(fd, "a", 1));
	result("open O_APPEND: write 1 again", write(fd, "b", 1));
	close(fd);
	value("open O_APPEND: value");

	close(opened("open O_CREAT|O_EXCL", path, O_RDWR | O_CREAT | O_EXCL));
	close(opened("open O_DIRECTORY", path, O_RDONLY | O_DIRECTORY));

	fd = opened("open O_DIRECT", path, O_RDWR | O_DIRECT);
	result("open O_DIRECT: write 1", write(fd, "d", 1));
	close(fd);

	close(opened("open O_PATH", path, O_PATH));
}

static void attributes(const char *path)
{
	struct stat before, after;

	if (stat(path, &before) == -1)
		fail("stat");
	result("chmod 0666", chmod(path, 0666));
	if (stat(path, &after) == -1)
		fail("stat");
	text("chmod 0666: mode", "%04o", after.st_mode & 07777);
	chmod(path, before.st_mode & 07777);

	result("utimensat now", utimensat(AT_FDCWD, path, NULL, 0));
}

/* An access control list with the rights of the mode 0600: if it can be set, it changes nothing. */
static void access_control_list(const char *path)
{
	struct {
		struct posix_acl_xattr_header header;
		struct posix_acl_xattr_entry entries[3];
	} list = {
		.header.a_version = POSIX_ACL_XATTR_VERSION,
		.entries = {
			{.e_tag = 0x01, .e_perm = 6, .e_id = -1}, /* ACL_USER_OBJ */
			{.e_tag = 0x04, .e_perm = 0, .e_id = -1}, /* ACL_GROUP_OBJ */
			{.e_tag = 0x20, .e_perm = 0, .e_id = -1}, /* ACL_OTHER */
		},
	};

	result("setxattr ACL", setxattr(path, "system.posix_acl_access", &list, sizeof list, 0));
}

static void asynchronous_read(void)
{
	aio_context_t context = 0;
	struct iocb request = {
		.aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = node, .aio_buf = (unsigned long)untouched(), .aio_nbytes = 1,
	};
	struct io_event event = {.res = 0};

	if (syscall(SYS_io_setup, 1, &context) == -1)
		fail("io_setup");
	long submitted = syscall(SYS_io_submit, context, 1, (struct iocb *[]){&request});
	result("io_submit IOCB_CMD_PREAD", submitted);
	if (submitted == 1 && syscall(SYS_io_getevents, context, 1, 1, &event, NULL) != 1)
		fail("io_getevents");
	text("io_submit IOCB_CMD_PREAD: read", "%lld", (long long)event.res);
	syscall(SYS_io_destroy, context);
}

static void flagged_reads(void)
{
	struct iovec to = {untouched(), 1};

	result("preadv2 RWF_NOWAIT", preadv2(node, &to, 1, -1, RWF_NOWAIT));
	result("preadv2 RWF_HIPRI", preadv2(node, &to, 1, -1, RWF_HIPRI));
	result("getdents64", syscall(SYS_getdents64, node, buffer, 1 * KIB));
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: probe NODE\n");
		return 64;
	}

	/*
	 * SIGALRM keeps its default action, which ends the process even while a FUSE or CUSE server leaves a request
	 * unanswered. The last whole line then belongs to the call before the call that did not return.
	 */
	alarm(TIME_LIMIT_SECONDS);
	setvbuf(stdout, NULL, _IOLBF, 0);

	node = open(argv[1], O_RDWR);
	if (node == -1)
		fail(argv[1]);

	status();
	plain_reads_and_writes();
	vectors();
	positions();
	controls();
	storage(argv[1]);
	readiness();
	locks_and_flags();
	copies_inside_the_kernel();
	opens(argv[1]);
	attributes(argv[1]);
	access_control_list(argv[1]);
	asynchronous_read();
	flagged_reads();
	result("close", close(node));
	result("close again", close(node));
	return 0;
}
