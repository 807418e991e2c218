// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* Strings and numbers in text, as the kernel has them. */
#include <linux/ctype.h>
#include <linux/kernel.h>
#include <linux/string.h>

/* Libraries of sanitizers bring the functions of C, and check what they are given. */
#ifndef RUNTIME_SANITIZE
void *memcpy(void *to, const void *from, size_t size)
{
	u8 *t = to;
	const u8 *f = from;

	for (; size >= 8; size -= 8, t += 8, f += 8)
		__builtin_memcpy(t, f, 8);
	while (size--)
		*t++ = *f++;
	return to;
}

void *memmove(void *to, const void *from, size_t size)
{
	u8 *t = to;
	const u8 *f = from;

	if (t <= f || t >= f + size) {
		for (; size >= 8; size -= 8, t += 8, f += 8) {
			u64 word;

			__builtin_memcpy(&word, f, 8);
			__builtin_memcpy(t, &word, 8);
		}
		while (size--)
			*t++ = *f++;
		return to;
	}
	while (size--)
		t[size] = f[size];
	return to;
}

void *memset(void *to, int byte, size_t size)
{
	u8 *t = to;
	u64 word = REPEAT_BYTE((u8)byte);

	for (; size >= 8; size -= 8, t += 8)
		__builtin_memcpy(t, &word, 8);
	while (size--)
		*t++ = byte;
	return to;
}

int memcmp(const void *a, const void *b, size_t size)
{
	const u8 *x = a, *y = b;

	for (; size; size--, x++, y++) {
		if (*x != *y)
			return *x - *y;
	}
	return 0;
}

/* clang calls it for a memcmp() that asks for equality only. */
int bcmp(const void *a, const void *b, size_t size);
int bcmp(const void *a, const void *b, size_t size)
{
	return memcmp(a, b, size);
}

void *memchr(const void *memory, int byte, size_t size)
{
	const u8 *m = memory;

	for (; size; size--, m++) {
		if (*m == (u8)byte)
			return (void *)m;
	}
	return NULL;
}

size_t strlen(const char *text)
{
	size_t length = 0;

	while (text[length])
		length++;
	return length;
}

size_t strnlen(const char *text, size_t size)
{
	size_t length = 0;

	while (length < size && text[length])
		length++;
	return length;
}

int strcmp(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return (u8)*a < (u8)*b ? -1 : (u8)*a > (u8)*b;
}

int strncmp(const char *a, const char *b, size_t size)
{
	for (; size; size--, a++, b++) {
		if (*a != *b)
			return (u8)*a < (u8)*b ? -1 : 1;
		if (!*a)
			break;
	}
	return 0;
}

int strncasecmp(const char *a, const char *b, size_t size)
{
	for (; size; size--, a++, b++) {
		int difference = tolower((u8)*a) - tolower((u8)*b);

		if (difference || !*a)
			return difference;
	}
	return 0;
}

int strcasecmp(const char *a, const char *b)
{
	return strncasecmp(a, b, SIZE_MAX);
}

char *strcpy(char *to, const char *from)
{
	char *t = to;

	while ((*t++ = *from++))
		;
	return to;
}

char *strncpy(char *to, const char *from, size_t size)
{
	size_t i = 0;

	for (; i < size && from[i]; i++)
		to[i] = from[i];
	for (; i < size; i++)
		to[i] = 0;
	return to;
}

char *strcat(char *to, const char *from)
{
	strcpy(to + strlen(to), from);
	return to;
}

char *strncat(char *to, const char *from, size_t size)
{
	char *t = to + strlen(to);

	for (; size && *from; size--)
		*t++ = *from++;
	*t = 0;
	return to;
}

char *strchr(const char *text, int byte)
{
	for (;; text++) {
		if (*text == (char)byte)
			return (char *)text;
		if (!*text)
			return NULL;
	}
}

char *strrchr(const char *text, int byte)
{
	const char *last = NULL;

	do {
		if (*text == (char)byte)
			last = text;
	} while (*text++);
	return (char *)last;
}

char *strstr(const char *text, const char *part)
{
	size_t length = strlen(part);

	for (;; text++) {
		if (!strncmp(text, part, length))
			return (char *)text;
		if (!*text)
			return NULL;
	}
}

char *strpbrk(const char *text, const char *set)
{
	text += strcspn(text, set);
	return *text ? (char *)text : NULL;
}

char *strsep(char **text, const char *set)
{
	char *begin = *text;

	if (begin) {
		char *end = strpbrk(begin, set);

		if (end)
			*end++ = 0;
		*text = end;
	}
	return begin;
}

size_t strspn(const char *text, const char *set)
{
	size_t length = 0;

	while (text[length] && strchr(set, text[length]))
		length++;
	return length;
}

size_t strcspn(const char *text, const char *set)
{
	size_t length = 0;

	while (text[length] && !strchr(set, text[length]))
		length++;
	return length;
}
#endif

void *memscan(void *memory, int byte, size_t size)
{
	void *found = memchr(memory, byte, size);

	return found ? found : memory + size;
}

void *memchr_inv(const void *memory, int byte, size_t size)
{
	const u8 *m = memory;

	for (; size; size--, m++) {
		if (*m != (u8)byte)
			return (void *)m;
	}
	return NULL;
}

void *kernel_memset_words(void *to, u64 value, unsigned int width, size_t count)
{
	for (size_t i = 0; i < count; i++)
		memcpy(to + i * width, &value, width);
	return to;
}

size_t strlcpy(char *to, const char *from, size_t size)
{
	size_t length = strlen(from);

	if (size) {
		size_t copied = min(length, size - 1);

		memcpy(to, from, copied);
		to[copied] = 0;
	}
	return length;
}

size_t strlcat(char *to, const char *from, size_t size)
{
	size_t length = strlen(to);

	return length + strlcpy(to + length, from, size - length);
}

ssize_t strscpy(char *to, const char *from, size_t size)
{
	size_t length;

	if (!size)
		return -E2BIG;
	length = strnlen(from, size);
	if (length == size) {
		memcpy(to, from, size - 1);
		to[size - 1] = 0;
		return -E2BIG;
	}
	memcpy(to, from, length + 1);
	return length;
}

ssize_t strscpy_pad(char *to, const char *from, size_t size)
{
	ssize_t length = strscpy(to, from, size);

	if (length >= 0)
		memset(to + length + 1, 0, size - length - 1);
	return length;
}

char *strchrnul(const char *text, int byte)
{
	while (*text && *text != (char)byte)
		text++;
	return (char *)text;
}

char *strnchr(const char *text, size_t size, int byte)
{
	for (; size; size--, text++) {
		if (*text == (char)byte)
			return (char *)text;
		if (!*text)
			break;
	}
	return NULL;
}

char *strnstr(const char *text, const char *part, size_t size)
{
	size_t length = strlen(part);

	for (; size >= length; size--, text++) {
		if (!memcmp(text, part, length))
			return (char *)text;
	}
	return NULL;
}

char *skip_spaces(const char *text)
{
	while (isspace((u8)*text))
		text++;
	return (char *)text;
}

char *strim(char *text)
{
	size_t length = strlen(text);

	while (length && isspace((u8)text[length - 1]))
		length--;
	text[length] = 0;
	return skip_spaces(text);
}

bool sysfs_streq(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	if (*a == *b)
		return true;
	return (!*a && *b == '\n' && !b[1]) || (*a == '\n' && !a[1] && !*b);
}

int match_string(const char * const *array, size_t count, const char *text)
{
	for (size_t i = 0; i < count && array[i]; i++) {
		if (!strcmp(array[i], text))
			return i;
	}
	return -EINVAL;
}

int kstrtobool(const char *text, bool *result)
{
	if (!text)
		return -EINVAL;
	switch (text[0]) {
	case 'y': case 'Y': case 't': case 'T': case '1':
		*result = true;
		return 0;
	case 'n': case 'N': case 'f': case 'F': case '0':
		*result = false;
		return 0;
	case 'o': case 'O':
		if (text[1] == 'n' || text[1] == 'N') {
			*result = true;
			return 0;
		}
		if (text[1] == 'f' || text[1] == 'F') {
			*result = false;
			return 0;
		}
	}
	return -EINVAL;
}

const char hex_asc[] = "0123456789abcdef";
const char hex_asc_upper[] = "0123456789ABCDEF";

int hex_to_bin(unsigned char digit)
{
	return isdigit(digit) ? digit - '0' : isxdigit(digit) ? tolower(digit) - 'a' + 10 : -1;
}

int hex2bin(u8 *to, const char *from, size_t count)
{
	for (; count; count--, from += 2) {
		int high = hex_to_bin(from[0]), low = high < 0 ? -1 : hex_to_bin(from[1]);

		if (low < 0)
			return -EINVAL;
		*to++ = high << 4 | low;
	}
	return 0;
}

char *bin2hex(char *to, const void *from, size_t count)
{
	for (const u8 *byte = from; count; count--, byte++) {
		*to++ = hex_asc_hi(*byte);
		*to++ = hex_asc_lo(*byte);
	}
	return to;
}

/* Base 0 is found by the prefix. */
static const char *find_base(const char *text, unsigned int *base)
{
	bool is_hexadecimal = text[0] == '0' && (text[1] == 'x' || text[1] == 'X') && isxdigit((u8)text[2]);

	if (*base == 0)
		*base = is_hexadecimal ? 16 : text[0] == '0' ? 8 : 10;
	return *base == 16 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X') ? text + 2 : text;
}

/* Returns the number of digits; sets "overflows" if they are too many for 64 bits. */
static unsigned int parse_digits(const char *text, unsigned int base, u64 *result, bool *overflows)
{
	unsigned int count = 0;

	*result = 0;
	*overflows = false;
	for (;; count++, text++) {
		int digit = hex_to_bin(*text);

		if (digit < 0 || (unsigned int)digit >= base)
			return count;
		if (__builtin_mul_overflow(*result, (u64)base, result) || __builtin_add_overflow(*result, (u64)digit, result))
			*overflows = true;
	}
}

static int parse_unsigned(const char *text, unsigned int base, u64 *result)
{
	bool overflows;
	unsigned int count;

	text = find_base(text, &base);
	count = parse_digits(text, base, result, &overflows);
	if (overflows)
		return -ERANGE;
	if (!count)
		return -EINVAL;
	text += count;
	if (*text == '\n')
		text++;
	return *text ? -EINVAL : 0;
}

int kstrtoull(const char *text, unsigned int base, unsigned long long *result)
{
	u64 value;
	int error = parse_unsigned(*text == '+' ? text + 1 : text, base, &value);

	if (!error)
		*result = value;
	return error;
}

int kstrtoll(const char *text, unsigned int base, long long *result)
{
	bool is_negative = *text == '-';
	u64 value;
	int error = is_negative ? parse_unsigned(text + 1, base, &value) : kstrtoull(text, base, &value);

	if (error)
		return error;
	if (is_negative ? (s64)-value > 0 : (s64)value < 0)
		return -ERANGE;
	*result = is_negative ? -value : value;
	return 0;
}

#define DEFINE_KSTRTO(name, type, wide_name, wide_type) \
int name(const char *text, unsigned int base, type *result) \
{ \
	wide_type value; \
	int error = wide_name(text, base, &value); \
 \
	if (error) \
		return error; \
	if (value != (wide_type)(type)value) \
		return -ERANGE; \
	*result = value; \
	return 0; \
}

DEFINE_KSTRTO(kstrtoul, unsigned long, kstrtoull, unsigned long long)
DEFINE_KSTRTO(kstrtol, long, kstrtoll, long long)
DEFINE_KSTRTO(kstrtouint, unsigned int, kstrtoull, unsigned long long)
DEFINE_KSTRTO(kstrtoint, int, kstrtoll, long long)
DEFINE_KSTRTO(kstrtou16, u16, kstrtoull, unsigned long long)
DEFINE_KSTRTO(kstrtos16, s16, kstrtoll, long long)
DEFINE_KSTRTO(kstrtou8, u8, kstrtoull, unsigned long long)
DEFINE_KSTRTO(kstrtos8, s8, kstrtoll, long long)

unsigned long long simple_strtoull(const char *text, char **end, unsigned int base)
{
	bool overflows;
	u64 result;

	text = find_base(text, &base);
	text += parse_digits(text, base, &result, &overflows);
	if (end)
		*end = (char *)text;
	return result;
}

unsigned long simple_strtoul(const char *text, char **end, unsigned int base)
{
	return simple_strtoull(text, end, base);
}

long simple_strtol(const char *text, char **end, unsigned int base)
{
	return *text == '-' ? -simple_strtoul(text + 1, end, base) : simple_strtoul(text, end, base);
}

long long simple_strtoll(const char *text, char **end, unsigned int base)
{
	return simple_strtol(text, end, base);
}
