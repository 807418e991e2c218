/// One 64-bit entry of a stage-2 translation table, VMSAv8-64 format.
///
/// Arm ARM D8.3 "Translation table descriptor formats"; the masks are from
/// arch/arm64/kvm/hyp/pgtable.c.
public struct Stage2Descriptor: RawRepresentable, Hashable, Sendable {
  public var rawValue: UInt64

  @inlinable
  public init(rawValue: UInt64) { self.rawValue = rawValue }

  /// Bit 0. The walker of the CPU ignores an entry that has it clear; software may use its other 63 bits.
  @inlinable public static var valid: UInt64 { 1 << 0 }
  /// Bit 1: a table at levels 0 to 2, a page at level 3. Clear in a valid entry: a block.
  @inlinable public static var tableOrPage: UInt64 { 1 << 1 }
  /// Bits [5:2], MemAttr.
  public static let memoryAttributes: UInt64 = 0xf << 2
  /// Bit 6, S2AP[0]: the guest may read.
  public static let read: UInt64 = 1 << 6
  /// Bit 7, S2AP[1]: the guest may write.
  public static let write: UInt64 = 1 << 7
  /// Bits [9:8], SH.
  public static let shareability: UInt64 = 3 << 8
  /// Bit 10, AF: clear makes the next access an access-flag fault.
  public static let accessFlag: UInt64 = 1 << 10
  /// Bit 51, DBM: hardware may set S2AP[1] if VTCR_EL2.HD is set. KVM leaves HD clear.
  public static let dirtyBitModifier: UInt64 = 1 << 51
  /// Bit 52: the entry is one of a run that the CPU may keep as one TLB entry.
  public static let contiguous: UInt64 = 1 << 52
  /// Bit 53, XN[0]: part of execute-never with FEAT_XNX, RES0 without.
  public static let executeNever0: UInt64 = 1 << 53
  /// Bit 54, XN[1]: execute-never. The only one of the two that KVM sets or clears.
  public static let executeNever: UInt64 = 1 << 54
  /// Bits [58:55]: left to software by the architecture.
  public static let software: UInt64 = 0xf << 55
  /// Bits [59:1], for a note in an invalid entry: `KVM_INVALID_PTE_ANNOT_MASK` of 7.3, whose bits [63:60] are its type.
  static let annotation: UInt64 = (1 << 60) - 2
  /// The type of an invalid entry that is being replaced: `KVM_INVALID_PTE_TYPE_LOCKED` of 7.3.
  static let lockedType: UInt8 = 1
  /// SH of inner shareable memory.
  public static let innerShareable: UInt64 = 3 << 8

  /// ``valid``: the entry maps memory or points to a table.
  public var isValid: Bool { rawValue & Self.valid != 0 }

  /// `kvm_pte_table`: whether this entry, standing at `level`, points to a table.
  @inlinable
  public func isTable(level: Int) -> Bool {
    level != Granule.lastLevel
      && rawValue & (Self.valid | Self.tableOrPage) == Self.valid | Self.tableOrPage
  }

  /// Whether this entry, standing at `level`, maps memory for the CPU's walker.
  public func isLeaf(level: Int) -> Bool {
    isValid && (rawValue & Self.tableOrPage != 0) == (level == Granule.lastLevel)
  }

  /// The output address (`kvm_pte_to_phys`): of a page, a block or the next table.
  @inlinable
  public func outputAddress(_ granule: Granule) -> PhysicalAddress {
    PhysicalAddress(rawValue & granule.addressMask)
  }

  /// `kvm_init_valid_leaf_pte`: a leaf.
  ///
  /// - Parameters:
  ///   - level: The level of the entry, 1 to 3.
  ///   - physical: The address that the entry maps.
  ///   - attributes: Some of ``KernelVersion/leafAttributes``.
  ///   - granule: The granule of the table.
  public init(
    leafAt level: Int, mapping physical: PhysicalAddress, attributes: UInt64, granule: Granule
  ) {
    let type = level == Granule.lastLevel ? Self.tableOrPage : 0
    rawValue = physical.rawValue & granule.addressMask | attributes | type | Self.valid
  }

  /// `kvm_init_invalid_leaf_owner`: an invalid entry with the owner of the page in bits [9:2].
  public init(invalidOwnedBy owner: UInt8) { rawValue = UInt64(owner) << 2 }

  /// The entry that `kvm_set_table_pte` writes.
  public init(tableAt physical: PhysicalAddress) {
    rawValue = physical.rawValue | Self.tableOrPage | Self.valid
  }

  /// `stage2_pte_executable`: KVM looks at XN[1] alone.
  public var isExecutable: Bool { rawValue & Self.executeNever == 0 }

  /// `kvm_pgtable_stage2_pte_prot`: the protection that would make this entry, in versions before 7.0.
  public var protection: Protection { protection(in: .standard) }

  /// `kvm_pgtable_stage2_pte_prot` of a version: the protection that would make this entry. Version 5.10 has no such function,
  /// and the result is that of 6.1.
  public func protection(in kernel: KernelVersion) -> Protection {
    var protection = Protection(rawValue: rawValue & Self.software)
    guard isValid else { return protection }
    if rawValue & Self.read != 0 { protection.insert(.read) }
    if rawValue & Self.write != 0 { protection.insert(.write) }
    let hasXN1 = rawValue & Self.executeNever != 0
    if kernel == .linux73, rawValue & Self.executeNever0 != 0 {
      protection.insert(hasXN1 ? .privilegedExecute : .unprivilegedExecute)
    } else if !hasXN1 {
      protection.insert(.execute)
    }
    return protection
  }

  /// `stage2_pte_is_counted` since 5.13: any non-zero entry, valid or not, holds a reference on its table.
  public var isCounted: Bool { rawValue != 0 }
}

extension Stage2Descriptor: CustomStringConvertible {
  /// 16 hex digits, as the kernel's `%016llx` prints an entry.
  public var description: String { hexadecimal(rawValue, digits: 16) }
}

/// `value` in hex, with zeros in front up to `digits`.
///
/// - Parameter digits: At most 16.
package func hexadecimal(_ value: UInt64, digits: Int = 1) -> String {
  // One string, and not three: String(value, radix: 16), its zeros, and both together were a twentieth of the work of a replay.
  var text = InlineArray<16, UInt8>(repeating: UInt8(ascii: "0"))
  var first = 16
  var rest = value
  while rest > 0 {
    first -= 1
    let digit = UInt8(truncatingIfNeeded: rest & 0xf)
    text[first] = digit < 10 ? UInt8(ascii: "0") + digit : UInt8(ascii: "a") - 10 + digit
    rest &>>= 4
  }
  let start = min(first, 16 - digits)
  // Digits are always UTF-8.
  return String(copying: try! UTF8Span(validating: text.span.extracting(start...)))
}
