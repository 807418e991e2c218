/// The guest's own translation: flat, but for the windows that its kernel maps.
///
/// Because of the windows, the virtual address of a fault differs from its IPA. The hypervisor has to take the page from
/// HPFAR_EL2, and only the offset from FAR_EL2, as the real hypervisor does.
struct Stage1: Sendable {
  private struct Window: Sendable {
    let virtual: GuestVirtualAddress
    let ipa: IntermediatePhysicalAddress
    let size: UInt64
  }

  private var windows: [Window] = []
  /// The next address in Linux's vmalloc area, which `ioremap` maps into.
  private var nextVirtual: GuestVirtualAddress = 0xffff_8000_0800_0000

  /// `VMALLOC_END`
  private static let endVirtual: GuestVirtualAddress = 0xffff_fbff_f000_0000
  /// The most windows that the kernel has memory for.
  private static let mostWindows = 1 << 14

  /// Maps the pages that hold `size` bytes, at most 2^48, from `ipa`.
  ///
  /// - Returns: The virtual address of `ipa`; nil if the vmalloc area has no room.
  mutating func map(ipa: IntermediatePhysicalAddress, size: UInt64) -> GuestVirtualAddress? {
    let offset = ipa.offset(in: 0x1000)
    let pages = (offset + size + 0xfff) & ~0xfff
    guard pages < Self.endVirtual - nextVirtual, windows.count < Self.mostWindows else {
      return nil
    }
    let window = Window(virtual: nextVirtual, ipa: ipa - offset, size: pages)
    windows.append(window)
    // One page stays unmapped between two windows, as in the vmalloc area.
    nextVirtual += pages + 0x1000
    return window.virtual + offset
  }

  /// Removes the window whose first page has an address in it; false if there is none.
  mutating func unmap(_ virtual: GuestVirtualAddress) -> Bool {
    let page = virtual.aligned(to: 0x1000)
    guard let index = windows.firstIndex(where: { $0.virtual == page }) else { return false }
    windows.remove(at: index)
    return true
  }

  func isMapped(_ virtual: GuestVirtualAddress) -> Bool {
    windows.contains { virtual &- $0.virtual < $0.size }
  }

  @inline(__always)
  func translate(_ virtual: GuestVirtualAddress) -> IntermediatePhysicalAddress {
    for index in windows.indices {
      let offset = virtual &- windows[index].virtual
      if offset < windows[index].size { return windows[index].ipa + offset }
    }
    return IntermediatePhysicalAddress(virtual.rawValue)
  }
}
