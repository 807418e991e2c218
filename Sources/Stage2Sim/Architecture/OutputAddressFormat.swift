/// The place of an output address in an entry: `kvm_phys_to_pte` and `kvm_pte_to_phys`
/// (arch/arm64/kvm/hyp/pgtable.c; in later versions asm/kvm_pgtable.h).
///
/// The lower bits of the address are at their own places. An address of 52 bits has upper bits elsewhere (Arm ARM D8.3).
@usableFromInline
enum OutputAddressFormat: Sendable {
  /// 48 bits, all at their places.
  case plain
  /// Pages of 64 KiB: bits [51:48] are in bits [15:12] of the entry, with and without FEAT_LPA.
  case lpa
  /// FEAT_LPA2 with smaller pages (`kvm_lpa2_is_enabled`): bits [51:50] are in bits [9:8] of the entry, in the place of SH.
  case lpa2

  /// `kvm_pte_to_phys`
  @inlinable @inline(__always)
  func address(in descriptor: Stage2Descriptor, _ granule: Granule) -> PhysicalAddress {
    let entry = descriptor.rawValue
    return switch self {
    case .plain: PhysicalAddress(entry & granule.addressMask)
    case .lpa: PhysicalAddress(entry & granule.addressMask | (entry & 0b1111 << 12) &<< 36)
    case .lpa2: PhysicalAddress(entry & lpa2Mask(granule) | (entry & 0b11 << 8) &<< 42)
    }
  }

  /// `kvm_phys_to_pte`
  @inline(__always)
  func bits(of physical: PhysicalAddress, _ granule: Granule) -> UInt64 {
    let address = physical.rawValue
    return switch self {
    case .plain: address & granule.addressMask
    case .lpa: address & granule.addressMask | address &>> 36 & 0b1111 << 12
    case .lpa2: address & lpa2Mask(granule) | address &>> 42 & 0b11 << 8
    }
  }

  /// Bits [49:12] or [49:14]
  @inlinable
  func lpa2Mask(_ granule: Granule) -> UInt64 { 1 << 50 &- granule.pageSize }
}
