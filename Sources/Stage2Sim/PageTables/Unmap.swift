extension Stage2PageTable {
  /// Unmaps `size` bytes from `address`, and frees tables that hold nothing any more: `kvm_pgtable_stage2_unmap`.
  ///
  /// A block that the range touches goes as a whole; what lay outside the range is faulted in again.
  ///
  /// - Throws: `ERANGE` beyond ``ipaBits``.
  public mutating func unmap(address: IntermediatePhysicalAddress, size: UInt64) throws(Stage2Error)
  {
    var visitor = UnmapVisitor()
    try update(address: address, size: size, visitor: &visitor)
  }

  /// Drops every reference that the entries hold, and frees the start tables: `kvm_pgtable_stage2_destroy`. The table
  /// is of no use afterwards.
  public mutating func destroy() {
    var visitor = FreeVisitor()
    try? update(address: 0, size: 1 << UInt64(ipaBits), visitor: &visitor)
    memory.freeContiguous(root, pages: rootTables)
  }

  /// Cleans the data cache of what is mapped from `address` on: `kvm_pgtable_stage2_flush`. With FEAT_S2FWB there is
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

  @inline(__always)  // into the walk's loop
  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) throws(Stage2Error) {
    let descriptor = table[visit.entry]
    guard descriptor.isValid else {
      if descriptor.isCounted {
        table.memory[visit.entry] = Stage2Descriptor(rawValue: 0)
        table.memory.release(visit.entry)
      }
      return
    }
    guard descriptor.isTable(level: visit.level) else {
      table.removeEntry(visit)
      if table.isCacheable(descriptor), !table.hasFWB {
        table.cleanDataCache(descriptor, size: visit.size)
      }
      return
    }
    try freeTable(visit, in: &table)
  }

  /// Takes away a table that holds nothing any more.
  @inline(never)
  private func freeTable(_ visit: Visit, in table: inout Stage2PageTable) throws(Stage2Error) {
    let child = try table.table(below: visit)
    guard table.memory.count(child) == 1 else { return }
    table.removeEntry(visit)
    table.memory.release(child)
  }
}

/// `stage2_free_walker`
private struct FreeVisitor: Stage2Visitor {
  static let flags: WalkFlags = [.leaf, .tablePost]

  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) {
    let descriptor = table[visit.entry]
    guard descriptor.isCounted else { return }
    table.memory.release(visit.entry)
    guard descriptor.isTable(level: visit.level),
      let child = table.memory.table(at: descriptor.outputAddress(table.granule))
    else { return }
    table.memory.release(child)
  }
}

/// `stage2_flush_walker`
private struct FlushVisitor: Stage2Visitor {
  static let flags = WalkFlags.leaf

  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) {
    let descriptor = table[visit.entry]
    guard descriptor.isValid, table.isCacheable(descriptor) else { return }
    table.cleanDataCache(descriptor, size: visit.size)
  }
}
