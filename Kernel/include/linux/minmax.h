/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef LINUX_MINMAX_H
#define LINUX_MINMAX_H

/* The comparison of pointers warns of different types, as the kernel's min() and max() do. */
#define __careful_cmp(x, y, op) ({ \
	__typeof__(x) __cmp_x = (x); \
	__typeof__(y) __cmp_y = (y); \
	(void)((__typeof__(x) *)1 == (__typeof__(y) *)1); \
	__cmp_x op __cmp_y ? __cmp_x : __cmp_y; })
/* Constants stay constants. */
#define min(x, y) __careful_cmp(x, y, <)
#define max(x, y) __careful_cmp(x, y, >)
#define min_t(type, x, y) ({ type __min_x = (x); type __min_y = (y); __min_x < __min_y ? __min_x : __min_y; })
#define max_t(type, x, y) ({ type __max_x = (x); type __max_y = (y); __max_x > __max_y ? __max_x : __max_y; })
#define min3(x, y, z) min((__typeof__(x))min(x, y), z)
#define max3(x, y, z) max((__typeof__(x))max(x, y), z)
#define clamp(value, low, high) min((__typeof__(value))max(value, low), high)
#define clamp_t(type, value, low, high) min_t(type, max_t(type, value, low), high)
#define clamp_val(value, low, high) clamp_t(__typeof__(value), value, low, high)
#define swap(a, b) do { __typeof__(a) __swap = (a); (a) = (b); (b) = __swap; } while (0)

#endif
