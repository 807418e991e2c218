/// `stage2_map_walker` of 6.12 and 7.3 with its `struct stage2_map_data`.
///
/// On the way down, a table that one block can replace is replaced at once; the table is freed after the walk. An entry is
/// locked between break and make (`KVM_INVALID_PTE_LOCKED`), which nobody else sees in the model.
struct MapVisitor612: Stage2Visitor {
  static let flags: WalkFlags = [.tablePre, .leaf]
  static let kernelName = "stage2_map_walker"

  /// The first address that is mapped.
  private let physical: PhysicalAddress
  private let attributes: UInt64
  /// The first address that is no physical one (`kvm_phys_is_valid`). Version 7.3 does not ask.
  private let physicalLimit: UInt64
  /// The invalid entry that pages get instead of a mapping, and at invalid physical addresses: with an owner in 6.12, with a
  /// note in 7.3 (`pte_annot`).
  private let annotation: Stage2Descriptor
  private let isAnnotation: Bool
  /// The start of the walk (`ctx->start`).
  private let start: IntermediatePhysicalAddress
  private let canAllocate: Bool
  private let forcesPages: Bool
  private let flags: WalkFlags
  /// Whether the walk goes on after `EAGAIN`.
  private let ignoresTryAgain: Bool
  private let permissions: UInt64
  private let executeNever: UInt64
  /// The tables that blocks have replaced, with the levels of their entries. They are freed after the walk
  /// (`stage2_free_unlinked_table` of arch/arm64/kvm/mmu.c leaves them to RCU).
  private(set) var replacedTables: [(table: EntryReference, level: Int)] = []

  /// A walk that maps memory.
  init(
    physical: PhysicalAddress, attributes: UInt64, in table: Stage2PageTable,
    from address: IntermediatePhysicalAddress, canAllocate: Bool, forcesPages: Bool = false,
    flags: WalkFlags
  ) {
    self.init(
      physical: physical, attributes: attributes, annotation: Stage2Descriptor(rawValue: 0),
      isAnnotation: false, in: table, from: address, canAllocate: canAllocate,
      forcesPages: forcesPages, flags: flags)
  }

  /// A walk that writes an invalid entry for each page.
  init(
    annotation: Stage2Descriptor, in table: Stage2PageTable,
    from address: IntermediatePhysicalAddress, canAllocate: Bool
  ) {
    self.init(
      physical: 0, attributes: 0, annotation: annotation, isAnnotation: true, in: table,
      from: address, canAllocate: canAllocate, forcesPages: true, flags: [])
  }

  private init(
    physical: PhysicalAddress, attributes: UInt64, annotation: Stage2Descriptor,
    isAnnotation: Bool, in table: Stage2PageTable, from address: IntermediatePhysicalAddress,
    canAllocate: Bool, forcesPages: Bool, flags: WalkFlags
  ) {
    self.physical = physical
    self.attributes = attributes
    physicalLimit =
      table.kernel.checksPhysicalAddresses ? 1 << UInt64(table.physicalAddressBits) : .max
    self.annotation = annotation
    self.isAnnotation = isAnnotation
    start = address.aligned(to: table.granule.pageSize)
    self.canAllocate = canAllocate
    self.forcesPages = forcesPages
    self.flags = flags
    ignoresTryAgain = table.kernel.ignoresTryAgain(flags)
    permissions = table.kernel.permissions
    executeNever = table.kernel.executeNever
  }

  // The code for each leaf is short, so that the compiler inlines it in the walk's loop.
  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) throws(Stage2Error) {
    if visit.kind == .tablePre {
      try visitTableBefore(visit, in: &table)
    } else if isLeafAllowed(visit, table.granule) {
      _ = try installLeaf(visit, in: &table)
    } else {
      try installTable(visit, in: &table)
    }
  }

  /// `stage2_map_walk_table_pre`
  @inline(never)
  private mutating func visitTableBefore(
    _ visit: Visit, in table: inout Stage2PageTable
  ) throws(Stage2Error) {
    guard isLeafAllowed(visit, table.granule) else { return }
    let child = try table.table(
      below: visit.old, address: visit.address, level: visit.level)
    guard try installLeaf(visit, in: &table) else { return }
    replacedTables.append((child, visit.level))
  }

  /// `stage2_map_walk_leaf` if no leaf of this level fits.
  @inline(never)
  private func installTable(
    _ visit: Visit, in table: inout Stage2PageTable
  ) throws(Stage2Error) {
    guard canAllocate, table.memory.hasRoom else { throw visit.error(.outOfMemory, in: table) }
    let child = table.memory.allocate()
    guard table.tryBreakEntry(visit, flags: flags) else {
      table.memory.release(child)
      try end(visit, in: table)
      return
    }
    table.makeEntry(
      visit, Stage2Descriptor(tableAt: table.memory.physicalAddress(of: child)))
  }

  /// `stage2_map_walker_try_leaf`, if a leaf of this level fits. Otherwise, the kernel's function returns `E2BIG`.
  ///
  /// - Returns: Whether the entry is the new one now.
  @inline(__always)
  private func installLeaf(
    _ visit: Visit, in table: inout Stage2PageTable
  ) throws(Stage2Error) -> Bool {
    let physical = physicalAddress(at: visit)
    let new =
      isAnnotation || !isValid(physical)
      ? annotation : table.leaf(at: visit.level, mapping: physical, attributes: attributes)
    // `stage2_pte_needs_update`
    let changed = visit.old.rawValue ^ new.rawValue
    if visit.old.isValid, new.isValid, changed & ~permissions == 0 {
      try end(visit, in: table)
      return false
    }
    if !flags.contains(.shared), changed & ~Stage2Descriptor.software == 0 {
      if visit.old.isCounted != new.isCounted {
        if visit.old.isCounted {
          table.memory.release(visit.entry)
        } else {
          table.memory.retain(visit.entry)
        }
      }
      table.memory[visit.entry] = new
      return true
    }
    guard table.tryBreakEntry(visit, flags: flags) else {
      try end(visit, in: table)
      return false
    }
    if table.events.isConnected, !flags.contains(.skipCacheMaintenance), new.isValid {
      if table.isCacheable(new) { table.cleanDataCache(new, size: visit.size) }
      if table.isExecutable(new, executeNever: executeNever) {
        table.invalidateInstructionCache(new, size: visit.size)
      }
    }
    table.makeEntry(visit, new)
    return true
  }

  /// Ends the walk with `EAGAIN`, unless the walk ignores it.
  @inline(never)
  private func end(_ visit: Visit, in table: Stage2PageTable) throws(Stage2Error) {
    if !ignoresTryAgain { throw visit.error(.tryAgain, in: table) }
  }

  /// `stage2_leaf_mapping_allowed`
  private func isLeafAllowed(_ visit: Visit, _ granule: Granule) -> Bool {
    guard !forcesPages || visit.level == Granule.lastLevel else { return false }
    let physical = physicalAddress(at: visit)
    return visit.supportsBlock(
      granule,
      physicalIsAligned: isAnnotation || !isValid(physical) || physical.isAligned(to: visit.size))
  }

  /// `stage2_map_walker_phys_addr`
  private func physicalAddress(at visit: Visit) -> PhysicalAddress {
    isValid(physical) ? physical &+ (visit.address &- start) : physical
  }

  /// `kvm_phys_is_valid`
  private func isValid(_ physical: PhysicalAddress) -> Bool { physical.rawValue < physicalLimit }
}

extension Stage2PageTable {
  /// Performs a walk that maps memory, and frees the tables that blocks have replaced (`stage2_free_unlinked_table` of
  /// arch/arm64/kvm/mmu.c).
  @inline(never)
  mutating func mapReplacing(
    _ visitor: inout MapVisitor612, address: IntermediatePhysicalAddress, size: UInt64
  ) throws(Stage2Error) {
    defer { for (table, level) in visitor.replacedTables { freeUnlinked(table, level: level) } }
    try update(address: address, size: size, visitor: &visitor)
  }

  /// Invalidates an entry before it is replaced, and drops its reference: `stage2_try_break_pte`.
  ///
  /// - Returns: False if the entry has changed since the walk read it, or is locked.
  @inline(__always)
  mutating func tryBreakEntry(_ visit: Visit, flags: WalkFlags) -> Bool {
    let old = visit.old
    // The rest is only for entries that a table has had.
    if old.rawValue == 0, !flags.contains(.shared) || self[visit.entry] == old { return true }
    return breakEntry(visit, flags: flags)
  }

  @inline(never)
  private mutating func breakEntry(_ visit: Visit, flags: WalkFlags) -> Bool {
    let old = visit.old
    if kernel.isLocked(old) { return false }
    // `stage2_try_set_pte`
    if flags.contains(.shared), self[visit.entry] != old { return false }
    memory[visit.entry] = kernel.lockedEntry
    if !flags.contains(.skipTLBInvalidation) {
      if old.isTable(level: visit.level) {
        let size = visit.size
        flushTLB(address: visit.address.aligned(to: size), size: size)
      } else if old.isValid {
        events.emit(.invalidation(ipa: visit.address, level: visit.level))
      }
    }
    if old.isCounted { memory.release(visit.entry) }
    return true
  }

  /// Writes an entry that was broken, and takes a reference for it: `stage2_make_pte`.
  @inline(__always)
  mutating func makeEntry(_ visit: Visit, _ new: Stage2Descriptor) {
    if new.isCounted { memory.retain(visit.entry) }
    memory[visit.entry] = new
  }

  /// `kvm_tlb_flush_vmid_range`
  mutating func flushTLB(address: IntermediatePhysicalAddress, size: UInt64) {
    guard hasTLBRange else {
      events.emit(.invalidationOfAll)
      return
    }
    // `MAX_TLBI_RANGE_PAGES`: 32 pages of the largest scale.
    let most: UInt64 = 32 << 16
    var address = address
    var pages = size >> UInt64(granule.pageShift)
    while pages > 0 {
      let part = min(pages, most)
      events.emit(.invalidationOfRange(ipa: address, pages: part))
      address = address &+ part << UInt64(granule.pageShift)
      pages -= part
    }
  }
}
