/// The translation granule: the size of a page and of a translation table.
///
/// Arm ARM D8.2, "Translation tables and the translation process".
public enum Granule: Sendable {
  /// 4 KiB pages, 512 entries a table, blocks at levels 1 and 2.
  case kib4

  /// log2 of the page size in bytes.
  public var pageShift: Int { 12 }

  /// The page size in bytes.
  public var pageSize: UInt64 { 1 << UInt64(pageShift) }

  /// Entries in one table: a table fills one page with 8-byte descriptors.
  public var entriesPerTable: Int { 1 << (pageShift - 3) }

  /// log2 of the bytes that one entry of `level` maps (`kvm_granule_shift`, asm/kvm_pgtable.h).
  ///
  /// Level -1 is what concatenated start tables stand in for.
  public func shift(level: Int) -> Int {
    (pageShift - 3) * (Granule.lastLevel - level) + pageShift
  }

  /// The bytes that one entry of `level` maps (`kvm_granule_size`).
  public func size(level: Int) -> UInt64 { 1 << UInt64(shift(level: level)) }

  /// Whether a leaf may stand at `level` (`kvm_level_supports_block_mapping` and the last level).
  public func allowsLeaf(level: Int) -> Bool {
    level >= 1 && level <= Granule.lastLevel
  }

  /// The level whose entries map single pages, with every granule.
  public static let lastLevel = 3
}
