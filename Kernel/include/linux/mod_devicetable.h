/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Tables of device numbers: no bus is here. */
