/// What a mapping allows (`enum kvm_pgtable_prot`).
public struct Protection: OptionSet, Sendable {
  public let rawValue: Int

  public init(rawValue: Int) { self.rawValue = rawValue }

  public static let execute = Protection(rawValue: 1 << 0)
  public static let write = Protection(rawValue: 1 << 1)
  public static let read = Protection(rawValue: 1 << 2)
}

extension Stage2PageTable {
  /// Maps `size` bytes from `address` to `physical`, with blocks where both are aligned to one:
  /// `kvm_pgtable_stage2_map`.
  ///
  /// A table that a block can replace is taken down; a block that is mapped smaller becomes a table.
  ///
  /// - Parameter canAllocate: False without a `memcache`: there is no page to make a table of.
  /// - Throws: `EAGAIN` where the same mapping is there already, other permissions or not: those are relaxed, not
  ///   mapped again. `ENOMEM` where a table is missing that may not be made. `ERANGE` beyond ``ipaBits``.
  public mutating func map(
    address: UInt64, size: UInt64, physical: UInt64, protection: Protection,
    canAllocate: Bool = true
  ) throws(KernelError) {
    var visitor = MapVisitor(
      physical: physical & ~(granule.pageSize - 1), attributes: leafAttributes(protection),
      canAllocate: canAllocate)
    try walk(address: address, size: size, visitor: &visitor)
  }

  /// `stage2_set_prot_attr`, normal memory.
  func leafAttributes(_ protection: Protection) -> UInt64 {
    var attributes =
      Stage2Descriptor.memoryAttributesNormal | Stage2Descriptor.innerShareable
      | Stage2Descriptor.accessFlag
    if !protection.contains(.execute) { attributes |= Stage2Descriptor.executeNever }
    if protection.contains(.read) { attributes |= Stage2Descriptor.read }
    if protection.contains(.write) { attributes |= Stage2Descriptor.write }
    return attributes
  }

  /// Clears the entry of `visit` with break-before-make where it was valid, and drops its reference: `stage2_put_pte`.
  mutating func putEntry(_ visit: Visit) {
    let old = self[visit.entry]
    if old.isValid {
      self[visit.entry] = Stage2Descriptor(rawValue: 0)
      let level = old.isTable(level: visit.level) ? 0 : visit.level
      observer?.observe(.invalidation(ipa: visit.address, level: level))
    }
    memory.put(visit.entry)
  }
}

/// `stage2_map_walker` with its `struct stage2_map_data`.
///
/// On the way down it looks for a table that one block can replace (the anchor), and detaches it; below an anchor the
/// leaves only lose their references, and on the way up the tables are freed and the block takes the anchor's place.
private struct MapVisitor: Stage2Visitor {
  static let flags: WalkFlags = [.tablePre, .leaf, .tablePost]

  var physical: UInt64
  let attributes: UInt64
  let canAllocate: Bool
  var anchor: EntryReference?
  var detached: EntryReference?

  init(physical: UInt64, attributes: UInt64, canAllocate: Bool) {
    self.physical = physical
    self.attributes = attributes
    self.canAllocate = canAllocate
  }

  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) throws(KernelError) {
    switch visit.kind {
    case .tablePre: visitTableBefore(visit, in: &table)
    case .tablePost: try visitTableAfter(visit, in: &table)
    default: try visitLeaf(visit, in: &table)
    }
  }

  /// `stage2_map_walk_table_pre`
  mutating func visitTableBefore(_ visit: Visit, in table: inout Stage2PageTable) {
    guard anchor == nil, isLeafAllowed(visit, granule: table.granule) else { return }
    detached = table.memory.table(at: table[visit.entry].outputAddress)
    table[visit.entry] = Stage2Descriptor(rawValue: 0)
    table.observer?.observe(.invalidationOfAll)
    anchor = visit.entry
  }

  /// `stage2_map_walk_leaf`
  mutating func visitLeaf(_ visit: Visit, in table: inout Stage2PageTable) throws(KernelError) {
    let old = table[visit.entry]
    if anchor != nil {
      if old.isCounted { table.memory.put(visit.entry) }
      return
    }
    if try installLeaf(visit, in: &table) { return }
    guard canAllocate else { throw .outOfMemory }
    let child = table.memory.allocate()
    if old.isCounted { table.putEntry(visit) }
    table[visit.entry] = Stage2Descriptor(tableAt: table.memory.physicalAddress(of: child))
    table.memory.get(visit.entry)
  }

  /// `stage2_map_walk_table_post`
  mutating func visitTableAfter(_ visit: Visit, in table: inout Stage2PageTable) throws(KernelError)
  {
    guard let anchor else { return }
    let child: EntryReference
    if anchor == visit.entry, let detached {
      child = detached
      self.anchor = nil
      self.detached = nil
      try visitLeaf(visit, in: &table)
    } else {
      child = table.memory.table(at: table[visit.entry].outputAddress)
    }
    table.memory.put(child)
    table.memory.put(visit.entry)
  }

  /// `stage2_map_walker_try_leaf`: false where no leaf of this level fits (the kernel's `E2BIG`).
  mutating func installLeaf(_ visit: Visit, in table: inout Stage2PageTable) throws(KernelError)
    -> Bool
  {
    guard isLeafAllowed(visit, granule: table.granule) else { return false }
    let new = Stage2Descriptor(leafAt: visit.level, mapping: physical, attributes: attributes)
    let old = table[visit.entry]
    if old.isCounted {
      // `stage2_pte_needs_update`
      let changed = (old.rawValue ^ new.rawValue) & ~Stage2Descriptor.permissions
      if old.isValid && changed == 0 { throw .tryAgain }
      table.putEntry(visit)
    }
    table[visit.entry] = new
    table.memory.get(visit.entry)
    physical += table.granule.size(level: visit.level)
    return true
  }

  /// `kvm_block_mapping_supported`
  func isLeafAllowed(_ visit: Visit, granule: Granule) -> Bool {
    let size = granule.size(level: visit.level)
    return granule.allowsLeaf(level: visit.level) && size <= visit.end - visit.address
      && physical & (size - 1) == 0 && visit.address & (size - 1) == 0
  }
}
