/// `stage2_map_walker` of 5.10 with its `struct stage2_map_data`.
///
/// An entry that is replaced, or whose table is taken down, only loses bit 0 (`kvm_set_invalid_pte`). Only valid entries hold
/// references.
struct MapVisitor510: Stage2Visitor {
  static let flags: WalkFlags = [.tablePre, .leaf, .tablePost]
  static let kernelName = "stage2_map_walker"

  var physical: PhysicalAddress
  let attributes: UInt64
  let canAllocate: Bool
  /// The table that a block replaces.
  var anchor: EntryReference?

  init(physical: PhysicalAddress, attributes: UInt64, canAllocate: Bool) {
    self.physical = physical
    self.attributes = attributes
    self.canAllocate = canAllocate
  }

  // The code for each leaf is short. The other functions are never inlined.
  @inline(__always)
  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) throws(Stage2Error) {
    switch visit.kind {
    case .tablePre:
      if anchor == nil, isBlockSupported(visit, table.granule) {
        visitTableBefore(visit.entry, in: &table)
      }
    case .tablePost:
      if anchor != nil { try visitTableAfter(visit, in: &table) }
    default: try visitLeaf(visit, in: &table)
    }
  }

  /// `stage2_map_walk_table_pre`, at a table that one leaf can replace.
  @inline(never)
  private mutating func visitTableBefore(
    _ entry: EntryReference, in table: inout Stage2PageTable
  ) {
    table.invalidateEntry(entry)
    table.events.emit(.invalidationOfAll)
    anchor = entry
  }

  /// `stage2_map_walk_leaf`
  @inline(__always)
  private mutating func visitLeaf(
    _ visit: Visit, in table: inout Stage2PageTable
  ) throws(Stage2Error) {
    if anchor != nil {
      if table[visit.entry].isValid { table.memory.release(visit.entry) }
    } else if isBlockSupported(visit, table.granule) {
      installLeaf(visit, in: &table)
    } else {
      try installTable(visit.place, in: &table)
    }
  }

  /// `stage2_map_walk_leaf` if no leaf of this level fits.
  @inline(never)
  private func installTable(
    _ place: EntryPlace, in table: inout Stage2PageTable
  ) throws(Stage2Error) {
    guard canAllocate, table.memory.hasRoom else { throw place.error(.outOfMemory, in: table) }
    // Read first: the new table can be the page that the entry stands in, freed too early.
    let old = table[place.entry]
    let child = table.memory.allocate()
    if old.isValid { breakEntry(place, in: &table) }
    table.memory[place.entry] = Stage2Descriptor(tableAt: table.memory.physicalAddress(of: child))
    table.memory.retain(place.entry)
  }

  /// `stage2_map_walker_try_leaf`, with `kvm_set_valid_leaf_pte`, if a leaf of this level fits.
  @inline(__always)
  private mutating func installLeaf(_ visit: Visit, in table: inout Stage2PageTable) {
    let old = table[visit.entry]
    let new = table.leaf(at: visit.level, mapping: physical, attributes: attributes)
    if old.isValid {
      if old == new {
        table.memory.release(visit.entry)
      } else {
        breakEntry(visit.place, in: &table)
      }
    }
    table.memory[visit.entry] = new
    table.memory.retain(visit.entry)
    physical = physical &+ visit.size
  }

  /// Invalidates a valid entry, and drops its reference.
  @inline(never)
  private func breakEntry(_ place: EntryPlace, in table: inout Stage2PageTable) {
    table.invalidateEntry(place.entry)
    table.events.emit(.invalidation(ipa: place.address, level: place.level))
    table.memory.release(place.entry)
  }

  /// `stage2_map_walk_table_post`, at an anchor or below.
  @inline(never)
  private mutating func visitTableAfter(
    _ visit: Visit, in table: inout Stage2PageTable
  ) throws(Stage2Error) {
    table.memory.release(try table.table(below: visit.place))
    table.memory.release(visit.entry)
    if anchor == visit.entry {
      anchor = nil
      try visitLeaf(visit, in: &table)
    }
  }

  /// `kvm_block_mapping_supported`
  @inline(__always)
  private func isBlockSupported(_ visit: Visit, _ granule: Granule) -> Bool {
    visit.supportsBlock(granule, physicalIsAligned: physical.isAligned(to: visit.size))
  }
}

/// `stage2_unmap_walker` of 5.10
struct UnmapVisitor510: Stage2Visitor {
  static let flags: WalkFlags = [.leaf, .tablePost]
  static let kernelName = "stage2_unmap_walker"

  @inline(__always)
  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) throws(Stage2Error) {
    let old = table[visit.entry]
    guard old.isValid else { return }
    var child: EntryReference?
    if old.isTable(level: visit.level) {
      child = try table.table(below: visit.place)
      guard table.memory.count(child!) == 1 else { return }
    }
    table.invalidateEntry(visit.entry)
    table.events.emit(.invalidation(ipa: visit.address, level: visit.level))
    table.memory.release(visit.entry)
    if let child {
      table.memory.release(child)
    } else if table.isCacheable(old), !table.hasFWB {
      table.cleanDataCache(old, size: visit.size)
    }
  }
}

extension Stage2PageTable {
  /// `kvm_set_invalid_pte` of 5.10: the other bits of the entry stay.
  fileprivate mutating func invalidateEntry(_ entry: EntryReference) {
    memory[entry] = Stage2Descriptor(
      rawValue: memory[entry].rawValue & ~Stage2Descriptor.valid)
  }
}
