extension Stage2PageTable {
  /// Unmaps `size` bytes from `address`, and frees tables that hold nothing any more: `kvm_pgtable_stage2_unmap`.
  ///
  /// A block that the range touches goes as a whole. The guest faults the part outside the range in again.
  ///
  /// - Throws: `ERANGE` beyond ``ipaBits``.
  public mutating func unmap(address: IntermediatePhysicalAddress, size: UInt64) throws(Stage2Error)
  {
    events.enter(.unmap)
    defer { events.leave() }
    switch kernel {
    case .linux510:
      var visitor = UnmapVisitor510()
      try update(address: address, size: size, visitor: &visitor)
    case .linux612 where hasTLBRange && hasFWB, .linux73 where hasTLBRange && hasFWB:
      var visitor = DeferringUnmapVisitor()
      defer { flushTLB(address: address, size: size) }
      try update(address: address, size: size, visitor: &visitor)
    case .linux61, .linux612, .linux73:
      var visitor = UnmapVisitor()
      try update(address: address, size: size, visitor: &visitor)
    }
  }

  /// Drops every reference that the entries hold, and frees the start tables: `kvm_pgtable_stage2_destroy`. The table
  /// is of no use afterwards.
  public mutating func destroy() {
    destroy(address: 0, size: 1 << UInt64(ipaBits))
    memory.freeContiguous(root, pages: rootTables)
  }

  /// Drops the references that the entries of a range hold: `kvm_pgtable_stage2_destroy_range` of 7.3.
  public mutating func destroy(address: IntermediatePhysicalAddress, size: UInt64) {
    if kernel == .linux73 {
      var visitor = FreeVisitor73()
      try? update(address: address, size: size, visitor: &visitor)
    } else {
      var visitor = FreeVisitor(kernel: kernel)
      try? update(address: address, size: size, visitor: &visitor)
    }
  }

  /// Frees a table that no entry points to, and the tables below: `kvm_pgtable_stage2_free_unlinked`.
  ///
  /// - Parameter level: The level of the entry that would point to the table.
  package mutating func freeUnlinked(_ table: EntryReference, level: Int) {
    if kernel == .linux73 {
      var visitor = FreeVisitor73()
      try? update(unlinked: table, level: level, visitor: &visitor)
    } else {
      var visitor = FreeVisitor(kernel: kernel)
      try? update(unlinked: table, level: level, visitor: &visitor)
    }
    memory.release(table)
  }

  /// Cleans the data cache of the memory that is mapped from `address` on: `kvm_pgtable_stage2_flush`. With FEAT_S2FWB there is
  /// nothing to clean.
  ///
  /// - Throws: `ERANGE` beyond ``ipaBits``.
  public mutating func flush(address: IntermediatePhysicalAddress, size: UInt64) throws(Stage2Error)
  {
    guard !hasFWB else { return }
    var visitor = FlushVisitor()
    try walk(address: address, size: size, visitor: &visitor)
  }
}

/// `stage2_unmap_walker`
private struct UnmapVisitor: Stage2Visitor {
  static let flags: WalkFlags = [.leaf, .tablePost]
  static let kernelName = "stage2_unmap_walker"

  @inline(__always)  // into the walk's loop
  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) throws(Stage2Error) {
    let descriptor = visit.kind == .tablePost ? visit.tableEntry(in: table) : visit.old
    guard descriptor.isValid else {
      if descriptor.isCounted {
        table.memory[visit.entry] = Stage2Descriptor(rawValue: 0)
        table.memory.release(visit.entry)
      }
      return
    }
    guard descriptor.isTable(level: visit.level) else {
      table.removeEntry(visit.place, old: descriptor)
      if table.isCacheable(descriptor), !table.hasFWB {
        table.cleanDataCache(descriptor, size: visit.size)
      }
      return
    }
    try freeTable(descriptor, visit.place, in: &table)
  }

  /// Takes away a table that holds nothing any more.
  @inline(never)
  private func freeTable(
    _ old: Stage2Descriptor, _ place: EntryPlace, in table: inout Stage2PageTable
  ) throws(Stage2Error) {
    let child = try table.table(below: old, address: place.address, level: place.level)
    guard table.memory.count(child) == 1 else { return }
    table.removeEntry(place, old: old)
    table.memory.release(child)
  }
}

/// `stage2_unmap_walker` of 6.12 and 7.3, if the TLB entries of leaves are invalidated after the walk
/// (`stage2_unmap_defer_tlb_flush`). With FEAT_S2FWB, no cache needs cleaning.
private struct DeferringUnmapVisitor: Stage2Visitor {
  static let flags: WalkFlags = [.leaf, .tablePost]
  static let kernelName = "stage2_unmap_walker"

  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) throws(Stage2Error) {
    guard visit.kind == .leaf, visit.old.isValid else {
      var other = UnmapVisitor()
      return try other.visit(visit, in: &table)
    }
    table.memory[visit.entry] = Stage2Descriptor(rawValue: 0)
    table.memory.release(visit.entry)
  }
}

/// `stage2_free_walker` before 7.0
private struct FreeVisitor: Stage2Visitor {
  static let flags: WalkFlags = [.leaf, .tablePost]
  static let kernelName = "stage2_free_walker"

  let kernel: KernelVersion

  @inline(__always)
  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) {
    let old = visit.kind == .tablePost ? visit.tableEntry(in: table) : visit.old
    guard kernel.isCounted(old) else { return }
    table.memory.release(visit.entry)
    guard old.isTable(level: visit.level),
      let child = table.memory.table(at: table.addressFormat.address(in: old, table.granule))
    else { return }
    table.memory.release(child)
  }
}

/// `stage2_free_walker` of 7.3: a table is freed only if no entry in it counts, and its entry is cleared.
private struct FreeVisitor73: Stage2Visitor {
  static let flags: WalkFlags = [.leaf, .tablePost]
  static let kernelName = "stage2_free_walker"

  @inline(__always)
  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) throws(Stage2Error) {
    guard visit.old.isCounted else { return }
    guard visit.kind == .tablePost else {
      table.memory.release(visit.entry)
      return
    }
    let child = try table.table(below: visit.old, address: visit.address, level: visit.level)
    guard table.memory.count(child) == 1 else { return }
    table.memory.release(visit.entry)
    table.memory.release(child)
    table.memory[visit.entry] = Stage2Descriptor(rawValue: 0)
  }
}

/// `stage2_flush_walker`
private struct FlushVisitor: Stage2Visitor {
  static let flags = WalkFlags.leaf
  static let kernelName = "stage2_flush_walker"

  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) {
    let descriptor = visit.old
    guard descriptor.isValid, table.isCacheable(descriptor) else { return }
    table.cleanDataCache(descriptor, size: visit.size)
  }
}
