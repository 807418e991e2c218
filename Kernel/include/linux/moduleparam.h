/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Parameters of modules. */
#ifndef LINUX_MODULEPARAM_H
#define LINUX_MODULEPARAM_H

#include <linux/build_bug.h>
#include <linux/kernel.h>
#include <linux/types.h>

struct kernel_param;

struct kernel_param_ops {
	unsigned int flags;
	int (*set)(const char *value, const struct kernel_param *parameter);
	int (*get)(char *buffer, const struct kernel_param *parameter);
	void (*free)(void *argument);
};

/* The parameter can stand without "=value". */
#define KERNEL_PARAM_OPS_FL_NOARG 1

struct kparam_string {
	unsigned int maxlen;
	char *string;
};

struct kparam_array {
	unsigned int max;
	unsigned int elemsize;
	unsigned int *num;
	const struct kernel_param_ops *ops;
	void *elem;
};

struct kernel_param {
	const char *name;
	const struct kernel_param_ops *ops;
	u16 perm;
	union {
		void *arg;
		const struct kparam_string *str;
		const struct kparam_array *arr;
	};
};

extern const struct kernel_param_ops param_ops_byte, param_ops_short, param_ops_ushort, param_ops_int, param_ops_uint, param_ops_long,
	param_ops_ulong, param_ops_ullong, param_ops_hexint, param_ops_charp, param_ops_bool, param_ops_invbool, param_ops_string,
	param_array_ops;
int param_set_int(const char *value, const struct kernel_param *parameter);
int param_get_int(char *buffer, const struct kernel_param *parameter);
int param_set_uint(const char *value, const struct kernel_param *parameter);
int param_set_bool(const char *value, const struct kernel_param *parameter);
int param_set_charp(const char *value, const struct kernel_param *parameter);

/* The compiler compares the variable with the type that the parameter names. */
#define __param_type(type) __param_type_##type
#define __param_check(name, pointer, type) \
	static inline type __maybe_unused *__check_##name(void) { return (pointer); }
#define param_check_byte(name, pointer) __param_check(name, pointer, unsigned char)
#define param_check_short(name, pointer) __param_check(name, pointer, short)
#define param_check_ushort(name, pointer) __param_check(name, pointer, unsigned short)
#define param_check_int(name, pointer) __param_check(name, pointer, int)
#define param_check_uint(name, pointer) __param_check(name, pointer, unsigned int)
#define param_check_hexint(name, pointer) __param_check(name, pointer, unsigned int)
#define param_check_long(name, pointer) __param_check(name, pointer, long)
#define param_check_ulong(name, pointer) __param_check(name, pointer, unsigned long)
#define param_check_ullong(name, pointer) __param_check(name, pointer, unsigned long long)
#define param_check_charp(name, pointer) __param_check(name, pointer, char *)
#define param_check_bool(name, pointer) __param_check(name, pointer, bool)
#define param_check_invbool(name, pointer) __param_check(name, pointer, bool)

#define __module_param(name_, ops_, perm_, ...) \
	static const struct kernel_param __param_##name_ __used __section("module_parameters") __aligned(sizeof(void *)) = \
		{ .name = #name_, .ops = ops_, .perm = (perm_) + BUILD_BUG_ON_ZERO(((perm_) & ~0777) || ((perm_) & 2)), __VA_ARGS__ }
#define module_param_named(name, value, type, perm) \
	param_check_##type(name, &(value)) \
	__module_param(name, &param_ops_##type, perm, { .arg = &(value) })
#define module_param(name, type, perm) module_param_named(name, name, type, perm)
#define module_param_unsafe(name, type, perm) module_param(name, type, perm)
#define module_param_cb(name, ops, argument, perm) __module_param(name, ops, perm, { .arg = (void *)(argument) })
#define module_param_string(name, text, length, perm) \
	static const struct kparam_string __param_string_##name = { length, text }; \
	__module_param(name, &param_ops_string, perm, { .str = &__param_string_##name })
#define module_param_array_named(name, array, type, count, perm) \
	param_check_##type(name, &(array)[0]) \
	static const struct kparam_array __param_arr_##name = { \
		.max = ARRAY_SIZE(array), .num = count, .ops = &param_ops_##type, .elemsize = sizeof((array)[0]), .elem = array, \
	}; \
	__module_param(name, &param_array_ops, perm, { .arr = &__param_arr_##name })
#define module_param_array(name, type, count, perm) module_param_array_named(name, name, type, count, perm)
#define MODULE_PARM_DESC(name, text) _Static_assert(1, "")

#endif
