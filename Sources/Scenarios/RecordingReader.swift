/// A reader of a recording or a scenario, line by line. It keeps no line that it has read.
package struct RecordingReader {
  // Bytes, because CR and LF together are one character of a string, and no line would end.
  private let bytes: [UInt8]
  private var position = 0
  private var number = 0
  private var machine: (description: MachineDescription, line: Int)?
  /// The number of steps that were read.
  package private(set) var stepCount = 0
  /// Whether one of them has observations.
  package private(set) var hasObservations = false

  /// - Throws: An error if the text is too long.
  package init(_ bytes: [UInt8]) throws(ScenarioError) {
    guard bytes.count <= Scenario.maximumSize else {
      throw ScenarioError(
        line: 1, column: 1, message: "expected a text of at most \(Scenario.maximumSize >> 20) MiB")
    }
    self.bytes = bytes
  }

  /// The machine, after its line was read.
  ///
  /// - Throws: An error if the text has no such line.
  package func requireMachine() throws(ScenarioError) -> MachineDescription {
    guard let machine else {
      throw ScenarioError(
        line: number + 1, column: 1, message: "expected machine, found the end of the text")
    }
    return machine.description
  }

  /// The next line of the scenario, with the observations of a step; nil at the end of the text.
  ///
  /// - Parameter keepsObservations: Whether the line has its observations. The reader reads them in any case.
  /// - Throws: An error if the line is not in the language.
  package mutating func next(
    keepsObservations: Bool = true
  ) throws(ScenarioError) -> Recording.Line? {
    guard let text = try nextText() else { return nil }
    let content = try content(of: text)
    var line = Recording.Line(
      number: number, line: .init(text: String(decoding: text, as: UTF8.self), content: content))
    guard case .step = content else { return line }
    stepCount += 1
    while bytes[position...].starts(with: Self.indentation), let text = try nextText() {
      guard text.count > Self.indentation.count else {
        throw error("expected an observation behind the two spaces, found nothing")
      }
      hasObservations = true
      guard keepsObservations else { continue }
      line.observations.append(
        String(decoding: text.dropFirst(Self.indentation.count), as: UTF8.self))
    }
    return line
  }

  private static let indentation = Array("  ".utf8)

  /// The next line of the text, without its newline.
  private mutating func nextText() throws(ScenarioError) -> ArraySlice<UInt8>? {
    guard position < bytes.count else { return nil }
    number += 1
    // One byte more than allowed is enough to see that a line is too long.
    let longest = bytes[position...].prefix(Scenario.maximumLineLength + 1)
    let end = longest.firstIndex(of: UInt8(ascii: "\n")) ?? longest.endIndex
    try Scenario.checkLength(end - position, line: number)
    defer { position = min(end + 1, bytes.count) }
    return bytes[position..<end]
  }

  private mutating func content(
    of text: ArraySlice<UInt8>
  ) throws(ScenarioError) -> Scenario.Line.Content {
    if Scenario.Line.isComment(text) { return .comment }
    guard !text.starts(with: Self.indentation) else {
      throw error("expected a step above, which this was seen of")
    }
    let string = String(decoding: text, as: UTF8.self)
    guard let machine else {
      machine = (try MachineDescription(parsing: string, line: number), number)
      return .machine
    }
    guard !string.utf8.starts(with: "machine ".utf8) else {
      throw error("expected a step: line \(machine.line) has said what the machine is")
    }
    return .step(try Step(parsing: string, line: number))
  }

  private func error(_ message: String) -> ScenarioError {
    ScenarioError(line: number, column: 1, message: message)
  }
}
