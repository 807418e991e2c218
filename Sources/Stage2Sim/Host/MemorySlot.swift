/// A range of guest RAM and the VMM's memory behind it: `struct kvm_memory_slot`.
public struct MemorySlot: Hashable, Sendable {
  /// The first guest physical address.
  public let ipa: UInt64
  /// In bytes, whole pages.
  public let size: UInt64
  /// Where it begins in the VMM's address space.
  public let userspaceAddress: UInt64
  /// `KVM_MEM_READONLY`: a guest's store is taken to the MMIO path.
  public let isReadOnly: Bool

  public init(ipa: UInt64, size: UInt64, userspaceAddress: UInt64, isReadOnly: Bool = false) {
    self.ipa = ipa
    self.size = size
    self.userspaceAddress = userspaceAddress
    self.isReadOnly = isReadOnly
  }

  public func contains(_ address: UInt64) -> Bool { address &- ipa < size }

  /// `gfn_to_hva_memslot`, to the byte.
  func userspaceAddress(of address: UInt64) -> UInt64 { userspaceAddress + (address - ipa) }

  /// `fault_supports_stage2_huge_mapping`: whether a block of `blockSize` bytes around `address` lies inside the
  /// slot, with both addresses alike in their low bits.
  func supportsBlock(of blockSize: UInt64, at address: UInt64) -> Bool {
    let mask = blockSize - 1
    guard ipa & mask == userspaceAddress & mask else { return false }
    let start = address & ~mask
    return start >= ipa && start + blockSize <= ipa + size
  }
}
