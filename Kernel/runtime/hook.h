/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The parts that the files of a hook's process share: the virtual machine with its vCPU, and the user's functions. */
#ifndef HOOK_H
#define HOOK_H

#include <asm/kvm_emulate.h>
#include <asm/kvm_mmu.h>
#include <asm/kvm_pgtable.h>
#include <kvm/arm_hypercalls.h>
#include <kvm/iodev.h>
#include <linux/kvm_host.h>

#include "runtime.h"

extern struct kvm hook_vm;
extern struct kvm_vcpu hook_vcpu;

/* The call that the daemon has made. */
struct hook_call {
	bool is_abort;
	bool is_hypercall;
	/* The guest physical address of the access. */
	phys_addr_t ipa;
	/* The number of kvm_incr_pc() or kvm_skip_instr(), and the place of the first. */
	unsigned int increments;
	unsigned long increment_pc;
	/* The register that the load wants has been set. */
	bool is_loaded;
	/* A finding of this call has been told: one of each kind is enough. */
	unsigned int told;
};

extern struct hook_call hook_call;

enum hook_finding {
	HOOK_FINDING_TWICE = 1 << 0,
	HOOK_FINDING_REGISTER_NUMBER = 1 << 1,
	HOOK_FINDING_STORE = 1 << 2,
	HOOK_FINDING_OTHER_REGISTER = 1 << 3,
	HOOK_FINDING_WIDE_VALUE = 1 << 4,
	HOOK_FINDING_HYPERCALL = 1 << 5,
};

/* Whether a finding is the first one of its kind in this call. */
static inline bool hook_is_new(enum hook_finding finding)
{
	bool is_new = !(hook_call.told & finding);

	hook_call.told |= finding;
	return is_new;
}

/* The forms that the function of --hook-function may have. "long": the address is an unsigned long in the place of a phys_addr_t. */
enum hook_form {
	HOOK_OTHER,
	/* kvm_hvc_call_handler() and functions like it: f(vcpu). */
	HOOK_INT_1,
	HOOK_BOOL_1,
	/* f(vcpu, fault_ipa) */
	HOOK_INT_2,
	HOOK_BOOL_2,
	HOOK_INT_2_LONG,
	HOOK_BOOL_2_LONG,
	/* f(vcpu, fault_ipa, is_write, len, rt) */
	HOOK_INT_5,
	HOOK_BOOL_5,
	HOOK_INT_5_LONG,
	HOOK_BOOL_5_LONG,
};

/* The function of --hook-function: hook-source.c has it. */
struct hook_function {
	const char *name;
	enum hook_form form;
	void (*function)(void);
};

extern const struct hook_function hook_function __attribute__((weak));

/* Maps the memory of the tables that the daemon has. Returns 0 or -errno. */
int hook_set_tables(int descriptor, const struct channel_geometry *geometry);

/* Tells the daemon that a walk has come to an entry. */
void hook_report_visit(const kvm_pte_t *ptep, int level);
/* Tells of a walk that cannot do what the code wants: a finding. */
#define hook_report_walk(fmt, ...)	runtime_finding(fmt, ##__VA_ARGS__)

/* io_mem_abort() of a hook that is one function: the parts before and after it. */
int hook_io_mem_abort(struct kvm_vcpu *vcpu, phys_addr_t ipa);

#endif
