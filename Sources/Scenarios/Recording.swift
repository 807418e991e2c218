/// A scenario with the observations of each step (docs/scenario.md). A scenario alone is a recording without observations.
public struct Recording: Hashable, Sendable {
  /// A line of the scenario, with its observations.
  public struct Line: Hashable, Sendable {
    /// The number of the line in the text, from 1.
    public let number: Int
    /// The scenario's line.
    public let line: Scenario.Line
    /// The lines below a step, without the two spaces.
    public internal(set) var observations: [String] = []
  }

  /// The machine of the first line.
  public let machine: MachineDescription
  /// All lines of the scenario, each with its observations.
  public let lines: [Line]

  /// Reads a recording or a scenario.
  ///
  /// - Throws: For the first line that is not in the language.
  public init(parsing text: some StringProtocol) throws(ScenarioError) {
    var reader = try RecordingReader(Array(text.utf8))
    var lines: [Line] = []
    while let line = try reader.next() { lines.append(line) }
    self.machine = try reader.requireMachine()
    self.lines = lines
  }

  init(machine: MachineDescription, lines: [Line]) {
    self.machine = machine
    self.lines = lines
  }

  /// The recording without its observations.
  public var scenario: Scenario { Scenario(machine: machine, lines: lines.map(\.line)) }

  /// The lines that are steps, each with its step.
  public var steps: [(line: Line, step: Step)] {
    lines.compactMap { if case .step(let step) = $0.line.content { ($0, step) } else { nil } }
  }
}

extension Recording: CustomStringConvertible {
  /// The text.
  public var description: String { lines.map(\.description).joined() }
}

extension Recording.Line: CustomStringConvertible {
  /// The line and its observations, each with its newline.
  public var description: String {
    line.text + "\n" + observations.map { "  \($0)\n" }.joined()
  }
}
