/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Modules. */
#ifndef LINUX_MODULE_H
#define LINUX_MODULE_H

#include <linux/err.h>
#include <linux/export.h>
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/moduleparam.h>
#include <linux/stat.h>
#include <linux/string.h>
#include <linux/types.h>

struct module {
	const char *name;
	int references;
};

int init_module(void);
void cleanup_module(void);

#define module_init(function) \
	static inline initcall_t __maybe_unused __init_test(void) { return function; } \
	int init_module(void) __attribute__((__alias__(#function)))
#define module_exit(function) \
	static inline exitcall_t __maybe_unused __exit_test(void) { return function; } \
	void cleanup_module(void) __attribute__((__alias__(#function)))
#define late_initcall(function) module_init(function)
#define device_initcall(function) module_init(function)

#define __MODULE_INFO(tag, name, text) \
	static const char __UNIQUE_ID(name)[] __used __section("modinfo") __aligned(1) = __stringify(tag) "=" text
#define MODULE_INFO(tag, text) __MODULE_INFO(tag, tag, text)
#ifdef KBUILD_MODNAME
__MODULE_INFO(name, name, KBUILD_MODNAME);
#endif
#define MODULE_LICENSE(text) MODULE_INFO(license, text)
#define MODULE_AUTHOR(text) MODULE_INFO(author, text)
#define MODULE_DESCRIPTION(text) MODULE_INFO(description, text)
#define MODULE_VERSION(text) MODULE_INFO(version, text)
#define MODULE_ALIAS(text) MODULE_INFO(alias, text)
#define MODULE_SOFTDEP(text) MODULE_INFO(softdep, text)
#define MODULE_FIRMWARE(text) MODULE_INFO(firmware, text)
#define MODULE_IMPORT_NS(name) MODULE_INFO(import_ns, __stringify(name))
#define MODULE_ALIAS_CHARDEV(major, minor) MODULE_INFO(alias, "char-major-" __stringify(major) "-" __stringify(minor))
#define MODULE_ALIAS_MISCDEV(minor) MODULE_INFO(alias, "char-major-10-" __stringify(minor))
#define MODULE_DEVICE_TABLE(type, name) _Static_assert(1, "")

bool try_module_get(struct module *module);
void module_put(struct module *module);
void __module_get(struct module *module);
int module_refcount(struct module *module);
#define module_name(module) ((module)->name)

#endif
