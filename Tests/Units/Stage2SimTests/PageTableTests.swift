import Testing
import VirtWalkerDevice

@testable import Stage2Sim

@Suite struct PageTableTests {
  /// A visitor that notes each visit.
  private struct Recorder: Stage2Visitor {
    static let flags: WalkFlags = [.tablePre, .leaf, .tablePost]
    var visits: [String] = []

    mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) {
      let kind =
        switch visit.kind {
        case .tablePre: "pre"
        case .tablePost: "post"
        default: "leaf"
        }
      visits.append("\(kind) \(visit.level) \(hexadecimal(visit.address.rawValue))")
    }
  }

  private static let base: IntermediatePhysicalAddress = 0x4000_0000
  private static let everything: Protection = [.read, .write, .execute]

  @Test func walkVisitsTablesBeforeAndAfterTheirLeaves() throws {
    var table = Stage2PageTable()
    try table.map(
      address: Self.base, size: 0x1000, physical: 0x8000_0000, protection: Self.everything)
    var recorder = Recorder()
    try table.walk(address: Self.base + 0xfff, size: 0x1001, visitor: &recorder)
    #expect(
      recorder.visits == [
        "pre 1 40000000", "pre 2 40000000", "leaf 3 40000000", "leaf 3 40001000",
        "post 2 40000000", "post 1 40000000",
      ])
  }

  @Test func walkCrossesTheStartTables() throws {
    var table = Stage2PageTable()
    var recorder = Recorder()
    try table.walk(address: .init(1 << 39 - 0x1000), size: 0x2000, visitor: &recorder)
    #expect(recorder.visits == ["leaf 1 7ffffff000", "leaf 1 8000000000"])
  }

  @Test func walkBeyondTheIPARangeIsRefused() throws {
    var table = Stage2PageTable()
    var recorder = Recorder()
    #expect(throws: Stage2Error(.outOfRange, address: .init(1 << 40 - 0x1000))) {
      try table.walk(address: .init(1 << 40 - 0x1000), size: 0x2000, visitor: &recorder)
    }
    try table.walk(address: .init(1 << 40 - 0x1000), size: 0x1000, visitor: &recorder)
    #expect(recorder.visits == ["leaf 1 fffffff000"])
  }

  @Test func errorOfAVisitorEndsTheWalk() {
    struct Refuser: Stage2Visitor {
      static let flags = WalkFlags.leaf
      var count = 0
      mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) throws(Stage2Error) {
        count += 1
        if count == 2 { throw visit.error(.tryAgain, in: table) }
      }
    }
    var table = Stage2PageTable()
    var refuser = Refuser()
    let refusal = Stage2Error(
      .tryAgain, address: .init(1 << 30), level: 1, entry: Stage2Descriptor(rawValue: 0))
    #expect(throws: refusal) {
      try table.walk(address: 0, size: 4 << 30, visitor: &refuser)
    }
    #expect(refuser.count == 2)
  }

  @Test func mappingUsesBlocksWhereAddressesAndSizeAllow() throws {
    var table = Stage2PageTable()
    try table.map(
      address: Self.base, size: 4 << 20, physical: 0x8000_0000, protection: [.read, .write])
    let block = try table.leaf(for: Self.base + 0x20_1234)
    #expect(block.level == 2)
    #expect(block.descriptor.rawValue == 0x0040_0000_8020_07fd)
    #expect(table.memory.pagesInUse == 3)

    // If the alignment of the physical address differs, pages are mapped.
    var other = Stage2PageTable()
    try other.map(
      address: Self.base, size: 2 << 20, physical: 0x8000_1000, protection: [.read])
    let page = try other.leaf(for: Self.base)
    #expect(page.level == 3)
    #expect(page.descriptor.rawValue == 0x0040_0000_8000_177f)
    #expect(other.memory.pagesInUse == 4)
    #expect(references(other, Self.base) == [2, 2, 513])
  }

  @Test func gigabyteBlockStandsAtLevel1() throws {
    var table = Stage2PageTable()
    try table.map(
      address: Self.base, size: 1 << 30, physical: 0x1_4000_0000, protection: Self.everything)
    #expect(try table.leaf(for: Self.base).level == 1)
    #expect(table.memory.pagesInUse == 2)
  }

  @Test func smallerMappingReplacesABlockByATable() throws {
    var table = Stage2PageTable()
    try table.map(
      address: Self.base, size: 2 << 20, physical: 0x8000_0000, protection: Self.everything)
    let trace = Trace()
    table.observer = trace
    try table.map(
      address: Self.base + 0x1000, size: 0x1000, physical: 0x9000_0000,
      protection: Self.everything)
    #expect(trace.events == [.invalidation(ipa: Self.base + 0x1000, level: 2)])
    #expect(try table.leaf(for: Self.base).descriptor.rawValue == 0)
    #expect(try table.leaf(for: Self.base + 0x1000).level == 3)
    #expect(references(table, Self.base) == [2, 2, 2])
  }

  @Test func blockReplacesATableAndFreesIt() throws {
    var table = Stage2PageTable()
    for page in 0..<3 as Range<UInt64> {
      try table.map(
        address: Self.base + page << 12, size: 0x1000, physical: 0x9000_0000 + page << 12,
        protection: Self.everything)
    }
    #expect(table.memory.pagesInUse == 4)
    #expect(references(table, Self.base) == [2, 2, 4])
    let trace = Trace()
    table.observer = trace
    try table.map(
      address: Self.base, size: 2 << 20, physical: 0x8000_0000, protection: Self.everything)
    #expect(try table.leaf(for: Self.base).level == 2)
    #expect(table.memory.pagesInUse == 3)
    #expect(references(table, Self.base) == [2, 2])
    #expect(trace.events == [.invalidationOfAll])
  }

  @Test func sameMappingAgainIsRefused() throws {
    var table = Stage2PageTable()
    try table.map(
      address: Self.base, size: 0x1000, physical: 0x8000_0000, protection: [.read])
    let refusal = Stage2Error(
      .tryAgain, address: Self.base, level: 3,
      entry: Stage2Descriptor(rawValue: 0x0040_0000_8000_077f))
    #expect(refusal.description == "EAGAIN at 0x40000000, level 3, entry 004000008000077f")
    #expect(throws: refusal) {
      try table.map(
        address: Self.base, size: 0x1000, physical: 0x8000_0000, protection: Self.everything)
    }
    try table.relaxPermissions(address: Self.base, protection: Self.everything)
    #expect(try table.leaf(for: Self.base).descriptor.rawValue == 0x0000_0000_8000_07ff)
  }

  @Test func mappingWithoutMemoryForATableIsRefused() {
    var table = Stage2PageTable()
    let refusal = Stage2Error(
      .outOfMemory, address: Self.base, level: 1, entry: Stage2Descriptor(rawValue: 0))
    #expect(throws: refusal) {
      try table.map(
        address: Self.base, size: 0x1000, physical: 0, protection: [.read], canAllocate: false)
    }
  }

  @Test func unmappingFreesEmptyTables() throws {
    var table = Stage2PageTable()
    try table.map(
      address: Self.base, size: 0x3000, physical: 0x8000_0000, protection: Self.everything)
    let trace = Trace()
    table.observer = trace
    try table.unmap(address: Self.base + 0x1000, size: 0x1000)
    #expect(references(table, Self.base) == [2, 2, 3])
    try table.unmap(address: Self.base, size: 0x3000)
    #expect(table.memory.pagesInUse == 2)
    #expect(try table.leaf(for: Self.base) == Leaf(descriptor: .init(rawValue: 0), level: 1))
    let pages = [0x1000, 0, 0x2000].map { MachineEvent.invalidation(ipa: Self.base + $0, level: 3) }
    // After the pages, the two tables above them are freed, the upper one last.
    let tables = [MachineEvent](repeating: .invalidation(ipa: Self.base, level: 0), count: 2)
    #expect(trace.events == pages + tables)
  }

  @Test func freedTablesAreUsedAgainAndClean() throws {
    var table = Stage2PageTable()
    for round in 0..<3 as Range<UInt64> {
      try table.map(
        address: Self.base + round << 12, size: 0x1000, physical: 0x8000_0000,
        protection: Self.everything)
      #expect(table.memory.pagesInUse == 4)
      #expect(references(table, Self.base) == [2, 2, 2])
      try table.unmap(address: Self.base, size: 2 << 20)
      #expect(table.memory.pagesInUse == 2)
    }
  }

  /// A hide into an invalid entry makes the reference count too low: the next map drops a reference that was never
  /// taken.
  @Test func hideIntoAnInvalidEntryLosesAReference() throws {
    var machine = try VirtualMachine(.init(backing: .anonymous))
    machine.add(HideSeek())
    let code = Self.base + 0x1000
    machine.run(.nop, at: .init(flat: code))
    #expect(references(machine.stage2, Self.base) == [2, 2, 2])
    machine.run(
      .access(.store(.byte, from: 0), address: .init(flat: HideSeek.hideAddress)),
      at: .init(flat: code))
    machine.setRegister(0, to: 0x41)
    machine.run(
      .access(.store(.byte, from: 0), address: .init(flat: HideSeek.hideAddress)),
      at: .init(flat: code))
    #expect(try machine.leaf(for: Self.base).descriptor.rawValue == 0x0208_0000_0000_0000)
    // Two pages are mapped now, but only one of them is counted.
    machine.run(
      .access(.load(.byte, to: 0), address: .init(flat: Self.base)), at: .init(flat: code))
    #expect(references(machine.stage2, Self.base) == [2, 2, 2])
  }

  private func references(_ table: Stage2PageTable, _ address: IntermediatePhysicalAddress) -> [Int]
  {
    table.referenceCounts(for: address)
  }
}
