/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <trace/events/kvm.h>: the model has a trace of its own, and the kernel's trace points do nothing. */
#ifndef _TRACE_KVM_MAIN_H
#define _TRACE_KVM_MAIN_H

#define KVM_TRACE_MMIO_READ_UNSATISFIED	0
#define KVM_TRACE_MMIO_READ		1
#define KVM_TRACE_MMIO_WRITE		2

#define trace_kvm_mmio(type, len, gpa, val) \
	((void)(type), (void)(len), (void)(gpa), (void)(val))

#endif
