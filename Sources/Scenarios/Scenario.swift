/// A text of steps: a machine, and what happens to it (docs/scenario.md).
public struct Scenario: Hashable, Sendable {
  /// One line.
  public struct Line: Hashable, Sendable {
    /// What a line is.
    public enum Content: Hashable, Sendable {
      /// An empty line, or one that begins with `#`.
      case comment
      /// The first line that is no comment.
      case machine
      /// Any other.
      case step(Step)
    }

    /// As it stands in the text.
    public let text: String
    /// What it says.
    public let content: Content

    package init(text: String, content: Content) {
      self.text = text
      self.content = content
    }

    /// An empty line, or one that begins with `#`: it says nothing to the machine.
    package static func isComment(_ line: some Collection<UInt8>) -> Bool {
      line.first ?? UInt8(ascii: "#") == UInt8(ascii: "#")
    }
  }

  /// The bytes of a line without its newline: what the recorder has room for.
  public static let maximumLineLength = 254
  /// The bytes of a whole text.
  public static let maximumSize = 16 << 20

  /// What the first line says.
  public let machine: MachineDescription
  /// All lines of the text, the machine's too.
  public let lines: [Line]

  /// Reads a scenario.
  ///
  /// - Throws: For the first line that is not in the language; an observation is of a recording.
  public init(parsing text: some StringProtocol) throws(ScenarioError) {
    let recording = try Recording(parsing: text)
    if let line = recording.lines.first(where: { !$0.observations.isEmpty }) {
      throw ScenarioError(
        line: line.number + 1, column: 1,
        message: "expected a step, found an observation: this is a recording")
    }
    self = recording.scenario
  }

  init(machine: MachineDescription, lines: [Line]) {
    self.machine = machine
    self.lines = lines
  }

  /// The steps without the lines around them.
  public var steps: [Step] {
    lines.compactMap { if case .step(let step) = $0.content { step } else { nil } }
  }

  /// - Throws: Where a line is too long.
  package static func checkLength(_ length: Int, line: Int) throws(ScenarioError) {
    guard length <= maximumLineLength else {
      throw ScenarioError(
        line: line, column: maximumLineLength + 1,
        message: "expected the end of the line: it has at most \(maximumLineLength) bytes")
    }
  }
}

extension Scenario: CustomStringConvertible {
  /// The text.
  public var description: String { lines.map { "\($0.text)\n" }.joined() }
}
