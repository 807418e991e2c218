/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef LINUX_STRING_H
#define LINUX_STRING_H

#include <linux/errno.h>
#include <linux/types.h>

void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);
void *memchr(const void *memory, int byte, size_t size);
size_t strlen(const char *text);
size_t strnlen(const char *text, size_t size);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t size);
int strcasecmp(const char *a, const char *b);
int strncasecmp(const char *a, const char *b, size_t size);
char *strcpy(char *to, const char *from);
char *strncpy(char *to, const char *from, size_t size);
char *strcat(char *to, const char *from);
char *strncat(char *to, const char *from, size_t size);
char *strchr(const char *text, int byte);
char *strrchr(const char *text, int byte);
char *strstr(const char *text, const char *part);
char *strpbrk(const char *text, const char *set);
char *strsep(char **text, const char *set);
size_t strspn(const char *text, const char *set);
size_t strcspn(const char *text, const char *set);

/* Functions that the C library has not, or has with another meaning. */
void *memscan(void *memory, int byte, size_t size);
void *memchr_inv(const void *memory, int byte, size_t size);
void *kernel_memset_words(void *to, u64 value, unsigned int width, size_t count);
size_t strlcpy(char *to, const char *from, size_t size) __asm__("kernel_strlcpy");
size_t strlcat(char *to, const char *from, size_t size) __asm__("kernel_strlcat");
ssize_t strscpy(char *to, const char *from, size_t size);
ssize_t strscpy_pad(char *to, const char *from, size_t size);
char *strchrnul(const char *text, int byte) __asm__("kernel_strchrnul");
char *strnchr(const char *text, size_t size, int byte);
char *strnstr(const char *text, const char *part, size_t size) __asm__("kernel_strnstr");
char *skip_spaces(const char *text);
char *strim(char *text);
bool sysfs_streq(const char *a, const char *b);
int match_string(const char * const *array, size_t count, const char *text);
int kstrtobool(const char *text, bool *result);
#define strtobool(text, result) kstrtobool(text, result)
#define memset16(to, value, count) kernel_memset_words(to, value, 2, count)
#define memset32(to, value, count) kernel_memset_words(to, value, 4, count)
#define memset64(to, value, count) kernel_memset_words(to, value, 8, count)
#define memzero_explicit(to, size) do { memset(to, 0, size); barrier(); } while (0)
static inline char *strstrip(char *text)
{
	return strim(text);
}

static inline const char *kbasename(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

static inline bool strstarts(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

char *kstrdup(const char *text, gfp_t flags);
char *kstrndup(const char *text, size_t size, gfp_t flags);
void *kmemdup(const void *from, size_t size, gfp_t flags);
char *kmemdup_nul(const char *from, size_t size, gfp_t flags);
void *memdup_user(const void __user *from, size_t size);
void *memdup_user_nul(const void __user *from, size_t size);
char *strndup_user(const char __user *from, long size);

#endif
