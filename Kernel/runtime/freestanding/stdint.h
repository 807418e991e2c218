/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* channel.h includes this name: the runtime has the kernel's types, and no C library. */
#include <linux/types.h>
