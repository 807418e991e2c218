/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Nothing of this header is here: code that only includes it compiles, and a use of it is an error of the compiler. */
#include <linux/types.h>
