import Foundation
import Scenarios
import Stage2Sim
import Testing
import VirtWalkerDevice

@testable import Inspection

/// Tests of the events inside of a step: `replay --step` and `replay --casemate`.
@Suite struct StepTracerTests {
  private static let recordings = URL(filePath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent().appending(path: "Recordings")

  /// Some recordings of each version, and all of those about single facts.
  static let paths: [String] = KernelVersion.allCases.flatMap { version in
    let files = try? FileManager.default.contentsOfDirectory(
      atPath: recordings.appending(path: version.rawValue).path())
    return (files ?? []).sorted().enumerated()
      .filter { $0.offset % 25 == 0 || $0.element.hasPrefix("facts-a76") }
      .map { "\(version.rawValue)/\($0.element)" }
  }

  private static func recording(_ path: String) throws -> Recording {
    try Recording(
      parsing: String(contentsOf: recordings.appending(path: path), encoding: .utf8))
  }

  private static func entries(of table: Stage2PageTable) -> [PhysicalAddress: UInt64] {
    table.withTableWords { words in
      Dictionary(
        uniqueKeysWithValues: words.enumerated().filter { $0.element != 0 }.map {
          (TableMemory.base &+ UInt64($0.offset) << 3, $0.element)
        })
    }
  }

  /// A step whose events are followed has the observations of the real kernel. The writes lead from the first tables to the last ones,
  /// and back. KVM's own writes keep the rules of break-before-make; the hook's do not.
  @Test(arguments: paths)
  func eventsOfARecording(_ path: String) throws {
    let recording = try Self.recording(path)
    let tracer = try StepTracer(recording.machine)
    let first = tracer.state
    let firstEntries = Self.entries(of: tracer.engine.virtualMachine.stage2)
    for (line, step) in recording.steps {
      let stops = tracer.stops.count
      try tracer.perform(step)
      let seen = tracer.stops[stops...].compactMap { stop in
        if case .observation(let observation) = stop.kind { observation.description } else { nil }
      }
      #expect(seen == line.observations, "\(path):\(line.number)")
    }
    let last = Self.entries(of: tracer.engine.virtualMachine.stage2)
    var state = first
    for stop in tracer.stops { state.apply(stop) }
    #expect(state.allEntries == last, "\(path)")
    #expect(tracer.state.allEntries == last)
    for stop in tracer.stops.reversed() { state.revert(stop) }
    #expect(state.allEntries == firstEntries, "\(path)")
    for (index, stop) in tracer.stops.enumerated() {
      guard case .violation = stop.kind else { continue }
      guard case .event(.hook(.byteWritten)) = tracer.stops[index + 1].kind else {
        Issue.record("\(path): \(stop), which is not the hook's")
        continue
      }
    }
  }

  /// With the calls of functions, the other stops are the same. Each function that a version calls is in KernelNames as one of that
  /// version.
  @Test(arguments: KernelVersion.allCases)
  func callsOfAVersion(_ version: KernelVersion) throws {
    let article = try String(
      contentsOf: Self.recordings.deletingLastPathComponent().deletingLastPathComponent().appending(
        path: "Sources/Stage2Sim/Stage2Sim.docc/KernelNames.md"), encoding: .utf8)
    var seen: Set<KernelFunction> = []
    for path in Self.paths where path.hasPrefix("\(version.rawValue)/") {
      let recording = try Self.recording(path)
      let (plain, calling) = try (StepTracer(recording.machine), StepTracer(recording.machine))
      calling.recordsCalls = true
      for (_, step) in recording.steps {
        try plain.perform(step)
        try calling.perform(step)
        var others: [TracedEvent.Kind] = []
        for stop in calling.takeStops() {
          #expect(stop.depth >= 0, "\(path): \(stop)")
          if case .call(let function) = stop.kind {
            seen.insert(function)
          } else {
            others.append(stop.kind)
          }
        }
        #expect(others == plain.takeStops().map(\.kind), "\(path): \(step)")
      }
    }
    #expect(seen.count >= 12)
    for function in seen {
      let row = try #require(
        article.split(separator: "\n").first { $0.hasPrefix("| `\(function.rawValue)` |") },
        "\(function.rawValue) is not in KernelNames.md")
      let isOfVersion =
        row.hasSuffix(" all |")
        || row.split(separator: "|").last?.contains(version.rawValue) == true
      #expect(isOfVersion, "\(version.rawValue): \(row)")
    }
  }

  /// The order of a block that is split: the block is broken, its TLB entry is invalidated, and only then the table is there.
  @Test func writesAreInTheOrderOfTheKernel() throws {
    let machine = try MachineDescription(
      parsing: "machine cpu=cortex-a76 backing=huge memory=64M")
    let tracer = try StepTracer(machine)
    try tracer.perform(try Step(parsing: "guest str w0,[0x40000000] x0=0x1"))
    let stops = tracer.stops.count
    try tracer.perform(try Step(parsing: "host dirty-log on"))
    try tracer.perform(try Step(parsing: "guest str w0,[0x40000000] x0=0x1"))
    let lines = tracer.stops[stops...].map(\.description)
    let broken = try #require(
      lines.firstIndex {
        $0.hasPrefix("write") && $0.contains("level 2") && $0.hasSuffix("-> 0000000000000000")
      },
      "\(lines.joined(separator: "\n"))")
    #expect(lines[broken - 1].hasPrefix("visit      LEAF level 2"))
    #expect(lines[broken + 1] == "tlbi       0x40000000, level 2, all CPUs")
    #expect(lines[broken + 2].hasPrefix("write      level 2"))
    #expect(lines[broken + 3].hasPrefix("visit      LEAF level 3"))
  }

  /// The machine does not keep its tracer, which keeps the machine.
  @Test func tracerIsReleased() throws {
    weak var released: StepTracer?
    do {
      let tracer = try StepTracer(
        try MachineDescription(parsing: "machine cpu=cortex-a76 backing=anonymous memory=64M"))
      try tracer.perform(try Step(parsing: "guest str w0,[0x40000000] x0=0x1"))
      try tracer.perform(try Step(parsing: "host madvise dontneed 0x40000000 0x1000"))
      released = tracer
    }
    #expect(released == nil)
  }

  /// A walk of much memory has more events than are kept. The rest is counted, and no write is lost.
  @Test func longStepIsCutOff() throws {
    let machine = try MachineDescription(
      parsing: "machine cpu=cortex-a76 backing=anonymous memory=1024M")
    let tracer = try StepTracer(machine)
    try tracer.perform(try Step(parsing: "guest str w0,[0x40000000] x0=0x1"))
    try tracer.perform(try Step(parsing: "host munmap 0x40000000 0x40000000"))
    #expect(
      tracer.state.allEntries == Self.entries(of: tracer.engine.virtualMachine.stage2))
    #expect(tracer.stops.count < 2 * StepTracer.mostStops)
  }
}

/// Tests of the checker of break-before-make.
@Suite struct BreakBeforeMakeTests {
  private static let page: UInt64 = 0x7ff
  private static let address: IntermediatePhysicalAddress = 0x4000_0000

  /// A table with one page, its checker, and the address of the page's entry.
  private static func table() throws -> (BreakBeforeMake, PhysicalAddress, Stage2Descriptor) {
    var table = Stage2PageTable()
    try table.map(
      address: address, size: 0x1000, physical: 0x2_0000_0000, protection: [.read, .write])
    let leaf = try #require(table.path(to: address).last)
    return (BreakBeforeMake(of: table), leaf.table + UInt64(leaf.index) << 3, leaf.descriptor)
  }

  private static func write(
    _ entry: PhysicalAddress, _ old: UInt64, _ new: UInt64
  ) -> EntryWrite {
    EntryWrite(
      address: entry, level: 3, old: Stage2Descriptor(rawValue: old),
      new: Stage2Descriptor(rawValue: new))
  }

  @Test func changesInPlace() throws {
    let bits: [(UInt64, allowed: Bool)] = [
      (1 << 10, true), (1 << 7, true), (1 << 54, true), (1 << 53, true), (1 << 51, true),
      (1 << 55, true), (1 << 58, true), (1 << 52, false), (1 << 12, false), (1 << 2, false),
      (1 << 8, false),
    ]
    for (bit, allowed) in bits {
      var (checker, entry, old) = try Self.table()
      let violation = checker.note(Self.write(entry, old.rawValue, old.rawValue ^ bit))
      #expect(violation?.rule == (allowed ? nil : .changedInPlace), "bit \(bit)")
    }
  }

  /// An entry that was broken becomes another one: only after an invalidation of its TLB entries on all CPUs.
  @Test(arguments: [
    (MachineEvent.invalidation(ipa: 0x4000_0000, level: 3), true),
    (.invalidation(ipa: 0x4000_0000, level: 0), true), (.invalidationOfAll, true),
    (.invalidationOfRange(ipa: 0x3fff_f000, pages: 2), true),
    (.invalidation(ipa: 0x4000_1000, level: 3), false),
    (.invalidation(ipa: 0x4000_0000, level: 2), false),
    (.localInvalidation(ipa: 0x4000_0000, level: 3), false),
    (.invalidationOfRange(ipa: 0x4000_1000, pages: 2), false),
  ])
  func invalidation(event: MachineEvent, isEnough: Bool) throws {
    var (checker, entry, old) = try Self.table()
    #expect(checker.note(Self.write(entry, old.rawValue, 0)) == nil)
    checker.note(event)
    let violation = checker.note(Self.write(entry, 0, old.rawValue + 0x1000))
    #expect(violation?.rule == (isEnough ? nil : .madeWithoutInvalidation))
  }

  /// The same mapping may come back without an invalidation, and a table that no entry points to needs none.
  @Test func writesWithoutAReason() throws {
    var (checker, entry, old) = try Self.table()
    _ = checker.note(Self.write(entry, old.rawValue, 0))
    #expect(checker.note(Self.write(entry, 0, old.rawValue)) == nil)
    let elsewhere = entry + 0x10_0000
    #expect(checker.note(Self.write(elsewhere, 0, old.rawValue)) == nil)
    #expect(checker.note(Self.write(elsewhere, old.rawValue, old.rawValue + 0x1000)) == nil)
  }
}

/// Tests of the log for casemate.
@Suite struct CasemateLogTests {
  private static func log(_ machine: String, _ steps: [String]) throws -> [String] {
    let tracer = try StepTracer(try MachineDescription(parsing: machine))
    var log = try #require(CasemateLog(of: tracer.engine.virtualMachine.stage2))
    for (index, step) in steps.enumerated() {
      let first = tracer.stops.count
      try tracer.perform(try Step(parsing: step))
      log.append(tracer.stops[first...], file: "a \"(b)\".txt", line: index + 2)
    }
    return log.takeText().split(separator: "\n").map(String.init)
  }

  /// Each line has the form of the format's description, the numbers go up by one, and each page is there before it is written.
  @Test(arguments: ["ipa=40", "ipa=44"])
  func linesAreInTheFormat(ipa: String) throws {
    let lines = try Self.log(
      "machine cpu=cortex-a72 backing=anonymous memory=64M \(ipa)",
      [
        "guest str w0,[0x40000000] x0=0x1", "host madvise dontneed 0x40000000 0x1000",
        "guest ldr w0,[0x40000000]",
      ])
    let form = try Regex(
      #"\((mem-init|mem-write|hint|sysreg-write|lock|unlock|barrier|tlbi) \(id (\d+)\) \(tid 0\) .*\(src "[a-z]+:[A-Za-z0-9/._-]+:\d+"\)\)"#
    )
    var pages: Set<UInt64> = []
    for (number, line) in lines.enumerated() {
      let match = try #require(try form.wholeMatch(in: line), "\(line)")
      #expect(match[2].substring == "\(number)")
      let address = line.firstMatch(of: /\(address ([0-9a-f]+)\)/).flatMap {
        UInt64($0.1, radix: 16)
      }
      switch match[1].substring {
      case "mem-init": pages.insert(try #require(address))
      case "mem-write":
        #expect(pages.contains(try #require(address) & ~0xfff), "\(line)")
      default: break
      }
    }
    let broken = try #require(
      lines.lastIndex { $0.contains("mem-write") && $0.contains("(value 0)") })
    #expect(lines[broken + 1].contains("dsb (kind ishst)"))
    #expect(lines[broken + 2].contains("tlbi"))
    #expect(lines.contains { $0.contains("ipas2e1is (value 700000040000)") })
  }

  @Test(arguments: ["granule=16K", "granule=64K", "ipa=32"])
  func machinesWithoutALog(word: String) throws {
    let machine = try MachineDescription(
      parsing: "machine cpu=max backing=anonymous memory=64M \(word)")
    #expect(CasemateLog(of: try StepTracer(machine).engine.virtualMachine.stage2) == nil)
  }
}
