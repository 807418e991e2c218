import Glibc
import Scenarios
import SeededRandom
import Stage2Sim
import Testing
import VirtWalkerDevice

@testable import Inspection

/// Tests of a machine whose tables another process changes as it likes: each operation and each view ends, and nothing traps.
@Suite struct HostileTablesTests {
  fileprivate struct Machine: Sendable {
    let granule: Granule
    let ipaBits: Int
    let backing: Backing
  }

  fileprivate static let machines = [
    Machine(granule: .kib4, ipaBits: 40, backing: .anonymous),
    Machine(granule: .kib4, ipaBits: 48, backing: .huge),
    Machine(granule: .kib4, ipaBits: 33, backing: .hugetlb),
    Machine(granule: .kib16, ipaBits: 40, backing: .file),
    Machine(granule: .kib64, ipaBits: 40, backing: .memfd),
  ]

  @Test(arguments: 0..<5) func anyEntriesAreHarmless(machine: Int) throws {
    var attack = try Attack(
      Self.machines[machine].configuration, seed: UInt64(machine), hasRace: false)
    for _ in 0..<16 { try attack.round() }
    #expect(attack.operations > 150)
  }

  /// The entries change in the middle of operations, too.
  @Test(arguments: 0..<5) func entriesThatChangeDuringAnOperationAreHarmless(machine: Int) throws {
    var attack = try Attack(
      Self.machines[machine].configuration, seed: 100 + UInt64(machine), hasRace: true)
    for _ in 0..<16 { try attack.round() }
    #expect(attack.operations > 150)
  }

  /// A process that clears entries again and again makes KVM lose tables. The tables' memory stays bounded all the same.
  @Test func lostTablesAreBounded() throws {
    let blocks = Blocks()
    var table = Stage2PageTable(source: blocks.source)
    var failure: Stage2Error?
    var maps = 0
    while failure == nil, maps < 1 << 16 {
      maps += 1
      do throws(Stage2Error) {
        try table.map(address: 0x4000_0000, size: 4096, physical: 0x8000_1000, protection: .read)
      } catch {
        failure = error
      }
      blocks.clear()
    }
    #expect(failure?.code == .outOfMemory)
    #expect(table.memory.pagesInUse <= 64 << 20 / 4096 + 1)
  }
}

extension HostileTablesTests.Machine {
  fileprivate var configuration: VirtualMachine.Configuration {
    .init(
      cpu: ipaBits == 48 ? .max : .cortexA76, granule: granule, ipaBits: ipaBits, backing: backing,
      memorySize: max(64 << 20, backing == .hugetlb ? granule.blockSize : 0))
  }
}

/// The memory of tables, which the test changes behind the machine's back.
private final class Blocks: @unchecked Sendable {
  private final class Block: TableBlock, @unchecked Sendable {
    deinit { munmap(address, size) }
  }

  /// All blocks, so that the thread that changes entries never uses memory that is gone.
  private var all: [Block] = []
  /// The first word of the last block, and the number of its words that are changed.
  nonisolated(unsafe) private(set) var words: UnsafeMutablePointer<UInt64>?
  nonisolated(unsafe) var count = 0
  nonisolated(unsafe) var isOver = false

  var source: TableSource {
    { [unowned self] size in
      let address = mmap(
        nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | Int32(MAP_NORESERVE), -1, 0
      )
      guard let address, address != MAP_FAILED else { return nil }
      all.append(Block(address: address, size: size))
      words = address.bindMemory(to: UInt64.self, capacity: size / 8)
      return all.last
    }
  }

  /// Clears the first two tables.
  func clear() { words?.update(repeating: 0, count: 1024) }

  /// Changes some entries: to random words, to tables that are tables, that are none, or that the entry stands in, to pages and blocks.
  func change(_ random: inout SplitMix64, entries: Int, granule: Granule) {
    // In this order: a new block has no count at first.
    guard let words else { return }
    let count = count
    guard count > 0 else { return }
    let base: UInt64 = 0x1_0000_0000
    let perTable = UInt64(granule.pageSize / 8)
    let tables = UInt64(count) / perTable
    for _ in 0..<entries {
      // The first entries of the tables are those that the machine uses.
      let index =
        Bool.random(using: &random)
        ? Int.random(in: 0..<count, using: &random)
        : Int(UInt64.random(in: 0..<tables, using: &random) * perTable)
          + Int.random(in: 0..<4, using: &random)
      let attributes = UInt64.random(in: 0...UInt64.max, using: &random) & ~granule.addressMask
      let table = UInt64.random(in: 0..<tables + 2, using: &random) * granule.pageSize
      words[index] =
        switch Int.random(in: 0..<8, using: &random) {
        case 0: UInt64.random(in: 0...UInt64.max, using: &random)
        case 1: (base + table) | attributes | 3
        case 2: (base + UInt64(index) / perTable * granule.pageSize) | 3
        case 3: base | 3
        case 4: UInt64.random(in: 0...UInt64.max, using: &random) | 3
        case 5: (base &- granule.pageSize) | 3
        case 6: attributes & ~2 | 1
        default: 0
        }
    }
  }
}

/// A machine whose tables change between its operations, or during them.
private struct Attack {
  private let blocks = Blocks()
  private let engine: ModelEngine
  private var random: SplitMix64
  private let granule: Granule
  private let race: Race?
  private(set) var operations = 0

  init(_ configuration: VirtualMachine.Configuration, seed: UInt64, hasRace: Bool) throws {
    random = SplitMix64(seed: seed)
    granule = configuration.granule
    engine = try ModelEngine(
      MachineDescription(configuration),
      .init(
        tables: blocks.source, makeHooks: { _ in [HideSeek()] },
        loadDriver: { try VirtWalkerDriver(loadedIn: &$0) }), eventCapacity: 1 << 10)
    race = hasRace ? Race(blocks, granule: granule, seed: ~seed) : nil
  }

  mutating func round() throws {
    blocks.count = engine.virtualMachine.stage2.withTableWords { $0.count }
    blocks.change(&random, entries: Int.random(in: 1...64, using: &random), granule: granule)
    for _ in 0..<12 { operate() }
    look()
    if Int.random(in: 0..<8, using: &random) == 0 {
      blocks.count = 0
      try engine.reset()
    }
  }

  /// Performs one operation. Any error is a valid outcome.
  private mutating func operate() {
    operations += 1
    let page = granule.pageSize
    let offset = [0, page, 15 * page, 511 * page, 2 << 20, 63 << 20].randomElement(using: &random)!
    let size = [page, 16 * page, 2 << 20, 64 << 20].randomElement(using: &random)!
    let address = IntermediatePhysicalAddress(0x4000_0000 + offset)
    let place = "\(address) 0x\(String(size, radix: 16))"
    switch Int.random(in: 0..<24, using: &random) {
    case 0: perform("guest ldr w0,[\(address)]")
    case 1: perform("guest str x0,[\(address)] x0=0x1234")
    case 2: perform("guest fetch \(address)")
    case 3: perform("guest ldp x0,x2,[\(address)]")
    case 4: perform("guest strb w0,[0x0b000000] x0=0x5a")
    case 5: perform("guest ldrb w0,[0x0b000001]")
    case 6:
      perform(
        "host madvise \(Bool.random(using: &random) ? "dontneed" : "populate-write") \(place)")
    case 7:
      perform("host madvise \(Bool.random(using: &random) ? "mergeable" : "collapse") \(place)")
    case 8: perform("host ksm")
    case 9: perform(Bool.random(using: &random) ? "host fork" : "host end-fork")
    case 10: perform("host age \(address)")
    case 11: perform("host dirty-log \(["on", "off", "get"].randomElement(using: &random)!)")
    case 12:
      perform("host slot \(["delete", "add", "add-readonly"].randomElement(using: &random)!)")
    case 13:
      perform("host mprotect \(["none", "ro", "rw"].randomElement(using: &random)!) \(place)")
    case 14: _ = try? engine.write([0x41].span)
    case 15: _ = try? [UInt8](capacity: 1) { try engine.read(into: &$0) }
    default: change(address, size)
    }
  }

  private func perform(_ step: String) {
    do {
      engine.perform(try Step(parsing: step)) { _ in }
    } catch {
      Issue.record("\(step): \(error)")
    }
  }

  /// Calls one of KVM's functions on the tables.
  private mutating func change(_ address: IntermediatePhysicalAddress, _ size: UInt64) {
    let physical = PhysicalAddress(UInt64.random(in: 0...UInt64.max, using: &random))
    let protection = Protection(rawValue: UInt64.random(in: 0...15, using: &random))
    switch Int.random(in: 0..<8, using: &random) {
    case 0:
      try? engine.virtualMachine.stage2.map(
        address: address, size: size, physical: physical, protection: protection,
        canAllocate: Bool.random(using: &random))
    case 1: try? engine.virtualMachine.stage2.setOwner(address: address, size: size, owner: 1)
    case 2: try? engine.virtualMachine.stage2.unmap(address: address, size: size)
    case 3: try? engine.virtualMachine.stage2.writeProtect(address: address, size: size)
    case 4:
      engine.virtualMachine.stage2.makeOld(address: address)
      engine.virtualMachine.stage2.makeYoung(address: address)
      _ = engine.virtualMachine.stage2.isYoung(address: address)
    case 5:
      try? engine.virtualMachine.stage2.relaxPermissions(address: address, protection: protection)
    case 6: try? engine.virtualMachine.stage2.flush(address: address, size: size)
    default: _ = try? HideSeek.walk(hiding: 0x5a, in: &engine.virtualMachine.stage2)
    }
  }

  /// Reads the views of the machine.
  private func look() {
    let report = WalkReport(of: engine, last: nil)
    #expect(report.text.utf8.count < 1 << 14)
    #expect(report.drawing.hasSuffix("</svg>\n"))
    var leaves = 0
    engine.forEachLeaf { _, _ in leaves += 1 }
    #expect(leaves <= engine.virtualMachine.stage2.withTableWords { $0.count })
    #expect(engine.dump.hasPrefix("---[ Guest IPA ]---\n"))
    for level in -1...4 { _ = engine.references(for: HideSeek.target, level: level) }
    #expect(engine.tablePages > 0)
  }
}

/// A thread that changes entries as long as there is a reference to it.
private final class Race {
  private let blocks: Blocks
  private let thread: pthread_t

  private final class Start {
    let run: () -> Void
    init(_ run: @escaping () -> Void) { self.run = run }
  }

  init(_ blocks: Blocks, granule: Granule, seed: UInt64) {
    self.blocks = blocks
    let start = Start {
      var random = SplitMix64(seed: seed)
      while !blocks.isOver {
        blocks.change(&random, entries: 16, granule: granule)
        // Other tests need the CPU, too.
        usleep(20)
      }
    }
    var thread = pthread_t()
    let context = Unmanaged.passRetained(start).toOpaque()
    pthread_create(
      &thread, nil,
      {
        Unmanaged<Start>.fromOpaque($0!).takeRetainedValue().run()
        return nil
      }, context)
    self.thread = thread
  }

  deinit {
    blocks.isOver = true
    pthread_join(thread, nil)
  }
}
