/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef LINUX_EXPORT_H
#define LINUX_EXPORT_H

#define EXPORT_SYMBOL(name) _Static_assert(1, "")
#define EXPORT_SYMBOL_GPL(name) _Static_assert(1, "")
#define EXPORT_SYMBOL_NS(name, namespace) _Static_assert(1, "")
#define EXPORT_SYMBOL_NS_GPL(name, namespace) _Static_assert(1, "")
extern struct module __this_module;
#define THIS_MODULE (&__this_module)

#endif
