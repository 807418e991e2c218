import Scenarios
import Stage2Sim

/// A scenario or recording that the command line names.
struct ScenarioText {
  private let input: TextInput
  /// The name in messages.
  var name: String { input.name }
  /// The machine of the first line, with the version of Linux that the command names.
  let machine: MachineDescription
  /// The number of steps.
  let stepCount: Int
  private let hasObservations: Bool

  /// - Parameters:
  ///   - path: The path of the file; `-` for standard input.
  ///   - kernel: The version of Linux; nil for that of the first line.
  init(_ path: String, _ kernel: KernelVersion?) throws {
    try self.init(TextInput(path, kind: "a scenario or a recording"), kernel)
  }

  init(_ input: TextInput, _ kernel: KernelVersion?) throws {
    self.input = input
    let bytes = try input.bytes(atMost: Scenario.maximumSize)
    var machine: MachineDescription
    (machine, stepCount, hasObservations) = try Self.parsing(bytes, input.name) { reader in
      while try reader.next(keepsObservations: false) != nil {}
      return (try reader.requireMachine(), reader.stepCount, reader.hasObservations)
    }
    if let kernel { machine.configuration.kernel = kernel }
    self.machine = machine
  }

  /// - Throws: ``Failure`` with the place of the error in the text.
  private static func parsing<Result>(
    _ bytes: [UInt8], _ name: String, _ parse: (inout RecordingReader) throws -> Result
  ) throws -> Result {
    guard bytes.count <= Scenario.maximumSize else {
      throw Failure(
        "\(name) is longer than \(Scenario.maximumSize >> 20) MiB: divide it into more scenarios",
        status: .dataError)
    }
    guard String(validating: bytes, as: UTF8.self) != nil else {
      throw Failure("\(name) is not UTF-8 text: give a scenario or a recording", status: .dataError)
    }
    do {
      var reader = try RecordingReader(bytes)
      return try parse(&reader)
    } catch let error as ScenarioError {
      throw Failure("\(name):\(error): docs/scenario.md describes the language", status: .dataError)
    }
  }

  /// Reads the text once more.
  func parsingAgain<Result>(
    _ parse: (inout RecordingReader) throws -> Result
  ) throws -> Result {
    try Self.parsing(try input.bytes(atMost: Scenario.maximumSize), name, parse)
  }

  /// - Throws: ``Failure`` if the text is no recording.
  func requireObservations() throws {
    guard hasObservations else {
      throw Failure(
        "\(name) has no observations to compare: it is a scenario; run it without --check",
        status: .dataError)
    }
  }

  /// The steps, each with the number of its line.
  func steps() throws -> [(line: Int, step: Step)] {
    try parsingAgain { reader in
      var steps: [(line: Int, step: Step)] = []
      while let line = try reader.next(keepsObservations: false) {
        if case .step(let step) = line.line.content { steps.append((line.number, step)) }
      }
      return steps
    }
  }
}
