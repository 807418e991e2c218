/// The machine of a scenario: the words of its line `machine …`.
struct Machine: CustomStringConvertible {
  var cpu: CPU
  var granule: String?
  var ipaBits: Int?
  var backing: Backing
  var memory = "64M"
  /// The address of the guest's code, if it is in RAM and not in a slot of its own.
  var code: UInt64?
  var dirtyLog: String?

  var description: String {
    var words = ["cpu=\(cpu.rawValue)"]
    if let granule { words.append("granule=\(granule)") }
    if let ipaBits { words.append("ipa=\(ipaBits)") }
    words += ["backing=\(backing)", "memory=\(memory)"]
    if let code { words.append("code=\(hex(code))") }
    if let dirtyLog { words.append("dirty-log=\(dirtyLog)") }
    return words.joined(separator: " ")
  }
}

enum CPU: String {
  case a72 = "cortex-a72"
  case a76 = "cortex-a76"
  case max

  /// The part of a scenario's name that says its CPU.
  var name: String { "\(self)" }
}

/// The memory of the VMM behind guest RAM.
enum Backing: String {
  case anonymous, huge, hugetlb, memfd, file

  /// KSM merges pages of anonymous areas, and the private mapping of a file has such pages. A file without them, or one of
  /// hugetlbfs, leaves KSM without anything to do, and a scenario would wait for it without end.
  var hasMergeablePages: Bool { self != .hugetlb && self != .memfd }
}

/// A scenario in the language of docs/scenario.md, and the name of its file.
///
/// The steps are lines of text: the recordings keep the numbers as they were first written, some of them decimal, some with zeros
/// in front, and a parsed step prints each number in one way.
struct ScenarioFile {
  let name: String
  let text: String

  init(
    _ name: String, _ purpose: String, on machine: Machine, @StepsBuilder steps: () -> [String]
  ) {
    self.init(name, purpose, on: machine, steps: steps())
  }

  init(_ name: String, _ purpose: String, on machine: Machine, steps: [String]) {
    self.name = name
    text = (["# \(purpose)", "machine \(machine)"] + steps).map { "\($0)\n" }.joined()
  }
}

/// Makes a list of lines of the statements in a block: a statement is a step or a list of steps.
@resultBuilder enum StepsBuilder {
  static func buildExpression(_ step: String) -> [String] { [step] }
  static func buildExpression(_ steps: [String]) -> [String] { steps }
  static func buildPartialBlock(first: [String]) -> [String] { first }
  static func buildPartialBlock(accumulated: [String], next: [String]) -> [String] {
    accumulated + next
  }
  static func buildArray(_ iterations: [[String]]) -> [String] { iterations.flatMap { $0 } }
}
