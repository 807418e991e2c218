/// The guest's own translation: flat, but for the windows that its kernel maps.
///
/// Stage 1 is not what this model is about. The windows are there so that a fault's virtual address is not its IPA:
/// the hypervisor has to take the page from HPFAR_EL2 and only the offset from FAR_EL2, as the real one does.
struct Stage1: Sendable {
  private struct Window: Sendable {
    let virtual: GuestVirtualAddress
    let ipa: IntermediatePhysicalAddress
    let size: UInt64
  }

  private var windows: [Window] = []
  /// In Linux's vmalloc area, where `ioremap` maps.
  private var nextVirtual: GuestVirtualAddress = 0xffff_8000_0800_0000

  /// Maps the pages that hold `size` bytes from `ipa`; the virtual address of `ipa`.
  mutating func map(ipa: IntermediatePhysicalAddress, size: UInt64) -> GuestVirtualAddress {
    let offset = ipa.offset(in: 0x1000)
    let pages = (offset + size + 0xfff) & ~0xfff
    let window = Window(virtual: nextVirtual, ipa: ipa - offset, size: pages)
    windows.append(window)
    // One page stays unmapped between two windows, as in the vmalloc area.
    nextVirtual += pages + 0x1000
    return window.virtual + offset
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
