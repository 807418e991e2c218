import Foundation
import Stage2Sim
import Testing

/// Each step of the recordings of the real kernel, on the model: every column has to come out the same.
@Suite struct RecordedTests {
  @Test(arguments: CPUModel.allCases, Backing.allCases)
  func modelDoesWhatTheKernelDid(cpu: CPUModel, backing: Backing) throws {
    let steps = try Step.load("\(cpu.rawValue)-\(backing.rawValue)")
    try #require(steps.count == 69)
    var recorder = try Recorder(cpu: cpu, backing: backing)
    for (number, step) in steps.enumerated() {
      let observed = recorder.perform(step)
      #expect(observed == step.observed, "step \(number + 1): \(step.text)")
    }
  }
}

/// One line of a recording.
private struct Step {
  struct Observed: Equatable {
    var result: String
    var x0: UInt64
    /// Level and entry of IPA 0x40000000 after the hook; empty where it did not run.
    var leaf: String
  }

  let text: String
  let instruction: String
  let address: UInt64
  let x0: UInt64
  let observed: Observed

  static func load(_ name: String) throws -> [Step] {
    let url = try #require(
      Bundle.module.url(forResource: "Recorded/\(name)", withExtension: "txt"))
    return try String(contentsOf: url, encoding: .utf8).split(separator: "\n")
      .drop { $0.hasPrefix("#") }.dropFirst().map(Step.init)
  }

  init(_ line: Substring) throws {
    text = String(line)
    let fields = line.split(separator: " ").map(String.init)
    try #require(fields.count == 7)
    instruction = fields[0]
    address = try #require(UInt64(fields[1].dropFirst(2), radix: 16))
    x0 = try #require(UInt64(fields[2], radix: 16))
    observed = Observed(
      result: fields[3], x0: try #require(UInt64(fields[4], radix: 16)),
      leaf: fields[5] == "-" ? "" : "\(fields[5]) \(fields[6])")
  }

  var access: LoadStore {
    get throws {
      switch instruction {
      case "ldrb,w0": .load(.byte, to: 0)
      case "ldrh,w0": .load(.halfword, to: 0)
      case "ldr,w0": .load(.word, to: 0)
      case "ldrsb,w0": LoadStore(isStore: false, size: .byte, register: 0, isSignExtending: true)
      case "ldrsb,x0":
        LoadStore(
          isStore: false, size: .byte, register: 0, isSignExtending: true, is64Bit: true)
      case "ldp,w0":
        LoadStore(isStore: false, size: .word, register: 0, form: .pair(second: 1))
      case "strb,w0": .store(.byte, from: 0)
      case "strb,wzr": .store(.byte, from: 31)
      case "strh,w0": .store(.halfword, from: 0)
      case "str,w0": .store(.word, from: 0)
      case "str,x0": .store(.doubleword, from: 0)
      case "stlrb,w0":
        LoadStore(isStore: true, size: .byte, register: 0, isAcquireRelease: true)
      case "strb-post,w0":
        LoadStore(
          isStore: true, size: .byte, register: 0, form: .writeBack(base: 2, increment: 1))
      default: throw KernelError.invalidArgument
      }
    }
  }
}

/// The virtual machine monitor that made the recordings, on the model.
private struct Recorder {
  /// Where it puts the instruction of a step.
  static let code: UInt64 = 0x4000_1000
  /// STR XZR, [X2]: the store that exits, which ends each step.
  static let exitingStore: UInt64 = 0xf900_005f
  var machine: VirtualMachine

  init(cpu: CPUModel, backing: Backing) throws {
    machine = try VirtualMachine(
      .init(cpu: cpu, backing: backing, memorySize: 64 << 20))
    machine.register(HideSeek(), at: HideSeek.regions)
    machine.vmmStore(0, to: Self.code, count: 4)
  }

  mutating func perform(_ step: Step) -> Step.Observed {
    machine.setRegister(0, to: step.x0)
    var observed = Step.Observed(result: "", x0: 0, leaf: "")
    if step.instruction == "exec" {
      machine.vmmStore(Self.exitingStore, to: step.address, count: 4)
      observed.result = exit(at: step.address) ?? "retired"
    } else if let access = try? step.access {
      observed.result = run(access, step: step, leaf: &observed.leaf)
    } else {
      observed.result = "unknown instruction"
    }
    observed.x0 = machine.vcpu[0]
    return observed
  }

  private mutating func run(_ access: LoadStore, step: Step, leaf: inout String) -> String {
    let result = machine.run(.access(access, address: step.address), at: Self.code)
    switch result {
    case .retired:
      let isHook =
        step.address == HideSeek.hideAddress && access.isStore
        || step.address == HideSeek.seekAddress && !access.isStore
      if isHook { leaf = describeLeaf() }
      return exit(at: Self.code + 4).map { "retired,\($0)" } ?? "retired"
    case .mmio(let mmio):
      // The recorder looks at x0 before it lets the guest have what it read.
      let x0 = machine.vcpu[0]
      machine.completeMMIO()
      machine.setRegister(0, to: x0)
      return "mmio-\(mmio.isWrite ? "w" : "r")-\(String(mmio.address, radix: 16))-\(mmio.length)"
    case .failed(let error): return error.description
    case .livelock: return "livelock"
    case .guestException: return "exception"
    }
  }

  /// Runs the store that exits; nil where it did.
  private mutating func exit(at address: UInt64) -> String? {
    let store = LoadStore.store(.doubleword, from: 31)
    let result = machine.run(.access(store, address: 0x0c00_0000), at: address)
    guard case .mmio = result else { return result.isLivelock ? "livelock" : "\(result)" }
    machine.completeMMIO()
    return nil
  }

  private mutating func describeLeaf() -> String {
    guard let leaf = try? machine.leaf(for: HideSeek.target) else { return "none" }
    let attributes = leaf.descriptor.rawValue & ~Stage2Descriptor.outputAddressMask
    return "\(leaf.level) \(Stage2Descriptor(rawValue: attributes))"
  }
}

extension RunResult {
  fileprivate var isLivelock: Bool {
    if case .livelock = self { true } else { false }
  }
}
