/* SPDX-License-Identifier: GPL-2.0 */
#ifndef ASM_PROCESSOR_H
#define ASM_PROCESSOR_H

#include <linux/compiler.h>

#define cpu_relax() barrier()

#endif
