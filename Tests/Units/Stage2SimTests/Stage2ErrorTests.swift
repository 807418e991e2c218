import Stage2Sim
import Testing

/// The error of each operation has the address, the level and the entry at which the operation ended.
@Suite struct Stage2ErrorTests {
  private static let base: IntermediatePhysicalAddress = 0x4000_0000

  enum Operation: CaseIterable {
    case walk, leaf, map, setOwner, unmap, writeProtect, relaxPermissions, flush

    func perform(
      on table: inout Stage2PageTable, at address: IntermediatePhysicalAddress
    ) throws(Stage2Error) {
      switch self {
      case .walk:
        var visitor = Idler()
        try table.walk(address: address, size: 0x1000, visitor: &visitor)
      case .leaf: _ = try table.leaf(for: address)
      case .map:
        try table.map(address: address, size: 0x1000, physical: 0, protection: [.read])
      case .setOwner: try table.setOwner(address: address, size: 0x1000, owner: 1)
      case .unmap: try table.unmap(address: address, size: 0x1000)
      case .writeProtect: try table.writeProtect(address: address, size: 0x1000)
      case .relaxPermissions: try table.relaxPermissions(address: address, protection: [.write])
      case .flush: try table.flush(address: address, size: 0x1000)
      }
    }
  }

  private struct Idler: Stage2Visitor {
    static let flags = WalkFlags.leaf
    func visit(_ visit: Visit, in table: inout Stage2PageTable) {}
  }

  /// A visitor that changes the table entries of one level, so that they point to no table.
  private struct Corrupter: Stage2Visitor {
    static let flags = WalkFlags.tablePost
    static let entry = Stage2Descriptor(tableAt: 0x7000_0000)
    let level: Int

    func visit(_ visit: Visit, in table: inout Stage2PageTable) {
      if visit.level == level { table[visit.entry] = Self.entry }
    }
  }

  @Test(arguments: Operation.allCases)
  func addressBeyondTheTableIsSaid(operation: Operation) {
    var table = Stage2PageTable(ipaBits: 40)
    #expect(throws: Stage2Error(.outOfRange, address: .init(1 << 40))) {
      try operation.perform(on: &table, at: .init(1 << 40))
    }
  }

  @Test(arguments: Operation.allCases, [1, 2])
  func entryThatLeadsNowhereIsSaid(operation: Operation, level: Int) throws {
    var table = Stage2PageTable()
    let address = Self.base + 0x5000
    try table.map(address: address, size: 0x1000, physical: 0, protection: [.read])
    var corrupter = Corrupter(level: level)
    try table.walk(address: address, size: 0x1000, visitor: &corrupter)
    let refusal = Stage2Error(
      .badAddress, address: address, level: level, entry: Corrupter.entry)
    #expect(
      refusal.description == "EFAULT at 0x40005000, level \(level), entry 0000000070000003")
    #expect(throws: refusal) { try operation.perform(on: &table, at: address) }
  }

  /// The kernel's callers ignore this result, so the model has no error here, either.
  @Test func ageingSaysNothing() {
    var table = Stage2PageTable(ipaBits: 40)
    #expect(table.makeOld(address: .init(1 << 40)).rawValue == 0)
    #expect(table.makeYoung(address: .init(1 << 40)).rawValue == 0)
    let isYoung = table.isYoung(address: .init(1 << 40))
    #expect(!isYoung)
  }

  @Test func argumentsAreRefusedBeforeAnyEntry() {
    var table = Stage2PageTable()
    let refusal = Stage2Error(.invalidArgument, address: Self.base)
    #expect(refusal.description == "EINVAL at 0x40000000")
    #expect(throws: refusal) {
      try table.map(
        address: Self.base, size: 0x1000, physical: 0, protection: [.device, .execute])
    }
    #expect(throws: refusal) { try table.setOwner(address: Self.base, size: 0x1000, owner: 2) }
    #expect(throws: refusal) {
      try table.relaxPermissions(address: Self.base, protection: [.read, .software0])
    }
    #expect(table.memory.pagesInUse == 2)
  }

  /// If the memory for a table is missing, a part of the range may be mapped. The error has the address that was
  /// reached.
  @Test func missingTableIsSaid() throws {
    var table = Stage2PageTable()
    let end = Self.base + 2 << 20
    try table.map(address: end - 0x1000, size: 0x1000, physical: 0, protection: [.read])
    let refusal = Stage2Error(
      .outOfMemory, address: end, level: 2, entry: Stage2Descriptor(rawValue: 0))
    #expect(throws: refusal) {
      try table.map(
        address: end - 0x2000, size: 0x1000, physical: 0, protection: [.read],
        canAllocate: false)
      try table.map(
        address: end, size: 0x1000, physical: 0, protection: [.read], canAllocate: false)
    }
    #expect(throws: refusal) {
      try table.setOwner(address: end - 0x2000, size: 0x4000, owner: 1, canAllocate: false)
    }
    #expect(try table.leaf(for: end - 0x1000).descriptor == .init(invalidOwnedBy: 1))
  }
}
