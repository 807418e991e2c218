/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Questions for options of the configuration: an option is 1 if it is set, and no macro otherwise. */
#ifndef LINUX_KCONFIG_H
#define LINUX_KCONFIG_H

#define __config_placeholder_1 0,
#define __config_second(ignored, value, ...) value
#define __config_is_set(x) __config_is_set_1(x)
#define __config_is_set_1(value) __config_is_set_2(__config_placeholder_##value)
#define __config_is_set_2(argument_or_junk) __config_second(argument_or_junk 1, 0)
#define IS_BUILTIN(option) __config_is_set(option)
#define IS_MODULE(option) __config_is_set(option##_MODULE)
#define IS_ENABLED(option) (IS_BUILTIN(option) || IS_MODULE(option))
#define IS_REACHABLE(option) IS_BUILTIN(option)

#define CONFIG_64BIT 1
#define CONFIG_ARM64 1
#define CONFIG_SMP 1
#define CONFIG_MODULES 1
#define CONFIG_MODULE_UNLOAD 1
#define CONFIG_PRINTK 1
#define CONFIG_HZ 250

#endif
