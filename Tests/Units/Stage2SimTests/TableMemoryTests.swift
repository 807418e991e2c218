import Testing
import VirtWalkerDevice

@testable import Stage2Sim

/// Tests that copies of a table share their memory until one of them changes.
@Suite struct TableMemoryTests {
  private static let base: IntermediatePhysicalAddress = 0x4000_0000
  private static let pages: UInt64 = 0x5000

  fileprivate static func mapped() throws -> Stage2PageTable {
    var table = Stage2PageTable()
    try table.map(address: base, size: pages, physical: 0x8000_0000, protection: [.read, .write])
    return table
  }

  /// A visitor that writes an entry itself, as a hook does.
  private struct Writer: Stage2Visitor {
    static let flags = WalkFlags.leaf
    /// A copy of the table, made at the first entry.
    var copy: Stage2PageTable?

    mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) {
      if copy == nil { copy = table }
      table[visit.entry].hiddenByte = 0xa5
    }
  }

  static let operations: [@Sendable (inout Stage2PageTable) throws -> Void] = [
    { try $0.map(address: base, size: pages, physical: 0, protection: [.read]) },
    { try $0.map(address: base + 2 << 20, size: 0x1000, physical: 0, protection: [.read]) },
    { try $0.setOwner(address: base, size: pages, owner: 1) },
    { try $0.unmap(address: base, size: pages) },
    { try $0.writeProtect(address: base, size: pages) },
    { $0.makeOld(address: base) },
    { try $0.relaxPermissions(address: base, protection: [.execute]) },
    { $0.destroy() },
    {
      var writer = Writer()
      try $0.walk(address: base, size: pages, visitor: &writer)
    },
  ]

  @Test(arguments: operations)
  func aChangeIsOfOneCopy(operation: @Sendable (inout Stage2PageTable) throws -> Void) throws {
    let table = try Self.mapped()
    let (words, counts) = (table.memory.words, table.memory.counts)
    var copy = table
    try operation(&copy)
    #expect(copy.memory.words != words || copy.memory.counts != counts)
    #expect(table.memory.words == words)
    #expect(table.memory.counts == counts)
    #expect(table.memory.pagesInUse == 4)
  }

  @Test func aVisitorMayKeepTheTable() throws {
    var table = try Self.mapped()
    let words = table.memory.words
    var writer = Writer()
    try table.walk(address: Self.base, size: Self.pages, visitor: &writer)
    #expect(writer.copy?.memory.words == words)
    for page in stride(from: 0, to: Self.pages, by: 0x1000) {
      #expect(try table.leaf(for: Self.base + page).descriptor.hiddenByte == 0xa5)
    }
  }

  /// The memory grows in the middle of a walk, because it has no room for all tables. A copy from before stays as it
  /// was.
  @Test(arguments: Granule.allCases)
  func memoryGrows(granule: Granule) throws {
    var table = Stage2PageTable(granule: granule)
    try table.map(address: 0, size: 1, physical: 0, protection: [.read])
    let copy = table
    let words = copy.memory.words
    // The physical address is not aligned for a block.
    let physical = PhysicalAddress(1 << 40 + granule.pageSize)
    try table.map(
      address: .init(granule.blockSize), size: 100 * granule.blockSize, physical: physical,
      protection: [.read])
    #expect(table.memory.pagesInUse == copy.memory.pagesInUse + 100)
    for block in 0..<100 as Range<UInt64> {
      let offset = block * granule.blockSize + granule.pageSize
      let leaf = try table.leaf(for: .init(granule.blockSize + offset))
      #expect(leaf.level == 3)
      #expect(leaf.descriptor.outputAddress(granule) == physical + offset)
    }
    #expect(copy.memory.words == words)
    try table.unmap(address: 0, size: 1 << 40)
    #expect(table.memory.pagesInUse == table.rootTables)
    #expect(table.memory.words.allSatisfy { $0 == 0 })
  }

  /// A reference into a table with more pages is invalid for another table, so it gives no access to other memory.
  @Test func foreignReferenceTraps() async {
    await #expect(processExitsWith: .failure) {
      let words = try TableMemoryTests.mapped().memory.words
      let entry = EntryReference(word: words.count - 1)
      _ = Stage2PageTable()[entry]
    }
    await #expect(processExitsWith: .failure) {
      let words = try TableMemoryTests.mapped().memory.words
      let entry = EntryReference(word: words.count - 1)
      var table = Stage2PageTable()
      table[entry] = Stage2Descriptor(rawValue: 1)
    }
  }
}
