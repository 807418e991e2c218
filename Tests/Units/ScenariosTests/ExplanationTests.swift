import Foundation
import Stage2Sim
import Testing
import VirtWalkerDevice

@testable import Scenarios

/// Tests that compare explanations with the recordings of the real kernel.
@Suite struct ExplanationTests {
  private static let machines = CPUModel.allCases.flatMap { cpu in
    Backing.allCases.map { (cpu: cpu, backing: $0) }
  }

  private static let target: IntermediatePhysicalAddress = 0x4000_0000

  /// The explained machine is the machine that the daemon serves.
  @Test(arguments: machines)
  func machineIsBooted(cpu: CPUModel, backing: Backing) throws {
    let explained = try Explainer(cpu: cpu, backing: backing).explain(0x5a, events: [])
    let booted = try VirtualMachine.booted(
      .init(cpu: cpu, backing: backing))
    let leaf = try booted.leaf(for: Self.target)
    let frames = booted.configuration.granule.addressMask
    #expect(explained.before.level == leaf.level)
    #expect(
      explained.before.descriptor.rawValue & ~frames == leaf.descriptor.rawValue & ~frames)
    #expect(
      explained.after.descriptor.rawValue
        == explained.before.descriptor.rawValue | 0x5a << 51)
    #expect(explained.changedBits.map(\.number) == [1, 3, 4, 6])
  }

  /// The steps of an event on a machine of its own show what the explanation tells.
  @Test(arguments: [ExplainedEvent.load, .execute], [0x04, 0x08, 0x5a] as [UInt8])
  func stepsShowTheOutcome(event: ExplainedEvent, byte: UInt8) throws {
    let machine = Explainer.machine(cpu: .cortexA76, backing: .anonymous)
    let explainer = Explainer(on: try ModelEngine(machine))
    let outcome = try #require(try explainer.explain(byte, events: [event]).outcomes.first)
    let engine = try ModelEngine(machine)
    let seen = try explainer.steps(of: event, hiding: byte).map { try engine.perform($0) }
    func register(_ observations: [Observation]) -> UInt64? {
      for case .run(let run) in observations { return run.x0 }
      return nil
    }
    #expect(register(seen[seen.count - 3]) == UInt64(outcome.seek))
    #expect(register(seen[seen.count - 1]) == UInt64(outcome.seekAfterLoad))
  }

  /// Explanations work with other granules and other IPA sizes. The events use pages of the granule, and no event is
  /// refused that is not refused with 4K.
  @Test(arguments: [Granule.kib16, .kib64], Backing.allCases)
  func otherGranules(granule: Granule, backing: Backing) throws {
    let explainer = try Explainer(cpu: .max, backing: backing, granule: granule, ipaBits: 36)
    let booted = try VirtualMachine.booted(
      .init(
        cpu: .max, granule: granule, ipaBits: 36, backing: backing,
        memorySize: explainer.machine.configuration.memorySize))
    let frames = granule.addressMask
    let explained = try explainer.explain(0x06)
    let leaf = try booted.leaf(for: Self.target)
    #expect(explained.before.level == leaf.level)
    #expect(
      explained.before.descriptor.rawValue & ~frames == leaf.descriptor.rawValue & ~frames)
    let usual = try Explainer(cpu: .max, backing: backing).explain(0x06)
    #expect(explained.outcomes.map(\.event.name) == usual.outcomes.map(\.event.name))
    for (outcome, usual) in zip(explained.outcomes, usual.outcomes) {
      // A huge page has 512 MiB. The pool of hugetlb has one such page, which a fork would share, and no other memory
      // contains a whole one.
      let isTooLarge = granule == .kib64 && ["fork-write", "collapse"].contains(outcome.event.name)
      if !isTooLarge { #expect(outcome.refusal == usual.refusal, "\(outcome.event.name)") }
      #expect(outcome.event.recording(for: explainer.machine) == nil)
    }
    #expect(explained.invalidEntry.warnings.count == 1)
  }

  /// Compares each byte with the recordings that have all bytes: the fates after load, store and fetch.
  @Test func everyByteIsAsRecorded() throws {
    var bytes: [String: Int] = [:]
    for (name, recording) in try committedRecordings() where name.hasPrefix("bytes-") {
      let explainer = try Explainer(
        cpu: recording.machine.configuration.cpu, backing: recording.machine.configuration.backing)
      for (index, hide) in recording.steps.enumerated() {
        guard let byte = hide.step.hiddenByte else { continue }
        let steps = recording.steps[index...].prefix(6).map { $0 }
        let accesses = steps[2...4].map(\.step)
        try #require(accesses == ExplainedEvent.accesses.flatMap(\.steps))
        let explained = try explainer.explain(byte, events: ExplainedEvent.accesses)
        let fates = explained.outcomes.map(\.fate)
        // The recordings have no SEEK between the accesses, but they show the entry.
        for (outcome, seen) in zip(explained.outcomes, steps[2...4]) {
          #expect(outcome.isHung == seen.line.isHung, "\(name): \(hex(UInt64(byte)))")
          #expect(
            (outcome.fate == .kept) == (try seen.line.targetChange == nil),
            "\(name): \(hex(UInt64(byte)))")
          #expect(
            outcome.warnings.contains { if case .livelock = $0 { true } else { false } }
              == seen.line.isHung)
          #expect(outcome.event.recording(for: recording.machine) == name)
        }
        #expect(fates[2] != .lost)
        #expect(explained.outcomes[2].seek == steps[5].line.soughtByte, "\(name)")
        bytes[name, default: 0] += 1
      }
    }
    #expect(bytes.count == 6)
    #expect(bytes.filter { !$0.key.contains("max") }.values.allSatisfy { $0 == 256 })
  }

  /// A hide into a live entry: the kernel's trace has the old and the new entry, and no invalidation.
  @Test func warningsAreOfTheRecordedChange() throws {
    var changes = 0
    for (name, recording) in try committedRecordings() where name.hasPrefix("bytes-") {
      let engine = try recording.engine()
      for (line, step) in recording.steps {
        let first = engine.events.end
        try engine.perform(step)
        guard step.hiddenByte != nil else { continue }
        #expect(!line.observations.contains { $0.hasPrefix("tlbi") }, "\(name)")
        let change = try line.targetChange
        let changed = change.map { $0.before.digits ^ $0.after.digits } ?? 0
        let permissions =
          Stage2Descriptor.executeNever
          | (recording.machine.configuration.cpu.hasXNX ? Stage2Descriptor.executeNever0 : 0)
        var warned: [String] = []
        engine.events.ring.forEach(from: first) { entry in
          guard case .warning(let warning) = entry.event else { return }
          switch warning {
          case .breakBeforeMake: warned.append("bbm")
          case .staleTLB: warned.append("tlb")
          case .missingReference, .leakedReference, .livelock: warned.append("\(warning)")
          }
        }
        var expected: [String] = []
        if changed & Stage2Descriptor.contiguous != 0 { expected.append("bbm") }
        if changed & permissions != 0 { expected.append("tlb") }
        #expect(warned == expected, "\(name):\(line.number)")
        changes += 1
      }
    }
    #expect(changes >= 4 * 256)
  }

  /// The recording of each event has the steps of the explanation, and the fate of the byte is the same.
  @Test(arguments: machines)
  func eventIsAsRecorded(cpu: CPUModel, backing: Backing) throws {
    let explainer = try Explainer(cpu: cpu, backing: backing)
    for event in ExplainedEvent.all(on: explainer.machine)
    where !ExplainedEvent.accesses.contains(event) {
      let name = try #require(event.recording(for: explainer.machine))
      let recording = try Self.recording(name, of: backing)
      // Only events in which the guest executes depend on the CPU.
      #expect(
        event.name != "execute-neighbour" || recording.machine.configuration.cpu == cpu, "\(name)")
      let steps = recording.steps
      let hide = Explainer.boot.count + event.preparation.count
      let byte = try #require(steps[hide].step.hiddenByte, "\(name)")
      let end = hide + 1 + event.steps.count
      #expect(Array(steps[..<hide].map(\.step)) == Explainer.boot + event.preparation, "\(name)")
      #expect(Array(steps[(hide + 1)..<end].map(\.step)) == event.steps, "\(name)")
      try #require(steps.count == end + 3 && steps[end].step.isSeek && steps[end + 2].step.isSeek)
      #expect(steps[end + 1].step == ExplainedEvent.load.steps[0])

      let outcome = try explainer.explain(byte, events: [event]).outcomes[0]
      let seen = steps[(hide + 1)..<end].map(\.line)
      #expect(outcome.isHung == seen.contains(where: \.isHung), "\(name)")
      #expect(
        outcome.warnings.contains { if case .livelock = $0 { true } else { false } }
          == outcome.isHung, "\(name)")
      #expect(outcome.refusal == steps[..<end].compactMap(\.line.refusal).first, "\(name)")
      #expect(outcome.seek == steps[end].line.soughtByte, "\(name)")
      #expect(outcome.seekAfterLoad == steps[end + 2].line.soughtByte, "\(name)")
      let isRemapped = try seen.contains {
        try $0.targetChange.map { $0.before.mapping != $0.after.mapping } ?? false
      }
      let fate: EventOutcome.Fate =
        isRemapped ? .lost : outcome.seek == byte ? .kept : .changed
      #expect(outcome.fate == fate, "\(name)")
    }
  }

  /// The guest also hangs in the next page if the entry is a block and the CPU has FEAT_XNX.
  @Test(arguments: machines)
  func codeInTheNextPage(cpu: CPUModel, backing: Backing) throws {
    let outcome = try Explainer(cpu: cpu, backing: backing).explain(
      0x04, events: [.executeNeighbour(.kib4)]
    ).outcomes[0]
    #expect(
      outcome.isHung == (cpu.hasXNX && [.huge, .hugetlb].contains(backing)))
  }

  /// A hide into an entry that maps nothing: compares the entry, and the count of its table after the next load.
  @Test(arguments: machines)
  func invalidEntryIsAsRecorded(cpu: CPUModel, backing: Backing) throws {
    let explainer = try Explainer(cpu: cpu, backing: backing)
    let name = try #require(
      Explanation.invalidEntryRecording(for: explainer.machine))
    let recording = try Self.recording(name, of: backing)
    let before = Explainer.boot + Explainer.invalidation(on: explainer.machine)
    #expect(recording.steps.map(\.step).starts(with: before))
    try #require(recording.steps.count == before.count + 4)
    let hide = recording.steps[before.count]
    let load = recording.steps[before.count + 2]
    #expect(load.step == ExplainedEvent.load.steps[0])

    let byte = try #require(hide.step.hiddenByte)
    let change = try #require(try hide.line.targetChange)
    let outcome = try explainer.explain(byte, events: []).invalidEntry
    #expect(outcome.before.descriptor.rawValue == change.before.digits)
    #expect(outcome.before.level == change.before.level)
    #expect(outcome.hidden.descriptor.rawValue == change.after.digits)
    let mapped = try #require(try load.line.targetChange).after
    #expect(outcome.mapped.level == mapped.level)
    // With 40 bits, the start level is 1.
    #expect(outcome.references?.count == mapped.counts[change.before.level - 1])
    for byte in [0, 1, byte, 0xff] {
      let outcome = try explainer.explain(byte, events: []).invalidEntry
      let isWrong = byte != 0
      #expect(
        outcome.warnings.contains { if case .missingReference = $0 { true } else { false } }
          == isWrong)
      let references = try #require(outcome.references)
      #expect(references.needed == references.count + (isWrong ? 1 : 0))
    }
  }

  /// - Returns: The recording. Its machine is the explained machine, except for the CPU and the size of the memory.
  private static func recording(_ name: String, of backing: Backing) throws -> Recording {
    let recording = try #require(
      try committedRecordings().first { $0.name == name }?.recording, "no \(name)")
    var machine = MachineDescription()
    machine.configuration.cpu = recording.machine.configuration.cpu
    machine.configuration.backing = backing
    #expect(recording.machine == machine, "\(name)")
    return recording
  }

  /// Without FEAT_XNX, XN[0] is RES0.
  @Test(arguments: machines.filter { [.anonymous, .huge].contains($0.backing) })
  func harmlessBytes(cpu: CPUModel, backing: Backing) throws {
    let explainer = try Explainer(cpu: cpu, backing: backing)
    let harmful: UInt8 = cpu.hasXNX ? 0x0e : 0x0a
    for byte in 0...UInt8.max {
      let explained = try explainer.explain(byte, events: ExplainedEvent.accesses)
      #expect(explained.isHarmless == (byte & harmful == 0), "\(hex(UInt64(byte)))")
    }
  }

  /// A hook with other registers than HIDE and SEEK, of which it tells the engine.
  private struct OtherRegisters: HidingHook {
    let registers = HidingRegisters(hide: 0x0c10_0008, seek: 0x0c20_0003)

    mutating func ioMemAbort(
      _ access: MMIOAccess, vcpu: inout VCPU, kvm: inout KVM
    ) throws(KernelError) -> MMIOHookResult {
      switch (access.address, access.isWrite) {
      case (registers.hide, true):
        let byte = UInt8(truncatingIfNeeded: vcpu[access.register])
        try HideSeek.walk(hiding: byte, in: &kvm.stage2)
      case (registers.seek, false):
        vcpu[access.register] = UInt64(try HideSeek.walk(hiding: nil, in: &kvm.stage2))
      default: return .notHandled
      }
      vcpu.incrementPC()
      return .handled
    }
  }

  /// The effects of a byte do not depend on the addresses of the registers.
  @Test(arguments: [0x00, 0x06, 0xff] as [UInt8])
  func registersAreTheHooks(byte: UInt8) throws {
    let machine = Explainer.machine(cpu: .cortexA76, backing: .anonymous)
    let explained = try Explainer(on: ModelEngine(machine, hooks: [OtherRegisters()])).explain(byte)
    #expect(try explained == Explainer(cpu: .cortexA76, backing: .anonymous).explain(byte))
  }

  @Test func thereIsNothingToExplainWithoutRegisters() throws {
    let engine = try ModelEngine(MachineDescription(), hooks: [])
    #expect(throws: EngineFailure.self) { try Explainer(on: engine).explain(0x06) }
  }

  @Test func textsFitTheirColumns() {
    for event in ExplainedEvent.all(on: MachineDescription()) { #expect(event.title.count <= 33) }
    for (cpu, bit) in CPUModel.allCases.flatMap({ cpu in HiddenBit.allCases.map { (cpu, $0) } }) {
      #expect(bit.meaning(on: .init(cpu: cpu)).count <= 67)
    }
    #expect(HiddenBit.allCases.map(\.entryBit) == Array(51...58))
  }
}

// MARK: - Facts from recordings

extension Step {
  fileprivate var isSeek: Bool {
    guard case .guest(.instruction(let instruction, let address, _)) = self else { return false }
    return instruction.mnemonic == "ldrb" && address == .init(flat: HideSeek.seekAddress)
  }

  /// The byte that a store to HIDE hides.
  fileprivate var hiddenByte: UInt8? {
    guard case .guest(.instruction(let instruction, let address, let value)) = self,
      instruction == Instruction.all[0], address == .init(flat: HideSeek.hideAddress)
    else { return nil }
    return UInt8(truncatingIfNeeded: value)
  }

}

extension Recording.Line {
  fileprivate var isHung: Bool { observations.contains { $0.hasPrefix("run hung") } }

  fileprivate var refusal: String? {
    observations.first { $0.hasPrefix("result E") }.map { String($0.dropFirst(7)) }
  }

  /// The result of SEEK.
  fileprivate var soughtByte: UInt8? {
    guard let run = observations.first, run.hasPrefix("run retired pc +4 x0 0x") else {
      return nil
    }
    return UInt8(run.dropFirst(23), radix: 16)
  }

  fileprivate struct Entry {
    let level: Int
    let digits: UInt64
    /// The name of the output address.
    let letters: Substring?
    let counts: [Int]

    /// An entry from its text, such as `level 3 00c00000000007ff @A counts 3 1 1`; nil if the text has another form. A regular
    /// expression would take most of the time of the tests.
    init?(_ text: String) {
      var words = text.split(separator: " ")[...]
      guard words.popFirst() == "level", let level = words.popFirst().flatMap({ Int($0) }),
        let digits = words.popFirst().flatMap({ UInt64($0, radix: 16) })
      else { return nil }
      let letters = words.first?.first == "@" ? words.popFirst() : nil
      guard words.popFirst() == "counts", !words.isEmpty else { return nil }
      let counts = words.compactMap { Int($0) }
      guard counts.count == words.count else { return nil }
      (self.level, self.digits, self.letters, self.counts) = (level, digits, letters, counts)
    }

    /// The parts of the entry that describe its mapping.
    var mapping: [String] { ["\(level)", "\(digits & 1)", String(letters ?? "")] }
  }

  /// The entry of the target before and after the step; nil if the step does not change it.
  fileprivate var targetChange: (before: Entry, after: Entry)? {
    get throws {
      let head = "leaf 0x40000000 "
      let line = try #require(observations.first { $0.hasPrefix(head) })
      let entries = try line.dropFirst(head.count).components(separatedBy: " -> ").map {
        try #require(Entry($0), "\(line)")
      }
      return entries.count == 2 ? (entries[0], entries[1]) : nil
    }
  }
}
