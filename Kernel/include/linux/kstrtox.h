/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Numbers in text. */
#ifndef LINUX_KSTRTOX_H
#define LINUX_KSTRTOX_H

#include <linux/string.h>
#include <linux/types.h>

int __must_check kstrtoull(const char *text, unsigned int base, unsigned long long *result);
int __must_check kstrtoll(const char *text, unsigned int base, long long *result);
int __must_check kstrtoul(const char *text, unsigned int base, unsigned long *result);
int __must_check kstrtol(const char *text, unsigned int base, long *result);
int __must_check kstrtouint(const char *text, unsigned int base, unsigned int *result);
int __must_check kstrtoint(const char *text, unsigned int base, int *result);
int __must_check kstrtou16(const char *text, unsigned int base, u16 *result);
int __must_check kstrtos16(const char *text, unsigned int base, s16 *result);
int __must_check kstrtou8(const char *text, unsigned int base, u8 *result);
int __must_check kstrtos8(const char *text, unsigned int base, s8 *result);
#define kstrtou64(text, base, result) kstrtoull(text, base, result)
#define kstrtos64(text, base, result) kstrtoll(text, base, result)
#define kstrtou32(text, base, result) kstrtouint(text, base, result)
#define kstrtos32(text, base, result) kstrtoint(text, base, result)

int __must_check kstrtoull_from_user(const char __user *text, size_t count, unsigned int base, unsigned long long *result);
int __must_check kstrtoul_from_user(const char __user *text, size_t count, unsigned int base, unsigned long *result);
int __must_check kstrtol_from_user(const char __user *text, size_t count, unsigned int base, long *result);
int __must_check kstrtouint_from_user(const char __user *text, size_t count, unsigned int base, unsigned int *result);
int __must_check kstrtoint_from_user(const char __user *text, size_t count, unsigned int base, int *result);
int __must_check kstrtou8_from_user(const char __user *text, size_t count, unsigned int base, u8 *result);
int __must_check kstrtobool_from_user(const char __user *text, size_t count, bool *result);

unsigned long long simple_strtoull(const char *text, char **end, unsigned int base);
unsigned long simple_strtoul(const char *text, char **end, unsigned int base);
long simple_strtol(const char *text, char **end, unsigned int base);
long long simple_strtoll(const char *text, char **end, unsigned int base);

#endif
