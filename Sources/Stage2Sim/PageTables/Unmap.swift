extension Stage2PageTable {
  /// Unmaps `size` bytes from `address`, and frees tables that hold nothing any more: `kvm_pgtable_stage2_unmap`.
  ///
  /// A block that the range touches goes as a whole; what lay outside the range is faulted in again.
  ///
  /// - Throws: `ERANGE` beyond ``ipaBits``.
  public mutating func unmap(address: UInt64, size: UInt64) throws(KernelError) {
    var visitor = UnmapVisitor()
    try walk(address: address, size: size, visitor: &visitor)
  }
}

/// `stage2_unmap_walker`
private struct UnmapVisitor: Stage2Visitor {
  static let flags: WalkFlags = [.leaf, .tablePost]

  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) {
    let descriptor = table[visit.entry]
    guard descriptor.isValid else {
      if descriptor.isCounted {
        table[visit.entry] = Stage2Descriptor(rawValue: 0)
        table.memory.put(visit.entry)
      }
      return
    }
    guard descriptor.isTable(level: visit.level) else {
      table.putEntry(visit)
      return
    }
    let child = table.memory.table(at: descriptor.outputAddress)
    guard table.memory.count(child) == 1 else { return }
    table.putEntry(visit)
    table.memory.put(child)
  }
}
