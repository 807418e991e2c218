/// `stage2_map_walker` of 6.1 with its `struct stage2_map_data`.
///
/// On the way down it looks for a table that one block can replace (the anchor), and detaches it; below an anchor the
/// leaves only lose their references, and on the way up the tables are freed and the block takes the anchor's place.
struct MapVisitor61: Stage2Visitor {
  static let flags: WalkFlags = [.tablePre, .leaf, .tablePost]
  static let kernelName = "stage2_map_walker"

  /// The address that is mapped; an address that no CPU has (``isPhysicalValid``) if pages get an owner instead.
  var physical: PhysicalAddress
  let attributes: UInt64
  /// ``KernelVersion/permissions``
  let permissions: UInt64
  let owner: UInt8
  let canAllocate: Bool
  let forcesPages: Bool
  var anchor: EntryReference?
  var detached: EntryReference?

  init(
    physical: PhysicalAddress, attributes: UInt64, permissions: UInt64, owner: UInt8 = 0,
    canAllocate: Bool, forcesPages: Bool = false
  ) {
    self.physical = physical
    self.attributes = attributes
    self.permissions = permissions
    self.owner = owner
    self.canAllocate = canAllocate
    self.forcesPages = forcesPages
  }

  // The code for each leaf is short. The other functions are never inlined.
  @inline(__always)
  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) throws(Stage2Error) {
    switch visit.kind {
    case .tablePre:
      if anchor == nil, isLeafAllowed(visit, granule: table.granule) {
        try visitTableBefore(visit.place, in: &table)
      }
    case .tablePost:
      if anchor != nil { try visitTableAfter(visit, in: &table) }
    default: try visitLeaf(visit, in: &table)
    }
  }

  /// `stage2_map_walk_table_pre`, at a table that one leaf can replace.
  @inline(never)
  private mutating func visitTableBefore(
    _ place: EntryPlace, in table: inout Stage2PageTable
  ) throws(Stage2Error) {
    detached = try table.table(below: place)
    table.memory[place.entry] = Stage2Descriptor(rawValue: 0)
    table.events.emit(.invalidationOfAll)
    anchor = place.entry
  }

  /// `stage2_map_walk_leaf`
  @inline(__always)
  private mutating func visitLeaf(
    _ visit: Visit, in table: inout Stage2PageTable
  ) throws(Stage2Error) {
    if anchor != nil {
      if table[visit.entry].isCounted { table.memory.release(visit.entry) }
    } else if isLeafAllowed(visit, granule: table.granule) {
      try installLeaf(visit, in: &table)
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
    if old.isCounted { table.removeEntry(place, old: table[place.entry]) }
    table.memory[place.entry] = Stage2Descriptor(tableAt: table.memory.physicalAddress(of: child))
    table.memory.retain(place.entry)
  }

  /// `stage2_map_walk_table_post`, at an anchor or below.
  @inline(never)
  private mutating func visitTableAfter(
    _ visit: Visit, in table: inout Stage2PageTable
  ) throws(Stage2Error) {
    let child: EntryReference
    if anchor == visit.entry, let detached {
      child = detached
      self.anchor = nil
      self.detached = nil
      // The call cannot fail: the entry is clear, and a leaf of this level was found to fit.
      try visitLeaf(visit, in: &table)
    } else {
      child = try table.table(below: visit.place)
    }
    table.memory.release(child)
    table.memory.release(visit.entry)
  }

  /// `stage2_map_walker_try_leaf`, if a leaf of this level fits. Otherwise, the kernel's function returns `E2BIG`.
  @inline(__always)
  private mutating func installLeaf(
    _ visit: Visit, in table: inout Stage2PageTable
  ) throws(Stage2Error) {
    let new =
      isPhysicalValid
      ? table.leaf(at: visit.level, mapping: physical, attributes: attributes)
      : Stage2Descriptor(invalidOwnedBy: owner)
    if table[visit.entry].isCounted { try breakEntry(for: new, visit.place, in: &table) }
    // The kernel looks at the attributes of an entry with an owner, too.
    if table.events.isConnected {
      if table.isCacheable(new) { table.cleanDataCache(new, size: visit.size) }
      if table.isExecutable(new, executeNever: Stage2Descriptor.executeNever) {
        table.invalidateInstructionCache(new, size: visit.size)
      }
    }
    table.memory[visit.entry] = new
    if new.isCounted { table.memory.retain(visit.entry) }
    if isPhysicalValid { physical = physical &+ visit.size }
  }

  /// `stage2_pte_needs_update`, and the end of the old entry.
  @inline(never)
  private func breakEntry(
    for new: Stage2Descriptor, _ place: EntryPlace, in table: inout Stage2PageTable
  ) throws(Stage2Error) {
    let old = table[place.entry]
    let changed = (old.rawValue ^ new.rawValue) & ~permissions
    if old.isValid && new.isValid && changed == 0 { throw place.error(.tryAgain, in: table) }
    table.removeEntry(place, old: table[place.entry])
  }

  /// `stage2_leaf_mapping_allowed`
  @inline(__always)
  private func isLeafAllowed(_ visit: Visit, granule: Granule) -> Bool {
    guard !forcesPages || visit.level == Granule.lastLevel else { return false }
    return visit.supportsBlock(
      granule, physicalIsAligned: !isPhysicalValid || physical.isAligned(to: visit.size))
  }

  /// `kvm_phys_is_valid`, with 48-bit physical addresses.
  var isPhysicalValid: Bool { physical.fits(bits: 48) }
}
