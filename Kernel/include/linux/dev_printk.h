/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Lines of the log that begin with a device's name. */
#ifndef LINUX_DEV_PRINTK_H
#define LINUX_DEV_PRINTK_H

#include <linux/printk.h>

struct device;

void _dev_printk(const char *level, const struct device *device, const char *fmt, ...) __printf(3, 4) __cold;
int dev_err_probe(const struct device *device, int error, const char *fmt, ...) __printf(3, 4);

#ifndef dev_fmt
#define dev_fmt(fmt) fmt
#endif
#define dev_printk(level, device, fmt, ...) _dev_printk(level, device, fmt, ##__VA_ARGS__)
#define dev_emerg(device, fmt, ...) _dev_printk(KERN_EMERG, device, dev_fmt(fmt), ##__VA_ARGS__)
#define dev_alert(device, fmt, ...) _dev_printk(KERN_ALERT, device, dev_fmt(fmt), ##__VA_ARGS__)
#define dev_crit(device, fmt, ...) _dev_printk(KERN_CRIT, device, dev_fmt(fmt), ##__VA_ARGS__)
#define dev_err(device, fmt, ...) _dev_printk(KERN_ERR, device, dev_fmt(fmt), ##__VA_ARGS__)
#define dev_warn(device, fmt, ...) _dev_printk(KERN_WARNING, device, dev_fmt(fmt), ##__VA_ARGS__)
#define dev_notice(device, fmt, ...) _dev_printk(KERN_NOTICE, device, dev_fmt(fmt), ##__VA_ARGS__)
#define dev_info(device, fmt, ...) _dev_printk(KERN_INFO, device, dev_fmt(fmt), ##__VA_ARGS__)
#ifdef DEBUG
#define dev_dbg(device, fmt, ...) _dev_printk(KERN_DEBUG, device, dev_fmt(fmt), ##__VA_ARGS__)
#else
#define dev_dbg(device, fmt, ...) ({ if (0) _dev_printk(KERN_DEBUG, device, dev_fmt(fmt), ##__VA_ARGS__); })
#endif
#define __dev_once(function, device, fmt, ...) ({ \
	static bool __printed; \
	if (!__printed) { \
		__printed = true; \
		function(device, fmt, ##__VA_ARGS__); \
	} })
#define dev_err_once(device, fmt, ...) __dev_once(dev_err, device, fmt, ##__VA_ARGS__)
#define dev_warn_once(device, fmt, ...) __dev_once(dev_warn, device, fmt, ##__VA_ARGS__)
#define dev_info_once(device, fmt, ...) __dev_once(dev_info, device, fmt, ##__VA_ARGS__)
#define __dev_ratelimited(function, device, fmt, ...) ({ \
	static DEFINE_RATELIMIT_STATE(__state, DEFAULT_RATELIMIT_INTERVAL, DEFAULT_RATELIMIT_BURST); \
	if (__ratelimit(&__state)) \
		function(device, fmt, ##__VA_ARGS__); })
#define dev_err_ratelimited(device, fmt, ...) __dev_ratelimited(dev_err, device, fmt, ##__VA_ARGS__)
#define dev_warn_ratelimited(device, fmt, ...) __dev_ratelimited(dev_warn, device, fmt, ##__VA_ARGS__)
#define dev_info_ratelimited(device, fmt, ...) __dev_ratelimited(dev_info, device, fmt, ##__VA_ARGS__)

#endif
