/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Registers of devices. */
#ifndef LINUX_IO_H
#define LINUX_IO_H

#include <linux/err.h>
#include <linux/ioport.h>
#include <linux/kernel.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <asm/page.h>

struct device;

void __iomem *ioremap(phys_addr_t address, size_t size);
void iounmap(volatile void __iomem *registers);
void __iomem *devm_ioremap(struct device *device, resource_size_t address, resource_size_t size);
void devm_iounmap(struct device *device, void __iomem *registers);
void *memremap(resource_size_t address, size_t size, unsigned long flags);
#define ioremap_wc(address, size) ioremap(address, size)
#define ioremap_np(address, size) ioremap(address, size)
#define ioremap_uc(address, size) ioremap(address, size)
#define ioremap_cache(address, size) ioremap(address, size)

u64 __io_read(const volatile void __iomem *address, unsigned int size, const char *function);
void __io_write(volatile void __iomem *address, unsigned int size, u64 value, const char *function);

#define __IO_FUNCTIONS(letter, type) \
static inline type read##letter(const volatile void __iomem *address) \
{ \
	return __io_read(address, sizeof(type), "read" #letter); \
} \
static inline void write##letter(type value, volatile void __iomem *address) \
{ \
	__io_write(address, sizeof(type), value, "write" #letter); \
}
#define __IO_PORT_FUNCTIONS(bits, type) \
static inline type ioread##bits(const volatile void __iomem *address) \
{ \
	return __io_read(address, sizeof(type), "ioread" #bits); \
} \
static inline void iowrite##bits(type value, volatile void __iomem *address) \
{ \
	__io_write(address, sizeof(type), value, "iowrite" #bits); \
}

__IO_FUNCTIONS(b, u8)
__IO_FUNCTIONS(w, u16)
__IO_FUNCTIONS(l, u32)
__IO_FUNCTIONS(q, u64)
__IO_PORT_FUNCTIONS(8, u8)
__IO_PORT_FUNCTIONS(16, u16)
__IO_PORT_FUNCTIONS(32, u32)
__IO_PORT_FUNCTIONS(64, u64)

#define readb_relaxed(address) readb(address)
#define readw_relaxed(address) readw(address)
#define readl_relaxed(address) readl(address)
#define readq_relaxed(address) readq(address)
#define writeb_relaxed(value, address) writeb(value, address)
#define writew_relaxed(value, address) writew(value, address)
#define writel_relaxed(value, address) writel(value, address)
#define writeq_relaxed(value, address) writeq(value, address)
#define __raw_readb(address) readb(address)
#define __raw_readw(address) readw(address)
#define __raw_readl(address) readl(address)
#define __raw_readq(address) readq(address)
#define __raw_writeb(value, address) writeb(value, address)
#define __raw_writew(value, address) writew(value, address)
#define __raw_writel(value, address) writel(value, address)
#define __raw_writeq(value, address) writeq(value, address)
#define ioread16be(address) swab16(ioread16(address))
#define ioread32be(address) swab32(ioread32(address))
#define iowrite16be(value, address) iowrite16(swab16(value), address)
#define iowrite32be(value, address) iowrite32(swab32(value), address)

void memcpy_fromio(void *to, const volatile void __iomem *from, size_t size);
void memcpy_toio(volatile void __iomem *to, const void *from, size_t size);
void memset_io(volatile void __iomem *to, int byte, size_t size);
void ioread8_rep(const volatile void __iomem *address, void *to, unsigned long count);
void iowrite8_rep(volatile void __iomem *address, const void *from, unsigned long count);
#define readsb(address, to, count) ioread8_rep(address, to, count)
#define writesb(address, from, count) iowrite8_rep(address, from, count)

#endif
