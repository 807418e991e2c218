/* SPDX-License-Identifier: GPL-2.0 */
/* Tables of device numbers: no bus is here. */
