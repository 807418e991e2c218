/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <linux/kvm_para.h>: an arm64 guest has no calls of it. */
#ifndef __LINUX_KVM_PARA_H
#define __LINUX_KVM_PARA_H
#endif
