// SPDX-License-Identifier: GPL-2.0
#ifndef REGISTERS_H
#define REGISTERS_H

#include <linux/types.h>

int registers_map(void);
void registers_unmap(void);
void registers_hide(u8 value);
u8 registers_seek(void);

#endif
