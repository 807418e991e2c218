/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef ASM_UNALIGNED_H
#define ASM_UNALIGNED_H

#include <asm/byteorder.h>

#define get_unaligned(pointer) ({ \
	const struct { __typeof__(*(pointer)) value; } __packed *__unaligned = (const void *)(pointer); \
	__unaligned->value; })
#define put_unaligned(x, pointer) do { \
	struct { __typeof__(*(pointer)) value; } __packed *__unaligned = (void *)(pointer); \
	__unaligned->value = (x); \
} while (0)
#define get_unaligned_le16(p) get_unaligned((const u16 *)(p))
#define get_unaligned_le32(p) get_unaligned((const u32 *)(p))
#define get_unaligned_le64(p) get_unaligned((const u64 *)(p))
#define put_unaligned_le16(x, p) put_unaligned(x, (u16 *)(p))
#define put_unaligned_le32(x, p) put_unaligned(x, (u32 *)(p))
#define put_unaligned_le64(x, p) put_unaligned(x, (u64 *)(p))

#endif
