/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's <asm/esr.h>: the fields of ESR_EL2. */
#ifndef __ASM_ESR_H
#define __ASM_ESR_H

#include <linux/const.h>
#include <linux/types.h>

#define ESR_ELx_EC_UNKNOWN	UL(0x00)
#define ESR_ELx_EC_WFx		UL(0x01)
#define ESR_ELx_EC_HVC32	UL(0x12)
#define ESR_ELx_EC_SMC32	UL(0x13)
#define ESR_ELx_EC_SVC64	UL(0x15)
#define ESR_ELx_EC_HVC64	UL(0x16)
#define ESR_ELx_EC_SMC64	UL(0x17)
#define ESR_ELx_EC_SYS64	UL(0x18)
#define ESR_ELx_EC_IABT_LOW	UL(0x20)
#define ESR_ELx_EC_IABT_CUR	UL(0x21)
#define ESR_ELx_EC_DABT_LOW	UL(0x24)
#define ESR_ELx_EC_DABT_CUR	UL(0x25)

#define ESR_ELx_EC_SHIFT	26
#define ESR_ELx_EC_WIDTH	6
#define ESR_ELx_EC_MASK		(UL(0x3f) << ESR_ELx_EC_SHIFT)
#define ESR_ELx_EC(esr)		(((esr) & ESR_ELx_EC_MASK) >> ESR_ELx_EC_SHIFT)

#define ESR_ELx_IL_SHIFT	25
#define ESR_ELx_IL		(UL(1) << ESR_ELx_IL_SHIFT)
#define ESR_ELx_ISS_MASK	(ESR_ELx_IL - 1)
#define ESR_ELx_ISS(esr)	((esr) & ESR_ELx_ISS_MASK)

/* Aborts */
#define ESR_ELx_WNR_SHIFT	6
#define ESR_ELx_WNR		(UL(1) << ESR_ELx_WNR_SHIFT)
#define ESR_ELx_S1PTW_SHIFT	7
#define ESR_ELx_S1PTW		(UL(1) << ESR_ELx_S1PTW_SHIFT)
#define ESR_ELx_CM_SHIFT	8
#define ESR_ELx_CM		(UL(1) << ESR_ELx_CM_SHIFT)
#define ESR_ELx_EA_SHIFT	9
#define ESR_ELx_EA		(UL(1) << ESR_ELx_EA_SHIFT)
#define ESR_ELx_FnV_SHIFT	10
#define ESR_ELx_FnV		(UL(1) << ESR_ELx_FnV_SHIFT)
#define ESR_ELx_AR_SHIFT	14
#define ESR_ELx_AR		(UL(1) << ESR_ELx_AR_SHIFT)
#define ESR_ELx_SF_SHIFT	15
#define ESR_ELx_SF		(UL(1) << ESR_ELx_SF_SHIFT)
#define ESR_ELx_SRT_SHIFT	16
#define ESR_ELx_SRT_MASK	(UL(0x1f) << ESR_ELx_SRT_SHIFT)
#define ESR_ELx_SSE_SHIFT	21
#define ESR_ELx_SSE		(UL(1) << ESR_ELx_SSE_SHIFT)
#define ESR_ELx_SAS_SHIFT	22
#define ESR_ELx_SAS		(UL(3) << ESR_ELx_SAS_SHIFT)
#define ESR_ELx_ISV_SHIFT	24
#define ESR_ELx_ISV		(UL(1) << ESR_ELx_ISV_SHIFT)

/* The status code of a fault: its type, and the level of the entry. */
#define ESR_ELx_FSC		(0x3f)
#define ESR_ELx_FSC_TYPE	(0x3c)
#define ESR_ELx_FSC_LEVEL	(0x03)
#define ESR_ELx_FSC_ADDRSZ	(0x00)
#define ESR_ELx_FSC_FAULT	(0x04)
#define ESR_ELx_FSC_ACCESS	(0x08)
#define ESR_ELx_FSC_PERM	(0x0c)
#define ESR_ELx_FSC_EXTABT	(0x10)
#define ESR_ELx_FSC_SEA_TTW(n)	(0x14 + (n))
#define ESR_ELx_FSC_SECC	(0x18)
#define ESR_ELx_FSC_SECC_TTW(n)	(0x1c + (n))

#define FSC_FAULT		ESR_ELx_FSC_FAULT
#define FSC_ACCESS		ESR_ELx_FSC_ACCESS
#define FSC_PERM		ESR_ELx_FSC_PERM
#define FSC_SEA			ESR_ELx_FSC_EXTABT

/* Traps of instructions */
#define ESR_ELx_CV		(UL(1) << 24)
#define ESR_ELx_COND_SHIFT	20
#define ESR_ELx_COND_MASK	(UL(0xf) << ESR_ELx_COND_SHIFT)
#define ESR_ELx_xVC_IMM_MASK	((UL(1) << 16) - 1)

static inline bool esr_is_data_abort(unsigned long esr)
{
	return ESR_ELx_EC(esr) == ESR_ELx_EC_DABT_LOW || ESR_ELx_EC(esr) == ESR_ELx_EC_DABT_CUR;
}

static inline bool esr_fsc_is_translation_fault(unsigned long esr)
{
	return (esr & ESR_ELx_FSC_TYPE) == ESR_ELx_FSC_FAULT;
}

static inline bool esr_fsc_is_permission_fault(unsigned long esr)
{
	return (esr & ESR_ELx_FSC_TYPE) == ESR_ELx_FSC_PERM;
}

static inline bool esr_fsc_is_access_flag_fault(unsigned long esr)
{
	return (esr & ESR_ELx_FSC_TYPE) == ESR_ELx_FSC_ACCESS;
}

#endif
