// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* printk() and the kernel's formats. */
#include <linux/ctype.h>
#include <linux/random.h>
#include <linux/slab.h>
#include "runtime.h"
#include "system.h"

enum {
	FLAG_LEFT = 1,
	FLAG_PLUS = 2,
	FLAG_SPACE = 4,
	FLAG_SPECIAL = 8,
	FLAG_ZERO = 16,
	FLAG_SIGNED = 32,
	FLAG_UPPER = 64,
};

struct specification {
	unsigned int flags;
	unsigned int base;
	int width;
	int precision;
};

/* Text that is written as far as there is room. */
struct output {
	char *at;
	char *end;
	size_t length;
};

static void put(struct output *output, char byte)
{
	if (output->at < output->end)
		*output->at++ = byte;
	output->length++;
}

static void put_many(struct output *output, char byte, int count)
{
	while (count-- > 0)
		put(output, byte);
}

static void put_number(struct output *output, u64 number, struct specification spec)
{
	char digits[66];
	int count = 0;
	char sign = 0;
	bool has_prefix = (spec.flags & FLAG_SPECIAL) && spec.base != 10;
	bool is_zero = number == 0;

	if (spec.flags & FLAG_LEFT)
		spec.flags &= ~FLAG_ZERO;
	if (spec.flags & FLAG_SIGNED) {
		if ((s64)number < 0) {
			sign = '-';
			number = -number;
		} else if (spec.flags & (FLAG_PLUS | FLAG_SPACE)) {
			sign = spec.flags & FLAG_PLUS ? '+' : ' ';
		}
		spec.width -= sign != 0;
	}
	if (has_prefix)
		spec.width -= spec.base == 16 ? 2 : !is_zero;
	do {
		digits[count++] = (spec.flags & FLAG_UPPER ? hex_asc_upper : hex_asc)[number % spec.base];
		number /= spec.base;
	} while (number);
	spec.precision = max(spec.precision, count);
	spec.width -= spec.precision;
	if (!(spec.flags & (FLAG_ZERO | FLAG_LEFT))) {
		put_many(output, ' ', spec.width);
		spec.width = 0;
	}
	if (sign)
		put(output, sign);
	if (has_prefix && (spec.base == 16 || !is_zero))
		put(output, '0');
	if (has_prefix && spec.base == 16)
		put(output, spec.flags & FLAG_UPPER ? 'X' : 'x');
	if (!(spec.flags & FLAG_LEFT)) {
		put_many(output, '0', spec.width);
		spec.width = 0;
	}
	put_many(output, '0', spec.precision - count);
	while (count)
		put(output, digits[--count]);
	put_many(output, ' ', spec.width);
}

static void put_text(struct output *output, const char *text, size_t length, struct specification spec)
{
	if (!(spec.flags & FLAG_LEFT))
		put_many(output, ' ', spec.width - (int)length);
	for (size_t i = 0; i < length; i++)
		put(output, text[i]);
	if (spec.flags & FLAG_LEFT)
		put_many(output, ' ', spec.width - (int)length);
}

static void put_string(struct output *output, const char *text, struct specification spec)
{
	if (!text)
		text = "(null)";
	else if ((unsigned long)text < PAGE_SIZE || IS_ERR(text))
		text = "(efault)";
	put_text(output, text, spec.precision < 0 ? strlen(text) : strnlen(text, spec.precision), spec);
}

static void put_pointer_digits(struct output *output, u64 number, struct specification spec)
{
	spec.base = 16;
	if (spec.width == -1) {
		spec.width = 16;
		spec.flags |= FLAG_ZERO;
	}
	put_number(output, number, spec);
}

static u64 hash_key[2];

/* %p shows a number for a pointer, which is the same until the process ends, and tells nothing of the address. */
static u64 hash_pointer(u64 pointer)
{
	if (!hash_key[0])
		get_random_bytes(hash_key, sizeof(hash_key));
	pointer = (pointer ^ hash_key[0]) * 0xff51afd7ed558ccdULL;
	pointer = (pointer ^ (pointer >> 33) ^ hash_key[1]) * 0xc4ceb9fe1a85ec53ULL;
	return pointer >> 32;
}

static const struct {
	int number;
	const char *name;
} error_names[] = {
#define NAME(name) { name, "-" #name }
	NAME(EPERM), NAME(ENOENT), NAME(ESRCH), NAME(EINTR), NAME(EIO), NAME(ENXIO), NAME(E2BIG), NAME(ENOEXEC), NAME(EBADF), NAME(ECHILD),
	NAME(EAGAIN), NAME(ENOMEM), NAME(EACCES), NAME(EFAULT), NAME(EBUSY), NAME(EEXIST), NAME(EXDEV), NAME(ENODEV), NAME(ENOTDIR),
	NAME(EISDIR), NAME(EINVAL), NAME(ENFILE), NAME(EMFILE), NAME(ENOTTY), NAME(EFBIG), NAME(ENOSPC), NAME(ESPIPE), NAME(EROFS),
	NAME(EPIPE), NAME(EDOM), NAME(ERANGE), NAME(EDEADLK), NAME(ENAMETOOLONG), NAME(ENOSYS), NAME(ENODATA), NAME(ETIME),
	NAME(EPROTO), NAME(EBADMSG), NAME(EOVERFLOW), NAME(EMSGSIZE), NAME(EOPNOTSUPP), NAME(ENOBUFS), NAME(ETIMEDOUT), NAME(EALREADY),
	NAME(EINPROGRESS), NAME(ECANCELED), NAME(ERESTARTSYS), NAME(ENOIOCTLCMD), NAME(EPROBE_DEFER), NAME(ENOTSUPP),
#undef NAME
};

static void put_bytes(struct output *output, const u8 *bytes, int count, char separator)
{
	for (int i = 0; i < count; i++) {
		if (i && separator)
			put(output, separator);
		put(output, hex_asc_hi(bytes[i]));
		put(output, hex_asc_lo(bytes[i]));
	}
}

static void format(struct output *output, const char *fmt, va_list args);

static void put_pointer(struct output *output, const char *fmt, const void *pointer, struct specification spec)
{
	u64 address = (u64)pointer;
	struct specification special = { .flags = FLAG_SPECIAL | FLAG_ZERO, .base = 16, .width = 18, .precision = -1 };

	switch (*fmt) {
	case 'x':
		put_pointer_digits(output, address, spec);
		return;
	case 'S': case 's': case 'B': case 'F': case 'f':
		put_number(output, address, special);
		return;
	case 'e':
		if (IS_ERR(pointer)) {
			for (size_t i = 0; i < ARRAY_SIZE(error_names); i++) {
				if (error_names[i].number == -PTR_ERR(pointer)) {
					put_string(output, error_names[i].name, spec);
					return;
				}
			}
			spec.flags |= FLAG_SIGNED;
			spec.base = 10;
			put_number(output, address, spec);
			return;
		}
		break;
	case 'a': case 'h': case 'M': case 'm': case 'V': case 'U':
		/* These read the memory at the pointer. */
		if (!pointer || IS_ERR(pointer) || address < PAGE_SIZE) {
			put_string(output, pointer ? "(efault)" : "(null)", spec);
			return;
		}
		if (*fmt == 'a') {
			put_number(output, *(const u64 *)pointer, special);
		} else if (*fmt == 'h') {
			char separator = fmt[1] == 'C' ? ':' : fmt[1] == 'D' ? '-' : fmt[1] == 'N' ? 0 : ' ';

			put_bytes(output, pointer, spec.width < 0 ? 1 : min(spec.width, 64), separator);
		} else if (*fmt == 'V') {
			const struct va_format *inner = pointer;
			va_list copy;

			va_copy(copy, *inner->va);
			format(output, inner->fmt, copy);
			va_end(copy);
		} else if (*fmt == 'U') {
			put_bytes(output, pointer, 16, 0);
		} else {
			put_bytes(output, pointer, 6, *fmt == 'm' ? 0 : fmt[1] == 'F' ? '-' : ':');
		}
		return;
	}
	/* NULL and errors are shown as they are. */
	if (!pointer || IS_ERR(pointer))
		put_pointer_digits(output, address, spec);
	else
		put_pointer_digits(output, hash_pointer(address), spec);
}

static int parse_number(const char **fmt)
{
	int number = 0;

	for (; isdigit(**fmt); (*fmt)++)
		number = number * 10 + **fmt - '0';
	return number;
}

/* One format for all callers: va_list is an array on some machines, so the conversion stands in one function. */
static void format(struct output *output, const char *fmt, va_list args)
{
	while (*fmt) {
		struct specification spec = { .base = 10, .width = -1, .precision = -1 };
		int size = 4;
		u64 number;
		char byte;

		if (*fmt != '%') {
			put(output, *fmt++);
			continue;
		}
		for (fmt++;; fmt++) {
			if (*fmt == '-')
				spec.flags |= FLAG_LEFT;
			else if (*fmt == '+')
				spec.flags |= FLAG_PLUS;
			else if (*fmt == ' ')
				spec.flags |= FLAG_SPACE;
			else if (*fmt == '#')
				spec.flags |= FLAG_SPECIAL;
			else if (*fmt == '0')
				spec.flags |= FLAG_ZERO;
			else
				break;
		}
		if (isdigit(*fmt)) {
			spec.width = parse_number(&fmt);
		} else if (*fmt == '*') {
			fmt++;
			spec.width = va_arg(args, int);
			if (spec.width < 0) {
				spec.width = -spec.width;
				spec.flags |= FLAG_LEFT;
			}
		}
		if (*fmt == '.') {
			fmt++;
			if (*fmt == '*') {
				fmt++;
				spec.precision = va_arg(args, int);
			} else {
				spec.precision = parse_number(&fmt);
			}
			spec.precision = max(spec.precision, 0);
		}
		if (*fmt == 'h') {
			size = 2;
			if (*++fmt == 'h') {
				size = 1;
				fmt++;
			}
		} else if (*fmt == 'l') {
			size = 8;
			if (*++fmt == 'l')
				fmt++;
		} else if (*fmt == 'L' || *fmt == 'z' || *fmt == 'Z' || *fmt == 't') {
			size = 8;
			fmt++;
		}
		switch (*fmt) {
		case 'c':
			byte = va_arg(args, int);
			put_text(output, &byte, 1, spec);
			fmt++;
			continue;
		case 's':
			put_string(output, va_arg(args, const char *), spec);
			fmt++;
			continue;
		case 'p':
			fmt++;
			put_pointer(output, fmt, va_arg(args, void *), spec);
			while (isalnum(*fmt))
				fmt++;
			continue;
		case '%':
			put(output, '%');
			fmt++;
			continue;
		case 'o':
			spec.base = 8;
			break;
		case 'X':
			spec.flags |= FLAG_UPPER;
			spec.base = 16;
			break;
		case 'x':
			spec.base = 16;
			break;
		case 'd':
		case 'i':
			spec.flags |= FLAG_SIGNED;
			break;
		case 'u':
			break;
		default:
			if (runtime_task && *fmt)
				runtime_finding("Please remove unsupported %%%c in format string", *fmt);
			return;
		}
		fmt++;
		number = size == 8 ? va_arg(args, u64) : va_arg(args, unsigned int);
		if (spec.flags & FLAG_SIGNED)
			number = size == 1 ? (s64)(s8)number : size == 2 ? (s64)(s16)number : size == 4 ? (s64)(s32)number : (s64)number;
		else
			number = size == 1 ? (u8)number : size == 2 ? (u16)number : number;
		put_number(output, number, spec);
	}
}

int vsnprintf(char *buffer, size_t size, const char *fmt, va_list args)
{
	struct output output = { .at = buffer, .end = size ? buffer + size - 1 : buffer };

	if (size > INT_MAX)
		output.end = (char *)~0UL;
	format(&output, fmt, args);
	if (size)
		*output.at = 0;
	return output.length;
}

int vscnprintf(char *buffer, size_t size, const char *fmt, va_list args)
{
	int length = vsnprintf(buffer, size, fmt, args);

	return (size_t)length < size ? length : size ? (int)size - 1 : 0;
}

int snprintf(char *buffer, size_t size, const char *fmt, ...)
{
	va_list args;
	int length;

	va_start(args, fmt);
	length = vsnprintf(buffer, size, fmt, args);
	va_end(args);
	return length;
}

int scnprintf(char *buffer, size_t size, const char *fmt, ...)
{
	va_list args;
	int length;

	va_start(args, fmt);
	length = vscnprintf(buffer, size, fmt, args);
	va_end(args);
	return length;
}

int vsprintf(char *buffer, const char *fmt, va_list args)
{
	return vsnprintf(buffer, SIZE_MAX, fmt, args);
}

int sprintf(char *buffer, const char *fmt, ...)
{
	va_list args;
	int length;

	va_start(args, fmt);
	length = vsprintf(buffer, fmt, args);
	va_end(args);
	return length;
}

char *kvasprintf(gfp_t flags, const char *fmt, va_list args)
{
	va_list copy;
	int length;
	char *text;

	va_copy(copy, args);
	length = vsnprintf(NULL, 0, fmt, copy);
	va_end(copy);
	text = kmalloc(length + 1, flags);
	if (text)
		vsnprintf(text, length + 1, fmt, args);
	return text;
}

char *kasprintf(gfp_t flags, const char *fmt, ...)
{
	va_list args;
	char *text;

	va_start(args, fmt);
	text = kvasprintf(flags, fmt, args);
	va_end(args);
	return text;
}

/* The level of a line without one. */
#define DEFAULT_LEVEL 4

int vprintk(const char *fmt, va_list args)
{
	static char text[1024];
	const char *begin = text;
	int length = vscnprintf(text, sizeof(text), fmt, args);
	int level = DEFAULT_LEVEL;
	bool continues = false;

	for (; begin[0] == KERN_SOH_ASCII && begin[1]; begin += 2) {
		if (begin[1] >= '0' && begin[1] <= '7')
			level = begin[1] - '0';
		else if (begin[1] == 'c')
			continues = true;
		else
			break;
	}
	length -= begin - text;
	runtime_log_text(level, runtime_caller(), begin, length, continues);
	return length;
}

int _printk(const char *fmt, ...)
{
	va_list args;
	int length;

	va_start(args, fmt);
	length = vprintk(fmt, args);
	va_end(args);
	return length;
}

int ___ratelimit(struct ratelimit_state *state, const char *function)
{
	unsigned long now = runtime_now() / 4000000;

	if (!state->interval)
		return 1;
	if (!state->begin)
		state->begin = now;
	if (now > state->begin + state->interval) {
		if (state->missed)
			_printk(KERN_WARNING "%s: %d callbacks suppressed\n", function, state->missed);
		state->begin = now;
		state->printed = 0;
		state->missed = 0;
	}
	if (state->burst > state->printed) {
		state->printed++;
		return 1;
	}
	state->missed++;
	return 0;
}

void print_hex_dump(const char *level, const char *prefix, int prefix_type, int row_size, int group_size, const void *data,
		    size_t length, bool ascii)
{
	const u8 *bytes = data;

	if (row_size != 16 && row_size != 32)
		row_size = 16;
	if (group_size != 2 && group_size != 4 && group_size != 8)
		group_size = 1;
	for (size_t begin = 0; begin < length; begin += row_size) {
		size_t count = min_t(size_t, row_size, length - begin);
		char line[200];
		struct output output = { .at = line, .end = line + sizeof(line) - 1 };

		if (length % group_size)
			group_size = 1;
		for (size_t i = 0; i < count; i += group_size) {
			if (i)
				put(&output, ' ');
			for (int j = group_size - 1; j >= 0; j--)
				put_bytes(&output, &bytes[begin + i + j], 1, 0);
		}
		if (ascii) {
			put_many(&output, ' ', row_size * 2 + row_size / group_size + 1 - (int)output.length);
			for (size_t i = 0; i < count; i++)
				put(&output, isprint(bytes[begin + i]) ? bytes[begin + i] : '.');
		}
		*output.at = 0;
		if (prefix_type == DUMP_PREFIX_ADDRESS)
			_printk("%s%s%p: %s\n", level, prefix, &bytes[begin], line);
		else if (prefix_type == DUMP_PREFIX_OFFSET)
			_printk("%s%s%.8x: %s\n", level, prefix, (unsigned int)begin, line);
		else
			_printk("%s%s%s\n", level, prefix, line);
	}
}

static void store_number(void *to, int size, u64 number)
{
	memcpy(to, &number, size);
}

/* Whether a byte is in a set of %[...]. "fmt" is behind the bracket. */
static bool is_in_set(const char *fmt, char byte)
{
	bool is_negated = *fmt == '^';
	bool is_found = false;

	if (is_negated)
		fmt++;
	for (const char *begin = fmt; *fmt && (*fmt != ']' || fmt == begin); fmt++) {
		if (fmt[1] == '-' && fmt[2] && fmt[2] != ']') {
			is_found |= (u8)byte >= (u8)fmt[0] && (u8)byte <= (u8)fmt[2];
			fmt += 2;
		} else {
			is_found |= *fmt == byte;
		}
	}
	return is_found != is_negated;
}

int sscanf(const char *text, const char *fmt, ...)
{
	const char *begin = text;
	va_list args;
	int count = 0;

	va_start(args, fmt);
	while (*fmt) {
		bool is_skipped = false;
		int width = -1, size = 4;
		unsigned int base = 10;
		bool is_signed = false;

		if (isspace((u8)*fmt)) {
			fmt = skip_spaces(fmt);
			text = skip_spaces(text);
			continue;
		}
		if (*fmt != '%' || fmt[1] == '%') {
			fmt += *fmt == '%';
			if (*fmt++ != *text++)
				break;
			continue;
		}
		fmt++;
		if (*fmt == '*') {
			is_skipped = true;
			fmt++;
		}
		if (isdigit(*fmt))
			width = parse_number(&fmt);
		if (*fmt == 'h') {
			size = *++fmt == 'h' ? 1 : 2;
			fmt += size == 1;
		} else if (*fmt == 'l') {
			size = 8;
			fmt += fmt[1] == 'l' ? 2 : 1;
		} else if (*fmt == 'z' || *fmt == 'L') {
			size = 8;
			fmt++;
		}
		if (*fmt == 'n') {
			store_number(va_arg(args, void *), 4, text - begin);
			fmt++;
			continue;
		}
		if (!*text)
			break;
		if (*fmt == 'c') {
			char *to = is_skipped ? NULL : va_arg(args, char *);

			for (width = width < 0 ? 1 : width; width-- && *text; text++) {
				if (to)
					*to++ = *text;
			}
			count += !is_skipped;
			fmt++;
			continue;
		}
		if (*fmt == 's' || *fmt == '[') {
			char *to = is_skipped ? NULL : va_arg(args, char *);
			const char *start;

			if (*fmt == 's')
				text = skip_spaces(text);
			start = text;
			while (*text && width-- && (*fmt == 's' ? !isspace((u8)*text) : is_in_set(fmt + 1, *text)))
				text++;
			if (text == start)
				break;
			if (to) {
				memcpy(to, start, text - start);
				to[text - start] = 0;
				count++;
			}
			if (*fmt == '[') {
				fmt += fmt[1] == '^' ? 3 : 2;
				while (*fmt && *fmt != ']')
					fmt++;
			}
			fmt += *fmt != 0;
			continue;
		}
		switch (*fmt++) {
		case 'd':
			is_signed = true;
			break;
		case 'i':
			is_signed = true;
			base = 0;
			break;
		case 'u':
			break;
		case 'x':
		case 'X':
			base = 16;
			break;
		case 'o':
			base = 8;
			break;
		default:
			goto out;
		}
		{
			char digits[40];
			char *end;
			bool is_negative;
			u64 number;

			text = skip_spaces(text);
			is_negative = is_signed && *text == '-';
			strlcpy(digits, text + is_negative, width > 0 ? min_t(size_t, width - is_negative + 1, sizeof(digits)) : sizeof(digits));
			if (!isxdigit(digits[0]) || (base == 10 && !isdigit(digits[0])) || (base == 0 && !isdigit(digits[0])))
				break;
			number = simple_strtoull(digits, &end, base);
			if (end == digits)
				break;
			text += is_negative + (end - digits);
			if (!is_skipped) {
				store_number(va_arg(args, void *), size, is_negative ? -number : number);
				count++;
			}
		}
	}
out:
	va_end(args);
	return count;
}
