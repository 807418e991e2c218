extension Stage2PageTable {
  /// Replaces the blocks of `size` bytes from `address` by tables that map the same memory: `kvm_pgtable_stage2_split`, of 6.4 and
  /// later, for eager page splitting. The pages of device memory become normal memory, because `kvm_pgtable_stage2_pte_prot` does
  /// not tell the kind of memory.
  ///
  /// - Parameters:
  ///   - address: An IPA in bytes; rounded down to its page.
  ///   - size: In bytes; the end is rounded up to a page.
  ///   - pages: The number of pages in the cache of the caller (`struct kvm_mmu_memory_cache`). If there are too few for all pages
  ///     of a block, the block becomes a table of smaller blocks first.
  /// - Throws: `ENOMEM` if the cache is empty, and a block is left; `ERANGE` beyond ``ipaBits``.
  public mutating func split(
    address: IntermediatePhysicalAddress, size: UInt64, pages: Int
  ) throws(Stage2Error) {
    var visitor = SplitVisitor(pages: pages)
    try update(address: address, size: size, visitor: &visitor)
  }

  /// Makes a table that no entry points to, for the memory of one block: `kvm_pgtable_stage2_create_unlinked`, of 6.4 and later.
  ///
  /// - Parameters:
  ///   - physical: The address of the memory.
  ///   - level: The level of the entry that would point to the table.
  ///   - protection: The permissions of the guest.
  ///   - forcesPages: Whether the leaves are pages, and no smaller blocks.
  /// - Returns: The first entry of the table.
  /// - Throws: `EINVAL` for an address that is not aligned to a block of the level, or for a protection as
  ///   ``map(address:size:physical:protection:canAllocate:flags:)``; `ENOMEM` if there is no room for a table.
  package mutating func createUnlinked(
    physical: PhysicalAddress, level: Int, protection: Protection, forcesPages: Bool
  ) throws(Stage2Error) -> EntryReference {
    guard physical.isAligned(to: granule.size(level: level)),
      let attributes = leafAttributes(protection)
    else { throw Stage2Error(.invalidArgument, address: 0) }
    memory.makeUnique()
    guard memory.hasRoom else { throw Stage2Error(.outOfMemory, address: 0) }
    let table = memory.allocate()
    var visitor = UnlinkedVisitor(
      map: MapVisitor612(
        physical: physical, attributes: attributes, in: self, from: 0, canAllocate: true,
        forcesPages: forcesPages, flags: [.skipTLBInvalidation, .skipCacheMaintenance]))
    do throws(Stage2Error) {
      try update(unlinked: table, level: level, visitor: &visitor)
    } catch {
      freeUnlinked(table, level: level)
      throw error
    }
    return table
  }
}

/// `stage2_map_walker` for a table that no entry points to: it has no blocks in place of tables.
private struct UnlinkedVisitor: Stage2Visitor {
  static let flags = WalkFlags.leaf
  static let kernelName = "stage2_map_walker"

  var map: MapVisitor612

  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) throws(Stage2Error) {
    try map.visit(visit, in: &table)
  }
}

/// `stage2_split_walker`
private struct SplitVisitor: Stage2Visitor {
  static let flags = WalkFlags.leaf
  static let kernelName = "stage2_split_walker"

  /// The pages that are left in the cache (`nobjs`).
  var pages: Int

  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) throws(Stage2Error) {
    guard visit.level != Granule.lastLevel, visit.old.isValid else { return }
    guard let needed = tables(below: visit.level, of: table.granule) else {
      throw visit.error(.invalidArgument, in: table)
    }
    let forcesPages = pages >= needed
    guard pages >= (forcesPages ? needed : 1) else { throw visit.error(.outOfMemory, in: table) }
    let pagesBefore = table.memory.pagesInUse
    let child = try table.createUnlinked(
      physical: table.addressFormat.address(in: visit.old, table.granule), level: visit.level,
      protection: visit.old.protection(in: table.kernel), forcesPages: forcesPages)
    pages -= table.memory.pagesInUse - pagesBefore
    guard table.tryBreakEntry(visit, flags: []) else {
      table.freeUnlinked(child, level: visit.level)
      throw visit.error(.tryAgain, in: table)
    }
    table.makeEntry(
      visit, Stage2Descriptor(tableAt: table.memory.physicalAddress(of: child)))
  }

  /// The tables that the pages of a block need: `stage2_block_get_nr_page_tables`.
  private func tables(below level: Int, of granule: Granule) -> Int? {
    switch level {
    case 1: granule.entriesPerTable + 1
    case 2: 1
    default: nil
    }
  }
}
