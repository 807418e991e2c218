/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef LINUX_UIDGID_H
#define LINUX_UIDGID_H

#include <linux/types.h>

typedef struct { uid_t val; } kuid_t;
typedef struct { gid_t val; } kgid_t;

struct user_namespace {
	int level;
};

extern struct user_namespace init_user_ns;

#define KUIDT_INIT(value) (kuid_t){ value }
#define KGIDT_INIT(value) (kgid_t){ value }
#define GLOBAL_ROOT_UID KUIDT_INIT(0)
#define GLOBAL_ROOT_GID KGIDT_INIT(0)

static inline uid_t __kuid_val(kuid_t uid) { return uid.val; }
static inline gid_t __kgid_val(kgid_t gid) { return gid.val; }
static inline bool uid_eq(kuid_t a, kuid_t b) { return a.val == b.val; }
static inline bool gid_eq(kgid_t a, kgid_t b) { return a.val == b.val; }
#define from_kuid(namespace, uid) __kuid_val(uid)
#define from_kgid(namespace, gid) __kgid_val(gid)
#define from_kuid_munged(namespace, uid) __kuid_val(uid)
#define from_kgid_munged(namespace, gid) __kgid_val(gid)
#define make_kuid(namespace, uid) KUIDT_INIT(uid)
#define make_kgid(namespace, gid) KGIDT_INIT(gid)

#endif
