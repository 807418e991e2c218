/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#ifndef LINUX_CONST_H
#define LINUX_CONST_H

#ifdef __ASSEMBLY__
#define _AC(x, suffix) x
#else
#define __AC(x, suffix) (x##suffix)
#define _AC(x, suffix) __AC(x, suffix)
#endif
#define UL(x) _AC(x, UL)
#define ULL(x) _AC(x, ULL)
#define _UL(x) UL(x)
#define _ULL(x) ULL(x)
#define _BITUL(x) (1UL << (x))
#define _BITULL(x) (1ULL << (x))

#endif
