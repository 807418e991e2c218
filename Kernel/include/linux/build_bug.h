/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Checks of the compiler. */
#ifndef LINUX_BUILD_BUG_H
#define LINUX_BUILD_BUG_H

#define BUILD_BUG_ON_ZERO(e) ((int)(sizeof(struct { int : (-!!(e)); })))
#define BUILD_BUG_ON_MSG(condition, message) _Static_assert(!(condition), message)
#define BUILD_BUG_ON(condition) BUILD_BUG_ON_MSG(condition, "BUILD_BUG_ON failed: " #condition)
#define BUILD_BUG_ON_NOT_POWER_OF_2(n) BUILD_BUG_ON((n) == 0 || (((n) & ((n) - 1)) != 0))
#define BUILD_BUG() BUILD_BUG_ON_MSG(1, "BUILD_BUG failed")
#define static_assert(condition, ...) __static_assert(condition, ##__VA_ARGS__, #condition)
#define __static_assert(condition, message, ...) _Static_assert(condition, message)

#endif
