/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The log. */
#ifndef LINUX_PRINTK_H
#define LINUX_PRINTK_H

#include <linux/kern_levels.h>
#include <linux/types.h>

typedef __builtin_va_list va_list;
#define va_start(list, last) __builtin_va_start(list, last)
#define va_end(list) __builtin_va_end(list)
#define va_arg(list, type) __builtin_va_arg(list, type)
#define va_copy(to, from) __builtin_va_copy(to, from)

struct va_format {
	const char *fmt;
	va_list *va;
};

int _printk(const char *fmt, ...) __printf(1, 2) __cold;
int vprintk(const char *fmt, va_list args) __printf(1, 0);
#define printk(fmt, ...) _printk(fmt, ##__VA_ARGS__)
#define printk_deferred(fmt, ...) _printk(fmt, ##__VA_ARGS__)

static inline __printf(1, 2) int no_printk(const char *fmt, ...)
{
	(void)fmt;
	return 0;
}

#ifndef pr_fmt
#define pr_fmt(fmt) fmt
#endif

#define pr_emerg(fmt, ...) printk(KERN_EMERG pr_fmt(fmt), ##__VA_ARGS__)
#define pr_alert(fmt, ...) printk(KERN_ALERT pr_fmt(fmt), ##__VA_ARGS__)
#define pr_crit(fmt, ...) printk(KERN_CRIT pr_fmt(fmt), ##__VA_ARGS__)
#define pr_err(fmt, ...) printk(KERN_ERR pr_fmt(fmt), ##__VA_ARGS__)
#define pr_warn(fmt, ...) printk(KERN_WARNING pr_fmt(fmt), ##__VA_ARGS__)
#define pr_notice(fmt, ...) printk(KERN_NOTICE pr_fmt(fmt), ##__VA_ARGS__)
#define pr_info(fmt, ...) printk(KERN_INFO pr_fmt(fmt), ##__VA_ARGS__)
#define pr_cont(fmt, ...) printk(KERN_CONT fmt, ##__VA_ARGS__)
#ifdef DEBUG
#define pr_debug(fmt, ...) printk(KERN_DEBUG pr_fmt(fmt), ##__VA_ARGS__)
#define pr_devel(fmt, ...) printk(KERN_DEBUG pr_fmt(fmt), ##__VA_ARGS__)
#else
#define pr_debug(fmt, ...) ({ if (0) printk(KERN_DEBUG pr_fmt(fmt), ##__VA_ARGS__); 0; })
#define pr_devel(fmt, ...) ({ if (0) printk(KERN_DEBUG pr_fmt(fmt), ##__VA_ARGS__); 0; })
#endif

#define printk_once(fmt, ...) ({ \
	static bool __printed; \
	bool __first = !__printed; \
	__printed = true; \
	if (__first) \
		printk(fmt, ##__VA_ARGS__); \
	__first; })
#define pr_emerg_once(fmt, ...) printk_once(KERN_EMERG pr_fmt(fmt), ##__VA_ARGS__)
#define pr_alert_once(fmt, ...) printk_once(KERN_ALERT pr_fmt(fmt), ##__VA_ARGS__)
#define pr_crit_once(fmt, ...) printk_once(KERN_CRIT pr_fmt(fmt), ##__VA_ARGS__)
#define pr_err_once(fmt, ...) printk_once(KERN_ERR pr_fmt(fmt), ##__VA_ARGS__)
#define pr_warn_once(fmt, ...) printk_once(KERN_WARNING pr_fmt(fmt), ##__VA_ARGS__)
#define pr_notice_once(fmt, ...) printk_once(KERN_NOTICE pr_fmt(fmt), ##__VA_ARGS__)
#define pr_info_once(fmt, ...) printk_once(KERN_INFO pr_fmt(fmt), ##__VA_ARGS__)
#define pr_debug_once(fmt, ...) pr_debug(fmt, ##__VA_ARGS__)

/* A burst of lines of one place, and no more in the next seconds. */
struct ratelimit_state {
	int interval;
	int burst;
	int printed;
	int missed;
	unsigned long begin;
};

#define DEFAULT_RATELIMIT_INTERVAL (5 * 250)
#define DEFAULT_RATELIMIT_BURST 10
#define RATELIMIT_STATE_INIT(name, interval_, burst_) { .interval = interval_, .burst = burst_ }
#define DEFINE_RATELIMIT_STATE(name, interval_, burst_) \
	struct ratelimit_state name = RATELIMIT_STATE_INIT(name, interval_, burst_)
int ___ratelimit(struct ratelimit_state *state, const char *function);
#define __ratelimit(state) ___ratelimit(state, __func__)
#define printk_ratelimited(fmt, ...) ({ \
	static DEFINE_RATELIMIT_STATE(__state, DEFAULT_RATELIMIT_INTERVAL, DEFAULT_RATELIMIT_BURST); \
	if (__ratelimit(&__state)) \
		printk(fmt, ##__VA_ARGS__); })
#define printk_ratelimit() ({ \
	static DEFINE_RATELIMIT_STATE(__state, DEFAULT_RATELIMIT_INTERVAL, DEFAULT_RATELIMIT_BURST); \
	__ratelimit(&__state); })
#define pr_emerg_ratelimited(fmt, ...) printk_ratelimited(KERN_EMERG pr_fmt(fmt), ##__VA_ARGS__)
#define pr_alert_ratelimited(fmt, ...) printk_ratelimited(KERN_ALERT pr_fmt(fmt), ##__VA_ARGS__)
#define pr_crit_ratelimited(fmt, ...) printk_ratelimited(KERN_CRIT pr_fmt(fmt), ##__VA_ARGS__)
#define pr_err_ratelimited(fmt, ...) printk_ratelimited(KERN_ERR pr_fmt(fmt), ##__VA_ARGS__)
#define pr_warn_ratelimited(fmt, ...) printk_ratelimited(KERN_WARNING pr_fmt(fmt), ##__VA_ARGS__)
#define pr_notice_ratelimited(fmt, ...) printk_ratelimited(KERN_NOTICE pr_fmt(fmt), ##__VA_ARGS__)
#define pr_info_ratelimited(fmt, ...) printk_ratelimited(KERN_INFO pr_fmt(fmt), ##__VA_ARGS__)
#define pr_debug_ratelimited(fmt, ...) pr_debug(fmt, ##__VA_ARGS__)

enum {
	DUMP_PREFIX_NONE,
	DUMP_PREFIX_ADDRESS,
	DUMP_PREFIX_OFFSET,
};

void print_hex_dump(const char *level, const char *prefix, int prefix_type, int row_size, int group_size, const void *data,
		    size_t length, bool ascii);
#define print_hex_dump_bytes(prefix, type, data, length) print_hex_dump(KERN_DEBUG, prefix, type, 16, 1, data, length, true)
#define print_hex_dump_debug(prefix, type, row, group, data, length, ascii) do { } while (0)

void dump_stack(void) __cold;
void panic(const char *fmt, ...) __noreturn __cold __printf(1, 2);

/* The C library has functions of the same names with other formats: the labels keep the two apart. */
int sprintf(char *buffer, const char *fmt, ...) __asm__("kernel_sprintf") __printf(2, 3);
int vsprintf(char *buffer, const char *fmt, va_list args) __asm__("kernel_vsprintf") __printf(2, 0);
int snprintf(char *buffer, size_t size, const char *fmt, ...) __asm__("kernel_snprintf") __printf(3, 4);
int vsnprintf(char *buffer, size_t size, const char *fmt, va_list args) __asm__("kernel_vsnprintf") __printf(3, 0);
int scnprintf(char *buffer, size_t size, const char *fmt, ...) __printf(3, 4);
int vscnprintf(char *buffer, size_t size, const char *fmt, va_list args) __printf(3, 0);
int sscanf(const char *text, const char *fmt, ...) __asm__("kernel_sscanf") __scanf(2, 3);
char *kasprintf(gfp_t flags, const char *fmt, ...) __printf(2, 3);
char *kvasprintf(gfp_t flags, const char *fmt, va_list args) __printf(2, 0);

#endif
