import Foundation
import Testing

@testable import Stage2Sim

/// Recordings of the real kernel (docs/scenario.md), run on the model: every line below every step has to come out the
/// same.
@Suite struct RecordingTests {
  /// The recordings in which the host does nothing to the guest's memory but write to it.
  @Test(arguments: [
    "bytes-a72-page", "bytes-a72-huge", "bytes-a76-page", "bytes-a76-huge",
  ])
  func wholeRecording(name: String) throws {
    let recording = try Recording(name)
    #expect(recording.steps.count >= 1500)
    try compare(recording.steps, of: recording)
  }

  /// The first things that were found out, up to the first event of the host that the model does not have.
  @Test(arguments: [
    "facts-a72-page", "facts-a72-huge", "facts-a76-page", "facts-a76-huge",
  ])
  func recordingUpToTheFirstEventOfTheHost(name: String) throws {
    let recording = try Recording(name)
    let steps = recording.steps.prefix { !$0.line.hasPrefix("host madvise") }
    #expect(steps.count >= 65)
    try compare(Array(steps), of: recording)
  }

  private func compare(_ steps: [Recording.Step], of recording: Recording) throws {
    var player = try Player(recording.machine)
    for (number, step) in steps.enumerated() {
      let observed = try player.play(step.line)
      guard observed == step.observations else {
        Issue.record(
          """
          \(recording.name), step \(number + 1): \(step.line)
          kernel:
          \(step.observations.joined(separator: "\n"))
          model:
          \(observed.joined(separator: "\n"))
          """)
        return
      }
    }
  }
}

/// A recording, taken apart.
private struct Recording {
  struct Step {
    let line: String
    var observations: [String] = []
  }

  let name: String
  /// The words of the machine line.
  let machine: [String: String]
  let steps: [Step]

  init(_ name: String) throws {
    self.name = name
    let file = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .appending(path: "Recordings/\(name).txt")
    var machine: [String: String] = [:]
    var steps: [Step] = []
    for line in try String(contentsOf: file, encoding: .utf8).split(separator: "\n") {
      if line.hasPrefix("  ") {
        steps[steps.count - 1].observations.append(String(line.dropFirst(2)))
      } else if line.hasPrefix("machine ") {
        for word in line.split(separator: " ").dropFirst() {
          let pair = word.split(separator: "=")
          machine[String(pair[0])] = String(pair[1])
        }
      } else if !line.hasPrefix("#") {
        steps.append(Step(line: String(line)))
      }
    }
    self.machine = machine
    self.steps = steps
  }
}

/// The recorder's virtual machine monitor, on the model.
private struct Player {
  private static let target = HideSeek.target
  private static let codeSlot: UInt64 = 0x8000_0000
  /// Where the store goes that ends a step.
  private static let left: UInt64 = 0x0c00_0000
  /// STR XZR, [X9]: that store.
  private static let leave: UInt64 = 0xf900_013f

  private var machine: VirtualMachine
  private let code: UInt64
  private let trace = Trace()
  private var letters: [UInt64: Character] = [:]

  init(_ words: [String: String]) throws {
    let cpu = try #require(CPUModel(rawValue: words["cpu"] ?? "cortex-a76"))
    let backings = ["anonymous": Backing.anonymous, "huge": .huge]
    let backing = try #require(backings[words["backing"] ?? "anonymous"])
    let memory = try #require(UInt64((words["memory"] ?? "64M").dropLast()))
    machine = try VirtualMachine(.init(cpu: cpu, backing: backing, memorySize: memory << 20))
    machine.register(HideSeek(), at: HideSeek.regions)
    machine.slots.append(
      MemorySlot(ipa: Self.codeSlot, size: 0x1000, userspaceAddress: 0x7e00_0000_0000))
    code = try words["code"].map { try Self.number($0) } ?? Self.codeSlot
    machine.observer = trace
  }

  private static func number(_ text: some StringProtocol) throws -> UInt64 {
    try #require(
      text.hasPrefix("0x") ? UInt64(text.dropFirst(2), radix: 16) : UInt64(text), "\(text)")
  }

  /// Does what `line` says; what a recording has below it.
  mutating func play(_ line: String) throws -> [String] {
    var words = line.split(separator: " ").map(String.init)
    var x0: UInt64 = 0
    if let last = words.last, last.hasPrefix("x0=") {
      x0 = try Self.number(last.dropFirst(3))
      words.removeLast()
    }
    trace.events = []
    let targetBefore = describeLeaf(Self.target)
    switch words.prefix(2) {
    case ["host", "write"]:
      machine.vmmStore(try Self.number(words[3]), to: try Self.number(words[2]), count: 4)
      return ["result 0"] + describeTrace(isHung: false) + [
        leafLine(Self.target, before: targetBefore)
      ]
    case ["guest", "fetch"]:
      let address = try Self.number(words[2])
      return observe(touching: address, targetBefore: targetBefore) {
        $0.guest(nil, at: address, x0: x0)
      }
    default:
      let (access, address) = try Self.parse(words.dropFirst().joined(separator: " "))
      return observe(touching: address, targetBefore: targetBefore) {
        // The recorder writes each instruction into guest memory, which may be what its slot has no page for yet.
        $0.machine.vmmStore(Self.leave, to: $0.code + 4, count: 4)
        return $0.guest(access, of: address, at: $0.code, x0: x0)
      }
    }
  }

  private mutating func observe(
    touching address: UInt64, targetBefore: String,
    _ step: (inout Player) -> String
  ) -> [String] {
    let before = describeLeaf(address)
    let run = step(&self)
    var lines = [run] + describeTrace(isHung: run.hasPrefix("run hung"))
    lines.append(leafLine(Self.target, before: targetBefore))
    if address & ~0xfff != Self.target { lines.append(leafLine(address, before: before)) }
    return lines
  }

  /// Runs one instruction, and the store behind it that leaves the guest; of a fetch only that store, at its address.
  private mutating func guest(
    _ access: LoadStore?, of target: UInt64 = 0, at address: UInt64, x0: UInt64
  ) -> String {
    machine.setRegister(0, to: x0)
    var result = RunResult.retired
    var next = address
    if let access {
      result = machine.run(.access(access, address: target), at: address)
      next += 4
    }
    guard result == .retired else { return "run \(describe(result, start: address))" }
    let store = LoadStore.store(.doubleword, from: 31)
    let end = machine.run(.access(store, address: Self.left), at: next)
    guard case .mmio = end else { return "run \(describe(end, start: address))" }
    let line = "run \(describe(.retired, start: address))"
    machine.completeMMIO()
    return line
  }

  private mutating func describe(_ result: RunResult, start: UInt64) -> String {
    let state = "pc +\(machine.vcpu.pc - start) x0 0x\(hexadecimal(machine.vcpu[0]))"
    switch result {
    case .retired: return "retired \(state)"
    case .failed(let error): return "error \(error) \(state)"
    case .livelock: return "hung \(state)"
    case .guestException: return "exception"
    case .mmio(let mmio):
      let kind = mmio.isWrite ? "write" : "read"
      var line = "mmio \(kind) 0x\(hexadecimal(mmio.address)) len \(mmio.length)"
      if mmio.isWrite { line += " data 0x\(hexadecimal(mmio.data))" }
      line += " \(state)"
      // What the recorder answers to a read.
      machine.completeMMIO(data: 0x8887_8685_8483_8281)
      if !mmio.isWrite { line += " then 0x\(hexadecimal(machine.vcpu[0]))" }
      return line
    }
  }

  /// The events since the step began, each once where the guest hung, and none of the store that ends a step.
  private func describeTrace(isHung: Bool) -> [String] {
    var lines: [String] = []
    for event in trace.events {
      switch event {
      case .abort(let fault) where fault.ipa == Self.left: continue
      case .abort(let fault):
        lines.append(
          "abort esr=\(hexadecimal(fault.syndrome.rawValue, digits: 8)) far=\(hexadecimal(fault.far, digits: 16)) hpfar=\(hexadecimal(fault.hpfar, digits: 10))"
        )
      case .invalidation(let ipa, let level):
        lines.append("tlbi ipa=\(hexadecimal(ipa, digits: 10)) level=\(level)")
      case .invalidationOfAll: lines.append("tlbi all")
      case .dataCacheClean, .instructionCacheInvalidation: continue
      // The trace of the real kernel has what the hook logs.
      case .log(.dataAbortWithoutSyndrome): continue
      case .log(let message): lines.append("log \(message)")
      }
    }
    guard isHung else { return lines }
    var seen: Set<String> = []
    return lines.filter { seen.insert($0).inserted }
  }

  /// The leaf as a recording has it: its frame is a letter, in the order of first appearance.
  private mutating func describeLeaf(_ address: UInt64) -> String {
    guard let leaf = try? machine.leaf(for: address) else { return "" }
    let frame = leaf.descriptor.outputAddress(.kib4)
    let digits = hexadecimal(
      leaf.descriptor.rawValue & ~Granule.kib4.addressMask, digits: 16)
    var text = "level \(leaf.level) \(digits)"
    if frame != 0 {
      if letters[frame] == nil {
        letters[frame] = Character(UnicodeScalar(UInt8(ascii: "A") + UInt8(letters.count)))
      }
      text += " @\(letters[frame]!)"
    }
    let counts = machine.stage2.referenceCounts(for: address).map(String.init)
    return "\(text) counts \(counts.joined(separator: " "))"
  }

  private mutating func leafLine(_ address: UInt64, before: String) -> String {
    let after = describeLeaf(address)
    let change = before == after ? before : "\(before) -> \(after)"
    return "leaf 0x\(hexadecimal(address)) \(change)"
  }

  /// An instruction as the language writes it, and the address in its brackets.
  private static func parse(_ text: String) throws -> (LoadStore, UInt64) {
    let match = try #require(
      text.wholeMatch(of: /([a-z]+) ([wx])(0|zr)(,w2)?,\[(0x[0-9a-f]+)\](,#1)?/), "\(text)")
    let (_, name, width, register, second, address, increment) = match.output
    let isWide = width == "x"
    let sizes: [Character: LoadStore.Size] = ["b": .byte, "h": .halfword]
    var form = LoadStore.Form.register
    if second != nil { form = .pair(second: 2) }
    if increment != nil { form = .writeBack(base: 1, increment: 1) }
    let access = LoadStore(
      isStore: name.hasPrefix("st"), size: sizes[name.last!] ?? (isWide ? .doubleword : .word),
      register: register == "zr" ? 31 : 0, isSignExtending: name.hasPrefix("ldrs"),
      is64Bit: isWide, isAcquireRelease: name.hasPrefix("stl"), form: form)
    return (access, try number(address))
  }
}
