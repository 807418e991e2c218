/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The version of the kernel, for which the code is compiled: -DLINUX_VERSION_CODE. Linux 6.1 without it. */
#ifndef LINUX_VERSION_H
#define LINUX_VERSION_H

#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
#ifndef LINUX_VERSION_CODE
#define LINUX_VERSION_CODE KERNEL_VERSION(6, 1, 0)
#endif
#define LINUX_VERSION_MAJOR ((LINUX_VERSION_CODE) >> 16)
#define LINUX_VERSION_PATCHLEVEL (((LINUX_VERSION_CODE) >> 8) & 255)
#define LINUX_VERSION_SUBLEVEL ((LINUX_VERSION_CODE) & 255)

#endif
