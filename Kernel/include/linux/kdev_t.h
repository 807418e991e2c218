/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Numbers of devices. */
#ifndef LINUX_KDEV_T_H
#define LINUX_KDEV_T_H

#include <linux/types.h>

#define MINORBITS 20
#define MINORMASK ((1U << MINORBITS) - 1)
#define MAJOR(dev) ((unsigned int)((dev) >> MINORBITS))
#define MINOR(dev) ((unsigned int)((dev) & MINORMASK))
#define MKDEV(major, minor) (((major) << MINORBITS) | (minor))

#endif
