/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The firmware that KVM has for a guest, in so far as a whole arch/arm64/kvm/hypercalls.c names it. The model has none of it: its functions
 * answer NOT_SUPPORTED. The file exists so that a user's own case in kvm_hvc_call_handler() works.
 */
#ifndef HOOK_FIRMWARE_H
#define HOOK_FIRMWARE_H

#include <linux/arm-smccc.h>
#include <linux/kvm_host.h>
#include <linux/uaccess.h>

#define HOOK_SMC32(owner, number)	ARM_SMCCC_CALL_VAL(ARM_SMCCC_FAST_CALL, ARM_SMCCC_SMC_32, owner, number)
#define HOOK_SMC64(owner, number)	ARM_SMCCC_CALL_VAL(ARM_SMCCC_FAST_CALL, ARM_SMCCC_SMC_64, owner, number)

#ifndef ARM_SMCCC_ARCH_WORKAROUND_1
#define ARM_SMCCC_ARCH_WORKAROUND_1			HOOK_SMC32(ARM_SMCCC_OWNER_ARCH, 0x8000)
#define ARM_SMCCC_ARCH_WORKAROUND_2			HOOK_SMC32(ARM_SMCCC_OWNER_ARCH, 0x7fff)
#define ARM_SMCCC_ARCH_WORKAROUND_3			HOOK_SMC32(ARM_SMCCC_OWNER_ARCH, 0x3fff)
#define SMCCC_ARCH_WORKAROUND_RET_UNAFFECTED		1
#define ARM_SMCCC_HV_PV_TIME_FEATURES			HOOK_SMC64(ARM_SMCCC_OWNER_STANDARD_HYP, 0x20)
#define ARM_SMCCC_HV_PV_TIME_ST				HOOK_SMC64(ARM_SMCCC_OWNER_STANDARD_HYP, 0x21)
#define ARM_SMCCC_TRNG_VERSION				HOOK_SMC32(ARM_SMCCC_OWNER_STANDARD, 0x50)
#define ARM_SMCCC_TRNG_FEATURES				HOOK_SMC32(ARM_SMCCC_OWNER_STANDARD, 0x51)
#define ARM_SMCCC_TRNG_GET_UUID				HOOK_SMC32(ARM_SMCCC_OWNER_STANDARD, 0x52)
#define ARM_SMCCC_TRNG_RND32				HOOK_SMC32(ARM_SMCCC_OWNER_STANDARD, 0x53)
#define ARM_SMCCC_TRNG_RND64				HOOK_SMC64(ARM_SMCCC_OWNER_STANDARD, 0x53)
#define ARM_SMCCC_VENDOR_HYP_CALL_UID_FUNC_ID		HOOK_SMC32(ARM_SMCCC_OWNER_VENDOR_HYP, 0xff01)
#define ARM_SMCCC_KVM_FUNC_FEATURES			0
#define ARM_SMCCC_KVM_FUNC_PTP				1
#define ARM_SMCCC_VENDOR_HYP_KVM_FEATURES_FUNC_ID	HOOK_SMC32(ARM_SMCCC_OWNER_VENDOR_HYP, ARM_SMCCC_KVM_FUNC_FEATURES)
#define ARM_SMCCC_VENDOR_HYP_KVM_PTP_FUNC_ID		HOOK_SMC32(ARM_SMCCC_OWNER_VENDOR_HYP, ARM_SMCCC_KVM_FUNC_PTP)
#define ARM_SMCCC_VENDOR_HYP_UID_KVM_REG_0		0xb66fb428U
#define ARM_SMCCC_VENDOR_HYP_UID_KVM_REG_1		0xe911c52eU
#define ARM_SMCCC_VENDOR_HYP_UID_KVM_REG_2		0x564bcaa9U
#define ARM_SMCCC_VENDOR_HYP_UID_KVM_REG_3		0x743a004dU
#define KVM_PTP_VIRT_COUNTER				0
#define KVM_PTP_PHYS_COUNTER				1
#endif

#define KVM_PSCI_FN(number)	(0x95c1ba5e + (number))
#define KVM_ARM_PSCI_0_1	0x00000001
#define KVM_ARM_PSCI_0_2	0x00000002
#define KVM_ARM_PSCI_1_0	0x00010000
#define KVM_ARM_PSCI_1_1	0x00010001

/* The model's CPU tells a guest of no mitigation. */
enum mitigation_state {
	SPECTRE_UNAFFECTED,
	SPECTRE_MITIGATED,
	SPECTRE_VULNERABLE,
};

#define arm64_get_spectre_v2_state()	SPECTRE_VULNERABLE
#define arm64_get_spectre_v4_state()	SPECTRE_VULNERABLE
#define arm64_get_spectre_bhb_state()	SPECTRE_VULNERABLE
#define ARM64_SSBS			(-1)

static inline long kvm_hypercall_pv_features(struct kvm_vcpu *vcpu)
{
	(void)vcpu;
	return SMCCC_RET_NOT_SUPPORTED;
}

static inline gpa_t kvm_init_stolen_time(struct kvm_vcpu *vcpu)
{
	(void)vcpu;
	return INVALID_GPA;
}

int kvm_psci_call(struct kvm_vcpu *vcpu);
#define kvm_trng_call(vcpu)		kvm_psci_call(vcpu)
#define kvm_psci_version(vcpu)		((void)(vcpu), KVM_ARM_PSCI_1_1)

/* The clock of the host. It is no counter of the architecture, so that a guest gets no pair of times. */
enum clocksource_ids {
	CSID_GENERIC,
	CSID_ARM_ARCH_COUNTER,
};

struct system_time_snapshot {
	u64 cycles;
	s64 real;
	enum clocksource_ids cs_id;
};

static inline void ktime_get_snapshot(struct system_time_snapshot *snapshot)
{
	*snapshot = (struct system_time_snapshot){ .cs_id = CSID_GENERIC };
}

#define CNTVOFF_EL2			0
#define vcpu_read_sys_reg(vcpu, reg)	((void)(vcpu), (void)(reg), 0UL)

/* The registers of the firmware, which a VMM reads and writes. The model's VMM does not. */
struct kvm_one_reg {
	__u64 id;
	__u64 addr;
};

#define KVM_REG_SIZE(id)		(1U << (((id) >> 52) & 0xf))
#define HOOK_FW_REG(kind, number)	(0x6030000000000000ULL | (kind) << 16 | (number))
#define KVM_REG_ARM_FW_REG(number)	HOOK_FW_REG(0x14, number)
#define KVM_REG_ARM_PSCI_VERSION	KVM_REG_ARM_FW_REG(0)
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1			KVM_REG_ARM_FW_REG(1)
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1_NOT_AVAIL		0
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1_AVAIL		1
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1_NOT_REQUIRED	2
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2			KVM_REG_ARM_FW_REG(2)
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_NOT_AVAIL		0
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_UNKNOWN		1
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_AVAIL		2
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_NOT_REQUIRED	3
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2_ENABLED		(1U << 4)
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3			KVM_REG_ARM_FW_REG(3)
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3_NOT_AVAIL		0
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3_AVAIL		1
#define KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_3_NOT_REQUIRED	2
#define KVM_REG_ARM_STD_BMAP		HOOK_FW_REG(0x16, 0)
#define KVM_REG_ARM_STD_HYP_BMAP	HOOK_FW_REG(0x16, 1)
#define KVM_REG_ARM_VENDOR_HYP_BMAP	HOOK_FW_REG(0x16, 2)

enum {
	KVM_REG_ARM_STD_BIT_TRNG_V1_0,
	KVM_REG_ARM_STD_BMAP_BIT_COUNT,
};

enum {
	KVM_REG_ARM_STD_HYP_BIT_PV_TIME,
	KVM_REG_ARM_STD_HYP_BMAP_BIT_COUNT,
};

enum {
	KVM_REG_ARM_VENDOR_HYP_BIT_FUNC_FEAT,
	KVM_REG_ARM_VENDOR_HYP_BIT_PTP,
	KVM_REG_ARM_VENDOR_HYP_BMAP_BIT_COUNT,
};

#endif
