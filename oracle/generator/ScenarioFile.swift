import Scenarios
import Stage2Sim

extension MachineDescription {
  /// A machine as most scenarios have it, with `memory` MiB.
  init(_ cpu: CPUModel, _ backing: Backing, memory: UInt64 = 64) {
    self.init(VirtualMachine.Configuration(cpu: cpu, backing: backing, memorySize: memory << 20))
  }
}

/// A scenario in the language of docs/scenario.md, and the name of its file.
///
/// The steps are lines of text. The recordings keep the numbers as they were first written, some of them decimal, some with
/// leading zeros, and a parsed step prints each number in one way.
struct ScenarioFile {
  let name: String
  let text: String

  init(
    _ name: String, _ purpose: String, on machine: MachineDescription,
    @StepsBuilder steps: () -> [String]
  ) {
    self.init(name, purpose, on: machine, steps: steps())
  }

  init(_ name: String, _ purpose: String, on machine: MachineDescription, steps: [String]) {
    self.init(name, purpose, machine: "\(machine)", steps: steps)
  }

  /// - Parameter machine: The line `machine …`.
  init(_ name: String, _ purpose: String, machine: String, steps: [String]) {
    self.name = name
    text = (["# \(purpose)", machine] + steps).map { "\($0)\n" }.joined()
  }
}

/// A builder of lists of lines from the statements of a block. A statement is a step or a list of steps.
@resultBuilder enum StepsBuilder {
  static func buildExpression(_ step: String) -> [String] { [step] }
  static func buildExpression(_ steps: [String]) -> [String] { steps }
  static func buildExpression(_ steps: [Step]) -> [String] { steps.map(\.description) }
  static func buildPartialBlock(first: [String]) -> [String] { first }
  static func buildPartialBlock(accumulated: [String], next: [String]) -> [String] {
    accumulated + next
  }
  static func buildArray(_ iterations: [[String]]) -> [String] { iterations.flatMap { $0 } }
}
