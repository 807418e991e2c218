import Scenarios
import Stage2Sim

/// A checker of break-before-make on the writes to a translation table (Arm ARM D8.16.1, "Using break-before-make when updating
/// translation table entries").
///
/// A valid entry may change in place only in its access flag, its permissions, DBM and its software bits. For any other change, the entry
/// becomes invalid first, the TLB entries of its addresses are invalidated on all CPUs, and only then it becomes valid again. Entries of
/// a table that no walk can reach need nothing.
public struct BreakBeforeMake: Sendable {
  /// A write that breaks a rule.
  public struct Violation: Hashable, Sendable, CustomStringConvertible {
    /// A broken rule.
    public enum Rule: Hashable, Sendable {
      /// A valid entry was changed in place.
      case changedInPlace
      /// An entry became valid again without an invalidation of TLB entries since it was broken.
      case madeWithoutInvalidation
    }

    /// The rule.
    public let rule: Rule
    /// The guest physical address of the entry's range.
    public let address: IntermediatePhysicalAddress
    /// The level of the table.
    public let level: Int
    /// The last valid entry before.
    public let old: Stage2Descriptor
    /// The entry after.
    public let new: Stage2Descriptor

    public var description: String {
      switch rule {
      case .changedInPlace:
        "a valid entry of level \(level) for \(hex(address)) is changed from \(old) to \(new) without a break"
      case .madeWithoutInvalidation:
        "the entry of level \(level) for \(hex(address)) becomes \(new), and TLBs can still have \(old)"
      }
    }
  }

  /// The bits of a leaf that may change in place: the access flag, S2AP, XN, DBM, and bits [58:55] and [63:59], which no TLB keeps.
  private static let changeable: UInt64 =
    Stage2Descriptor.accessFlag | Stage2Descriptor.read | Stage2Descriptor.write
    | Stage2Descriptor.executeNever | Stage2Descriptor.executeNever0 | 1 << 51 | 0x1ff << 55

  /// The place of a table that walks reach.
  private struct Place {
    let level: Int
    /// The address that the first entry maps.
    let address: IntermediatePhysicalAddress
  }

  private let granule: Granule
  private var reachable: [PhysicalAddress: Place] = [:]
  /// The entries that were broken, with their last valid values, until their TLB entries are invalidated.
  private var broken: [PhysicalAddress: (place: Place, old: Stage2Descriptor)] = [:]
  private var entries: [PhysicalAddress: Stage2Descriptor] = [:]

  /// A checker for a table at its start.
  public init(of table: Stage2PageTable) {
    granule = table.granule
    let level = table.startLevel
    for index in 0..<UInt64(table.rootTables) {
      let size = UInt64(granule.entriesPerTable) * granule.size(level: level)
      reachable[table.baseAddress &+ index * granule.pageSize] = Place(
        level: level, address: IntermediatePhysicalAddress(index &* size))
    }
    let base = TableMemory.base
    let words = table.withTableWords { Array($0) }
    for (index, word) in words.enumerated() where word != 0 {
      _ = note(
        EntryWrite(
          address: base &+ UInt64(index) << 3, level: nil, old: Stage2Descriptor(rawValue: 0),
          new: Stage2Descriptor(rawValue: word)))
    }
  }

  /// Takes a TLB invalidation. Other events change nothing.
  public mutating func note(_ event: MachineEvent) {
    let granule = granule
    switch event {
    case .invalidationOfAll: broken = [:]
    case .invalidation(let ipa, let level):
      end { place, size in
        (level == 0 || level == place.level) && ipa.aligned(to: size) == place.address
          || level == 0 && place.address.aligned(to: granule.pageSize) == ipa
      }
    case .invalidationOfRange(let ipa, let pages):
      let end = ipa &+ pages << UInt64(granule.pageShift)
      self.end { place, size in place.address < end && ipa < place.address &+ size }
    default: break
    }
  }

  private mutating func end(_ isInvalidated: (Place, UInt64) -> Bool) {
    let granule = granule
    broken = broken.filter { _, entry in
      !isInvalidated(entry.place, granule.size(level: entry.place.level))
    }
  }

  /// Takes a write.
  ///
  /// - Returns: The rule that the write breaks; nil if it breaks none.
  public mutating func note(_ write: EntryWrite) -> Violation? {
    defer { entries[write.address] = write.new.rawValue == 0 ? nil : write.new }
    guard let table = reachable[write.address.aligned(to: granule.pageSize)] else { return nil }
    let size = granule.size(level: table.level)
    let index = write.address.offset(in: granule.pageSize) >> 3
    let place = Place(level: table.level, address: table.address &+ index &* size)
    defer {
      if write.new.isTable(level: place.level) { reach(write.new, place) }
    }
    func violation(_ rule: Violation.Rule, _ old: Stage2Descriptor) -> Violation {
      Violation(
        rule: rule, address: place.address, level: place.level, old: old, new: write.new)
    }
    if write.old.isValid {
      let isTable = write.old.isTable(level: place.level)
      guard write.new.isValid else {
        broken[write.address] = (place, write.old)
        if isTable { leave(write.old) }
        return nil
      }
      let changed = write.old.rawValue ^ write.new.rawValue
      let allowed = isTable || write.new.isTable(level: place.level) ? 0 : Self.changeable
      if isTable, changed != 0 { leave(write.old) }
      return changed & ~allowed == 0 ? nil : violation(.changedInPlace, write.old)
    }
    guard write.new.isValid, let last = broken.removeValue(forKey: write.address) else {
      return nil
    }
    let changed = last.old.rawValue ^ write.new.rawValue
    let isLeaf = !last.old.isTable(level: place.level) && !write.new.isTable(level: place.level)
    return changed & ~(isLeaf ? Self.changeable : 0) == 0
      ? nil : violation(.madeWithoutInvalidation, last.old)
  }

  /// Walks can reach the table below an entry from now on, and the tables below.
  private mutating func reach(_ descriptor: Stage2Descriptor, _ place: Place) {
    let table = descriptor.outputAddress(granule)
    let below = Place(level: place.level + 1, address: place.address)
    guard place.level < Granule.lastLevel, reachable.updateValue(below, forKey: table) == nil else {
      return
    }
    let size = granule.size(level: below.level)
    for index in 0..<UInt64(granule.entriesPerTable) {
      guard let entry = entries[table &+ index << 3], entry.isTable(level: below.level) else {
        continue
      }
      reach(entry, Place(level: below.level, address: below.address &+ index &* size))
    }
  }

  /// No walk reaches the table below an entry any more, nor the tables below.
  private mutating func leave(_ descriptor: Stage2Descriptor) {
    let table = descriptor.outputAddress(granule)
    guard let place = reachable.removeValue(forKey: table) else { return }
    for index in 0..<UInt64(granule.entriesPerTable) {
      let address = table &+ index << 3
      broken[address] = nil
      if let entry = entries[address], entry.isTable(level: place.level) { leave(entry) }
    }
  }
}
