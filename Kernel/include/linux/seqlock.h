/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Nothing of this header is here but what spinlocks have: a use of a sequence lock is an error of the compiler. */
#include <linux/spinlock.h>
