/// A text with a machine and the steps of its guest and its host (docs/scenario.md).
public struct Scenario: Hashable, Sendable {
  /// One line.
  public struct Line: Hashable, Sendable {
    /// The content of a line.
    public enum Content: Hashable, Sendable {
      /// An empty line, or one that begins with `#`.
      case comment
      /// The description of the machine: the first line that is no comment.
      case machine
      /// A step: any other line.
      case step(Step)
    }

    /// The line in the text.
    public let text: String
    /// The content of the line.
    public let content: Content

    package init(text: String, content: Content) {
      self.text = text
      self.content = content
    }

    /// Whether a line is empty or begins with `#`. Such a line has no effect on the machine.
    package static func isComment(_ line: some Collection<UInt8>) -> Bool {
      line.first ?? UInt8(ascii: "#") == UInt8(ascii: "#")
    }
  }

  /// The largest number of bytes of a line without its newline. The recorder has a buffer of this size.
  public static let maximumLineLength = 254
  /// The largest number of bytes of a text.
  public static let maximumSize = 16 << 20

  /// The machine of the first line.
  public let machine: MachineDescription
  /// All lines of the text, with the line of the machine.
  public let lines: [Line]

  /// Reads a scenario.
  ///
  /// - Throws: An error for the first line that is not in the language. Observations are not: a text with them is a recording.
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

  /// The steps of all lines.
  public var steps: [Step] {
    lines.compactMap { if case .step(let step) = $0.content { step } else { nil } }
  }

  /// - Throws: An error if a line is too long.
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
