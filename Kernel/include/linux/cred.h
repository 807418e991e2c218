/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The rights of the program that makes the call. */
#ifndef LINUX_CRED_H
#define LINUX_CRED_H

#include <linux/capability.h>
#include <linux/uidgid.h>

struct cred {
	kuid_t uid, suid, euid, fsuid;
	kgid_t gid, sgid, egid, fsgid;
};

#define current_cred() (current->cred)
#define current_uid() (current->cred->uid)
#define current_euid() (current->cred->euid)
#define current_gid() (current->cred->gid)
#define current_egid() (current->cred->egid)
#define current_fsuid() (current->cred->fsuid)
#define current_user_ns() (&init_user_ns)

#endif
