/// A scenario with what was seen below each step (docs/scenario.md). A scenario alone is one in which nothing was seen.
public struct Recording: Hashable, Sendable {
  /// A line of the scenario, and what was seen.
  public struct Line: Hashable, Sendable {
    /// Of the text, from 1.
    public let number: Int
    /// The scenario's line.
    public let line: Scenario.Line
    /// The lines below a step, without the two spaces.
    public internal(set) var observations: [String] = []
  }

  /// What the first line says.
  public let machine: MachineDescription
  /// All lines of the scenario, each with what was seen.
  public let lines: [Line]

  /// Reads a recording or a scenario.
  ///
  /// - Throws: For the first line that is not in the language.
  public init(parsing text: some StringProtocol) throws(ScenarioError) {
    guard text.utf8.count <= Scenario.maximumSize else {
      throw ScenarioError(
        line: 1, column: 1, message: "expected a text of at most \(Scenario.maximumSize >> 20) MiB")
    }
    // Not the string itself: CR and LF together are one character there, and no line would end.
    var texts = String(text).utf8.split(
      separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    if texts.last?.isEmpty == true { texts.removeLast() }

    var machine: (description: MachineDescription, line: Int)?
    var lines: [Line] = []
    for (index, bytes) in texts.enumerated() {
      let number = index + 1
      let text = Substring(bytes)
      try Scenario.checkLength(bytes.count, line: number)
      func append(_ content: Scenario.Line.Content) {
        lines.append(Line(number: number, line: .init(text: String(text), content: content)))
      }
      func error(_ message: String) -> ScenarioError {
        ScenarioError(line: number, column: 1, message: message)
      }
      if Scenario.Line.isComment(bytes) {
        append(.comment)
      } else if bytes.starts(with: "  ".utf8) {
        guard case .step? = lines.last?.line.content else {
          throw error("expected a step above, which this was seen of")
        }
        guard bytes.count > 2 else {
          throw error("expected an observation behind the two spaces, found nothing")
        }
        lines[lines.count - 1].observations.append(String(text.dropFirst(2)))
      } else if let machine {
        guard !bytes.starts(with: "machine ".utf8) else {
          throw error("expected a step: line \(machine.line) has said what the machine is")
        }
        append(.step(try Step(parsing: text, line: number)))
      } else {
        machine = (try MachineDescription(parsing: text, line: number), number)
        append(.machine)
      }
    }
    guard let machine else {
      throw ScenarioError(
        line: texts.count + 1, column: 1, message: "expected machine, found the end of the text")
    }
    self.machine = machine.description
    self.lines = lines
  }

  init(machine: MachineDescription, lines: [Line]) {
    self.machine = machine
    self.lines = lines
  }

  /// What was done, without what was seen.
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
  /// The line and what was seen, each with its newline.
  public var description: String {
    line.text + "\n" + observations.map { "  \($0)\n" }.joined()
  }
}
