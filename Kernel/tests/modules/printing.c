// SPDX-License-Identifier: GPL-2.0
/* The kernel's formats, and text that becomes numbers. Each expected line is what Linux prints, by its documentation of printk formats. */
#define pr_fmt(fmt) "printing: " fmt

#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/string.h>

static int __init printing_init(void)
{
	static const u8 bytes[6] = { 0x00, 0x11, 0x22, 0xaa, 0xbb, 0xff };
	char text[32];
	unsigned long long wide;
	phys_addr_t address = 0x0b000000;
	size_t size = 10;
	int number, other, count, result;
	unsigned int hex;
	char first[32], second[32];
	u8 small;
	bool flag;

	pr_info("|%d|%5d|%-5d|%05d|%+d|% d|\n", 42, 42, 42, 42, 42, 42);
	pr_info("|%d|%5d|%-5d|%05d|%u|\n", -42, -42, -42, -42, -1);
	pr_info("|%x|%X|%#x|%#010x|%08x|%#X|%#x|\n", 0xbeef, 0xbeef, 0xbeef, 0xbeef, 0xbeef, 0xbeef, 0);
	pr_info("|%o|%#o|%#o|\n", 8, 8, 0);
	pr_info("|%hhx|%hx|%lx|%llx|%hhd|%hd|\n", 0x1ff, 0x1ffff, 0x1ffffffffUL, 0x1ffffffffULL, 200, 40000);
	pr_info("|%zu|%zd|%ld|%lu|%lld|\n", size, (ssize_t)-1, -1L, ~0UL, S64_MIN);
	pr_info("|%.5d|%8.5d|%-8.3d|%.0d|\n", 42, 42, 42, 0);
	pr_info("|%s|%8s|%-8s|%.2s|%*s|%-*s|\n", "abc", "abc", "abc", "abc", 5, "ab", 5, "ab");
	pr_info("|%s|%c|%3c|%-3c|%%|\n", (char *)NULL, 'x', 'y', 'z');
	pr_info("|%px|%p|%20px|\n", (void *)0x1234, NULL, (void *)0xffff800008000000UL);
	pr_info("|%pe|%pe|\n", ERR_PTR(-ENOMEM), ERR_PTR(-EINVAL));
	pr_info("|%pa|%pM|%pMF|%pm|\n", &address, bytes, bytes, bytes);
	pr_info("|%*ph|%*phC|%*phD|%*phN|\n", 6, bytes, 6, bytes, 6, bytes, 6, bytes);
	number = snprintf(text, sizeof(text), "%p", &number);
	snprintf(first, sizeof(first), "%p", &number);
	pr_info("%d digits, %s, %s\n", number, strncmp(text, "00000000", 8) ? "not hashed" : "hashed", strcmp(text, first) ? "differs" : "stable");
	number = snprintf(text, 4, "%s", "abcdef");
	pr_info("%d %s %d\n", number, text, scnprintf(text, 4, "%s", "abcdef"));

	printk("no level\n");
	printk(KERN_ERR "error\n");
	printk(KERN_DEBUG "debug\n");
	pr_debug("never seen\n");
	pr_info("begins");
	pr_cont(", goes on");
	pr_cont(", ends\n");
	pr_info("without an end");
	pr_warn("the next line\n");
	pr_cont("continues nothing\n");
	for (count = 0; count < 3; count++)
		pr_info_once("once\n");
	for (count = 0; count < 12; count++)
		pr_info_ratelimited("limited %d\n", count);
	print_hex_dump(KERN_INFO, "dump: ", DUMP_PREFIX_OFFSET, 16, 1, "0123456789abcdefXY\n", 19, true);

	count = sscanf("12 abc 0x1f -7 rest", "%d %s %x %d %[a-z]", &number, first, &hex, &other, second);
	pr_info("%d: %d %s %x %d %s\n", count, number, first, hex, other, second);
	count = sscanf("key=value", "%[^=]=%3s", first, second);
	pr_info("%d: %s %s\n", count, first, second);
	count = sscanf("x", "%d", &number);
	pr_info("%d\n", count);

	result = kstrtoint("-12\n", 10, &number);
	pr_info("%d %d\n", result, number);
	result = kstrtoint("0x10", 0, &number);
	pr_info("%d %d\n", result, number);
	result = kstrtoint("12 ", 10, &number);
	pr_info("%d\n", result);
	result = kstrtoint("3000000000", 10, &number);
	pr_info("%d\n", result);
	result = kstrtoull("18446744073709551616", 10, &wide);
	pr_info("%d\n", result);
	result = kstrtou8("256", 10, &small);
	pr_info("%d\n", result);
	result = kstrtobool("on", &flag);
	pr_info("%d %d\n", result, flag);
	result = strscpy(text, "0123456789", 5);
	pr_info("%d %s\n", result, text);
	strcpy(text, "  trim me \n");
	pr_info("|%s|\n", strim(text));
	pr_info("%d %d %d\n", min(3, 5), clamp(7, 1, 5), DIV_ROUND_UP(7, 2));
	pr_info("%lx %x %d\n", GENMASK(58, 51), lower_32_bits(0x123456789ULL), fls(0x80));
	WARN_ON(count == 0);
	WARN(1, "count is %d\n", count);
	return -EAGAIN;
}

static void __exit printing_exit(void)
{
}

module_init(printing_init);
module_exit(printing_exit);
MODULE_LICENSE("GPL");
