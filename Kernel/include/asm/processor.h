/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef ASM_PROCESSOR_H
#define ASM_PROCESSOR_H

#include <linux/compiler.h>

#define cpu_relax() barrier()

#endif
