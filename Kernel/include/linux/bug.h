/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* BUG() ends the code. WARN() is a finding, and the code goes on. */
#ifndef LINUX_BUG_H
#define LINUX_BUG_H

#include <linux/build_bug.h>
#include <linux/printk.h>

void __bug(const char *file, int line, const char *function) __noreturn __cold;
void __warn_printf(const char *file, int line, const char *function, const char *fmt, ...) __printf(4, 5) __cold;

#define BUG() __bug(__FILE__, __LINE__, __func__)
#define BUG_ON(condition) do { if (unlikely(condition)) BUG(); } while (0)
#define __WARN() __warn_printf(__FILE__, __LINE__, __func__, NULL)
#define WARN_ON(condition) ({ \
	int __warned = !!(condition); \
	if (unlikely(__warned)) \
		__WARN(); \
	unlikely(__warned); })
#define WARN(condition, fmt, ...) ({ \
	int __warned = !!(condition); \
	if (unlikely(__warned)) \
		__warn_printf(__FILE__, __LINE__, __func__, fmt, ##__VA_ARGS__); \
	unlikely(__warned); })
#define WARN_ON_ONCE(condition) ({ \
	static bool __done; \
	int __once = !!(condition); \
	if (unlikely(__once && !__done)) { \
		__done = true; \
		__WARN(); \
	} \
	unlikely(__once); })
#define WARN_ONCE(condition, fmt, ...) ({ \
	static bool __done; \
	int __once = !!(condition); \
	if (unlikely(__once && !__done)) { \
		__done = true; \
		__warn_printf(__FILE__, __LINE__, __func__, fmt, ##__VA_ARGS__); \
	} \
	unlikely(__once); })
#define WARN_TAINT(condition, taint, fmt, ...) WARN(condition, fmt, ##__VA_ARGS__)

#endif
