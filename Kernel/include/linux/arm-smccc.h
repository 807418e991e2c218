/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Calls of the hypervisor: HVC with the arguments in x0 to x7, and the results in x0 to x3. */
#ifndef LINUX_ARM_SMCCC_H
#define LINUX_ARM_SMCCC_H

#include <linux/const.h>
#include <linux/types.h>

#define ARM_SMCCC_STD_CALL _AC(0, U)
#define ARM_SMCCC_FAST_CALL _AC(1, U)
#define ARM_SMCCC_TYPE_SHIFT 31
#define ARM_SMCCC_SMC_32 0
#define ARM_SMCCC_SMC_64 1
#define ARM_SMCCC_CALL_CONV_SHIFT 30
#define ARM_SMCCC_OWNER_MASK 0x3F
#define ARM_SMCCC_OWNER_SHIFT 24
#define ARM_SMCCC_FUNC_MASK 0xFFFF
#define ARM_SMCCC_IS_FAST_CALL(id) ((id) & (ARM_SMCCC_FAST_CALL << ARM_SMCCC_TYPE_SHIFT))
#define ARM_SMCCC_IS_64(id) ((id) & (ARM_SMCCC_SMC_64 << ARM_SMCCC_CALL_CONV_SHIFT))
#define ARM_SMCCC_FUNC_NUM(id) ((id) & ARM_SMCCC_FUNC_MASK)
#define ARM_SMCCC_OWNER_NUM(id) (((id) >> ARM_SMCCC_OWNER_SHIFT) & ARM_SMCCC_OWNER_MASK)
#define ARM_SMCCC_CALL_VAL(type, convention, owner, number) \
	(((type) << ARM_SMCCC_TYPE_SHIFT) | ((convention) << ARM_SMCCC_CALL_CONV_SHIFT) | \
	 (((owner) & ARM_SMCCC_OWNER_MASK) << ARM_SMCCC_OWNER_SHIFT) | ((number) & ARM_SMCCC_FUNC_MASK))
#define ARM_SMCCC_OWNER_ARCH 0
#define ARM_SMCCC_OWNER_CPU 1
#define ARM_SMCCC_OWNER_SIP 2
#define ARM_SMCCC_OWNER_OEM 3
#define ARM_SMCCC_OWNER_STANDARD 4
#define ARM_SMCCC_OWNER_STANDARD_HYP 5
#define ARM_SMCCC_OWNER_VENDOR_HYP 6
#define ARM_SMCCC_OWNER_TRUSTED_APP 48
#define ARM_SMCCC_OWNER_TRUSTED_OS 50
#define ARM_SMCCC_VERSION_1_0 0x10000
#define ARM_SMCCC_VERSION_1_1 0x10001
#define ARM_SMCCC_VERSION_1_2 0x10002
#define ARM_SMCCC_VERSION_FUNC_ID ARM_SMCCC_CALL_VAL(ARM_SMCCC_FAST_CALL, ARM_SMCCC_SMC_32, 0, 0)
#define ARM_SMCCC_ARCH_FEATURES_FUNC_ID ARM_SMCCC_CALL_VAL(ARM_SMCCC_FAST_CALL, ARM_SMCCC_SMC_32, 0, 1)
#define SMCCC_RET_SUCCESS 0
#define SMCCC_RET_NOT_SUPPORTED -1
#define SMCCC_RET_NOT_REQUIRED -2
#define SMCCC_RET_INVALID_PARAMETER -3

struct arm_smccc_res {
	unsigned long a0;
	unsigned long a1;
	unsigned long a2;
	unsigned long a3;
};

enum arm_smccc_conduit {
	SMCCC_CONDUIT_NONE,
	SMCCC_CONDUIT_SMC,
	SMCCC_CONDUIT_HVC,
};

static inline enum arm_smccc_conduit arm_smccc_1_1_get_conduit(void)
{
	return SMCCC_CONDUIT_HVC;
}

void __arm_smccc_hvc(const unsigned long *arguments, struct arm_smccc_res *result);

static inline void arm_smccc_hvc(unsigned long a0, unsigned long a1, unsigned long a2, unsigned long a3, unsigned long a4,
				 unsigned long a5, unsigned long a6, unsigned long a7, struct arm_smccc_res *result)
{
	unsigned long arguments[8] = { a0, a1, a2, a3, a4, a5, a6, a7 };

	__arm_smccc_hvc(arguments, result);
}

/* One to eight arguments, and the place of the result, which can be NULL. */
#define __SMCCC_COUNT(...) __SMCCC_COUNT_1(__VA_ARGS__, 8, 7, 6, 5, 4, 3, 2, 1, 0)
#define __SMCCC_COUNT_1(a0, a1, a2, a3, a4, a5, a6, a7, res, count, ...) count
#define __SMCCC_1(a0, res) arm_smccc_hvc(a0, 0, 0, 0, 0, 0, 0, 0, res)
#define __SMCCC_2(a0, a1, res) arm_smccc_hvc(a0, a1, 0, 0, 0, 0, 0, 0, res)
#define __SMCCC_3(a0, a1, a2, res) arm_smccc_hvc(a0, a1, a2, 0, 0, 0, 0, 0, res)
#define __SMCCC_4(a0, a1, a2, a3, res) arm_smccc_hvc(a0, a1, a2, a3, 0, 0, 0, 0, res)
#define __SMCCC_5(a0, a1, a2, a3, a4, res) arm_smccc_hvc(a0, a1, a2, a3, a4, 0, 0, 0, res)
#define __SMCCC_6(a0, a1, a2, a3, a4, a5, res) arm_smccc_hvc(a0, a1, a2, a3, a4, a5, 0, 0, res)
#define __SMCCC_7(a0, a1, a2, a3, a4, a5, a6, res) arm_smccc_hvc(a0, a1, a2, a3, a4, a5, a6, 0, res)
#define __SMCCC_8(a0, a1, a2, a3, a4, a5, a6, a7, res) arm_smccc_hvc(a0, a1, a2, a3, a4, a5, a6, a7, res)
#define __SMCCC_PASTE(a, b) a##b
#define __SMCCC_CALL(count, ...) __SMCCC_PASTE(__SMCCC_, count)(__VA_ARGS__)
#define arm_smccc_1_1_hvc(...) __SMCCC_CALL(__SMCCC_COUNT(__VA_ARGS__), __VA_ARGS__)
#define arm_smccc_1_1_invoke(...) ({ arm_smccc_1_1_hvc(__VA_ARGS__); SMCCC_CONDUIT_HVC; })

#endif
