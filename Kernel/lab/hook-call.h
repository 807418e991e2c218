/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The calls of a user's hook in a real kernel. The builder of a lab puts this text behind the user's file and a definition of HOOK_FUNCTION, so
 * that the function may be static. The function may have the forms that runtime/hook-source.c lists.
 */
#include <linux/kvm_host.h>

#define HOOK_STRING_1(name)	#name
#define HOOK_STRING(name)	HOOK_STRING_1(name)

#define HOOK_FORM(function) _Generic((function),						\
	int (*)(struct kvm_vcpu *): 1,								\
	bool (*)(struct kvm_vcpu *): 2,								\
	int (*)(struct kvm_vcpu *, phys_addr_t): 3,						\
	bool (*)(struct kvm_vcpu *, phys_addr_t): 4,						\
	int (*)(struct kvm_vcpu *, unsigned long): 5,						\
	bool (*)(struct kvm_vcpu *, unsigned long): 6,						\
	int (*)(struct kvm_vcpu *, phys_addr_t, bool, int, unsigned long): 7,			\
	bool (*)(struct kvm_vcpu *, phys_addr_t, bool, int, unsigned long): 8,			\
	int (*)(struct kvm_vcpu *, unsigned long, bool, int, unsigned long): 9,			\
	bool (*)(struct kvm_vcpu *, unsigned long, bool, int, unsigned long): 10,		\
	default: 0)

_Static_assert(HOOK_FORM(&HOOK_FUNCTION) != 0,
	       "--hook-function " HOOK_STRING(HOOK_FUNCTION) ": the function has another form than these: "
	       "int f(struct kvm_vcpu *vcpu, phys_addr_t ipa); "
	       "int f(struct kvm_vcpu *vcpu, phys_addr_t ipa, bool is_write, int len, unsigned long rt); "
	       "int f(struct kvm_vcpu *vcpu), for a hypercall. The result may be a bool, too");

/* The compiler warns about a call of the function itself as one of another form, also if the call is in a branch that is never taken. */
static void *hook_function = (void *)&HOOK_FUNCTION;

#define HOOK_CALL(type, ...) ((type (*)(struct kvm_vcpu *, ##__VA_ARGS__))hook_function)

int virt_walker_hook_mmio(struct kvm_vcpu *vcpu, phys_addr_t fault_ipa, bool is_write, int len, unsigned long rt);
int virt_walker_hook_hypercall(struct kvm_vcpu *vcpu);

/* Called by io_mem_abort(). Returns 0 for an access that is not the hook's. */
int virt_walker_hook_mmio(struct kvm_vcpu *vcpu, phys_addr_t fault_ipa, bool is_write, int len, unsigned long rt)
{
	switch (HOOK_FORM(&HOOK_FUNCTION)) {
	case 3:
		return HOOK_CALL(int, phys_addr_t)(vcpu, fault_ipa);
	case 4:
		return HOOK_CALL(bool, phys_addr_t)(vcpu, fault_ipa);
	case 5:
		return HOOK_CALL(int, unsigned long)(vcpu, fault_ipa);
	case 6:
		return HOOK_CALL(bool, unsigned long)(vcpu, fault_ipa);
	case 7:
		return HOOK_CALL(int, phys_addr_t, bool, int, unsigned long)(vcpu, fault_ipa, is_write, len, rt);
	case 8:
		return HOOK_CALL(bool, phys_addr_t, bool, int, unsigned long)(vcpu, fault_ipa, is_write, len, rt);
	case 9:
		return HOOK_CALL(int, unsigned long, bool, int, unsigned long)(vcpu, fault_ipa, is_write, len, rt);
	case 10:
		return HOOK_CALL(bool, unsigned long, bool, int, unsigned long)(vcpu, fault_ipa, is_write, len, rt);
	}
	return 0;
}

/* Called at the begin of the handler of hypercalls. Returns 0 for a call that is not the hook's. */
int virt_walker_hook_hypercall(struct kvm_vcpu *vcpu)
{
	switch (HOOK_FORM(&HOOK_FUNCTION)) {
	case 1:
		return HOOK_CALL(int)(vcpu);
	case 2:
		return HOOK_CALL(bool)(vcpu);
	}
	return 0;
}
