/// A maker of a table from ranges of equal entries, in the order of their addresses.
///
/// No function of the kernel does this. The tables, their entries and their reference counts are those that KVM would have.
package struct TableLoader {
  /// The table so far.
  package private(set) var table: Stage2PageTable
  /// The end of the last range.
  package private(set) var end: IntermediatePhysicalAddress = 0

  /// - Parameter table: An empty table.
  package init(_ table: Stage2PageTable) { self.table = table }

  /// The most tables that exist after ``append(to:level:attributes:)``.
  package func tables(afterAppendingTo newEnd: IntermediatePhysicalAddress, level: Int) -> UInt64 {
    let levels = max(0, level - table.startLevel)
    var tables = UInt64(table.memory.pagesInUse)
    for above in 0..<levels {
      tables += (newEnd - end) / table.granule.size(level: level - 1 - above) + 1
    }
    return tables
  }

  /// Appends equal entries from ``end`` on. The output address of a valid entry is its IPA.
  ///
  /// - Parameters:
  ///   - newEnd: The end of the range, at most that of the table; aligned, as ``end``, to the size that an entry of the level maps.
  ///   - level: The level of the entries, from that of the start tables on.
  ///   - attributes: The entry without its output address.
  package mutating func append(
    to newEnd: IntermediatePhysicalAddress, level: Int, attributes: UInt64
  ) {
    table.memory.makeUnique()
    let granule = table.granule
    let size = granule.size(level: level)
    let entriesOfTable =
      level == table.startLevel
      ? granule.entriesPerTable * table.rootTables : granule.entriesPerTable
    let isValid = attributes & Stage2Descriptor.valid != 0
    while end < newEnd {
      let first = reference(for: end, level: level)
      let index = Int(truncatingIfNeeded: end.rawValue / size) % entriesOfTable
      let count = min(Int((newEnd - end) / size), entriesOfTable - index)
      if attributes != 0 {
        for offset in 0..<count {
          let entry = first.advanced(by: offset)
          let physical = PhysicalAddress(end.rawValue + UInt64(offset) * size)
          let descriptor = Stage2Descriptor(
            rawValue: attributes
              | (isValid ? table.addressFormat.bits(of: physical, granule) : 0))
          table.memory[entry] = descriptor
          if table.kernel.isCounted(descriptor) { table.memory.retain(entry) }
        }
      }
      end += UInt64(count) * size
    }
  }

  /// The place of the entry for an address at a level. Makes the tables on the way.
  private mutating func reference(
    for address: IntermediatePhysicalAddress, level: Int
  ) -> EntryReference {
    let granule = table.granule
    var entry = table.rootEntry(for: address)
    for below in table.startLevel..<level {
      if table.memory[entry].rawValue == 0 {
        let child = table.memory.allocate()
        table.memory[entry] = Stage2Descriptor(
          tableAt: table.memory.physicalAddress(of: child))
        table.memory.retain(entry)
      }
      let child = table.memory.table(
        at: table.addressFormat.address(in: table.memory[entry], granule))
      let index =
        address.rawValue / granule.size(level: below + 1) % UInt64(granule.entriesPerTable)
      entry = child!.advanced(by: Int(index))
    }
    return entry
  }
}

extension Stage2PageTable {
  /// The attributes of a leaf of normal memory, as far as a dump of the table does not tell them: the type of the entry, MemAttr and
  /// SH (`kvm_init_valid_leaf_pte` and `stage2_set_prot_attr`).
  package func normalMemory(level: Int) -> UInt64 {
    let type = level == Granule.lastLevel ? Stage2Descriptor.tableOrPage : 0
    let access: UInt64 =
      Stage2Descriptor.accessFlag | Stage2Descriptor.executeNever | Stage2Descriptor.executeNever0
    return (leafAttributes([]) ?? 0) & ~access | type | Stage2Descriptor.valid
  }
}
