// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/*
 * A user's file with a hook, and the form of its function. The builder compiles this file in the place of the user's one:
 * -DHOOK_SOURCE='"/path/of/the/file.c"', and for --hook-function -DHOOK_FUNCTION=name. So the function may be static, and the lines of
 * messages are those of the user's file. It needs -gdwarf-4: with DWARF 5, addr2line of binutils 2.40 names this file in the place of the
 * user's one.
 */
#include HOOK_SOURCE

#include "hook.h"

#ifdef HOOK_FUNCTION
#define HOOK_STRING_1(name)	#name
#define HOOK_STRING(name)	HOOK_STRING_1(name)
#define HOOK_FORM(function) _Generic((function),								\
	int (*)(struct kvm_vcpu *): HOOK_INT_1,									\
	bool (*)(struct kvm_vcpu *): HOOK_BOOL_1,								\
	int (*)(struct kvm_vcpu *, phys_addr_t): HOOK_INT_2,							\
	bool (*)(struct kvm_vcpu *, phys_addr_t): HOOK_BOOL_2,							\
	int (*)(struct kvm_vcpu *, unsigned long): HOOK_INT_2_LONG,						\
	bool (*)(struct kvm_vcpu *, unsigned long): HOOK_BOOL_2_LONG,						\
	int (*)(struct kvm_vcpu *, phys_addr_t, bool, int, unsigned long): HOOK_INT_5,				\
	bool (*)(struct kvm_vcpu *, phys_addr_t, bool, int, unsigned long): HOOK_BOOL_5,			\
	int (*)(struct kvm_vcpu *, unsigned long, bool, int, unsigned long): HOOK_INT_5_LONG,			\
	bool (*)(struct kvm_vcpu *, unsigned long, bool, int, unsigned long): HOOK_BOOL_5_LONG,			\
	default: HOOK_OTHER)

_Static_assert(HOOK_FORM(&HOOK_FUNCTION) != HOOK_OTHER,
	       "--hook-function " HOOK_STRING(HOOK_FUNCTION) ": the function has another form than these: "
	       "int f(struct kvm_vcpu *vcpu, phys_addr_t ipa); "
	       "int f(struct kvm_vcpu *vcpu, phys_addr_t ipa, bool is_write, int len, unsigned long rt); "
	       "int f(struct kvm_vcpu *vcpu), for a hypercall. The result may be a bool, too");

const struct hook_function hook_function = {
	.name = HOOK_STRING(HOOK_FUNCTION),
	.form = HOOK_FORM(&HOOK_FUNCTION),
	.function = (void (*)(void))&HOOK_FUNCTION,
};
#endif
