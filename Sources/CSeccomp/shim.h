// libseccomp names its actions by macros with an argument, which Swift cannot use.
#ifndef CSECCOMP_SHIM_H
#define CSECCOMP_SHIM_H

#include <errno.h>
#include <seccomp.h>

static const uint32_t CSECCOMP_ALLOW = SCMP_ACT_ALLOW;
static const uint32_t CSECCOMP_NOT_PERMITTED = SCMP_ACT_ERRNO(EPERM);
static const uint32_t CSECCOMP_NO_SUCH_CALL = SCMP_ACT_ERRNO(ENOSYS);
static const uint32_t CSECCOMP_NOTIFY = SCMP_ACT_NOTIFY;

#endif
