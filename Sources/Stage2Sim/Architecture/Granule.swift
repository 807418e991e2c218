/// The translation granule: the size of a page and of a translation table.
///
/// Arm ARM D8.2, "Translation tables and the translation process".
///
/// A value rather than an enumeration: walks compute with the shift at each entry.
public struct Granule: Hashable, Sendable {
  /// log2 of the page size in bytes (`PAGE_SHIFT`).
  public let pageShift: Int

  /// 4 KiB pages, 512 entries a table, blocks of 1 GiB and 2 MiB at levels 1 and 2.
  public static let kib4 = Granule(pageShift: 12)
  /// 16 KiB pages, 2048 entries a table, blocks of 32 MiB at level 2.
  public static let kib16 = Granule(pageShift: 14)
  /// 64 KiB pages, 8192 entries a table, blocks of 512 MiB at level 2.
  public static let kib64 = Granule(pageShift: 16)

  /// The page size in bytes.
  @inlinable
  public var pageSize: UInt64 { 1 &<< UInt64(truncatingIfNeeded: pageShift) }

  /// Entries in one table: a table fills one page with 8-byte descriptors (`PTRS_PER_PTE`).
  public var entriesPerTable: Int { 1 &<< (pageShift &- 3) }

  /// log2 of the bytes that one entry of `level` maps (`kvm_granule_shift`, asm/kvm_pgtable.h).
  ///
  /// Level -1 is what concatenated start tables stand in for.
  @inlinable
  public func shift(level: Int) -> Int {
    (pageShift &- 3) &* (Granule.lastLevel &- level) &+ pageShift
  }

  /// The bytes that one entry of `level` maps (`kvm_granule_size`).
  public func size(level: Int) -> UInt64 { 1 &<< UInt64(truncatingIfNeeded: shift(level: level)) }

  /// Whether a leaf may stand at `level` (`kvm_level_supports_block_mapping`, and the last level).
  ///
  /// Only with 4 KiB pages are there blocks at level 1: the others would need 52-bit addresses (FEAT_LPA).
  public func allowsLeaf(level: Int) -> Bool {
    level >= (self == .kib4 ? 1 : 2) && level <= Granule.lastLevel
  }

  /// What one entry of level 2 maps: the size of the host's huge pages (`PMD_SIZE`).
  public var blockSize: UInt64 { size(level: 2) }

  /// Bits of an entry that hold an output address, up to 48 bits (`KVM_PTE_ADDR_MASK`).
  @inlinable
  public var addressMask: UInt64 { (1 << 48) &- pageSize }

  /// The level whose entries map single pages, with every granule.
  @inlinable public static var lastLevel: Int { 3 }
}

extension Granule: CaseIterable {
  public static let allCases: [Granule] = [.kib4, .kib16, .kib64]
}

extension Granule: LosslessStringConvertible {
  /// `4K`, `16K` or `64K`.
  public var description: String { "\(pageSize >> 10)K" }

  /// Reads what ``description`` says; nil for anything else.
  public init?(_ description: String) {
    guard let granule = Granule.allCases.first(where: { $0.description == description }) else {
      return nil
    }
    self = granule
  }
}
