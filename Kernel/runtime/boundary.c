// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
/* The place in the program's text before which the user's code is, and after which the runtime is. The order of the link makes it so. */
__asm__(".text\n\t.globl runtime_text_begin\nruntime_text_begin:\n\t.byte 0\n");

#if defined(__linux__) && defined(__ELF__)
__asm__(".section .note.GNU-stack,\"\",%progbits\n");
#endif
