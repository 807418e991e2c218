/* SPDX-License-Identifier: GPL-2.0 */
/* channel.h includes this name: the runtime has the kernel's types, and no C library. */
#include <linux/types.h>
