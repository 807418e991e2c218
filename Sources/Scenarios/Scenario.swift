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

/// `text` with nothing in it that steers a terminal: each control and format character, other than a newline that is
/// `allowed`, stands as `\x1b`, or as `\u{202e}` beyond a byte.
package func printable(_ text: String, allowing allowed: Set<Unicode.Scalar> = []) -> String {
  guard text.utf8.contains(where: { !(0x20...0x7e).contains($0) }) else { return text }
  var printable = String.UnicodeScalarView()
  for scalar in text.unicodeScalars {
    switch scalar.properties.generalCategory {
    case .control, .format, .lineSeparator, .paragraphSeparator, .privateUse, .unassigned:
      guard !allowed.contains(scalar) else { fallthrough }
      let digits = String(scalar.value, radix: 16)
      printable +=
        (scalar.value < 0x100
        ? "\\x" + String(repeating: "0", count: 2 - digits.count) + digits : "\\u{\(digits)}")
        .unicodeScalars
    default: printable.append(scalar)
    }
  }
  return String(printable)
}
