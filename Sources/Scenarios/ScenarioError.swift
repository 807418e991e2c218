/// An error in a line of a scenario.
public struct ScenarioError: Error, Hashable, Sendable {
  /// The line, from 1.
  public let line: Int
  /// The column of the error in bytes, from 1.
  public let column: Int
  /// The expected text, and the text that was found.
  public let message: String

  /// An error at a place of the text, both counted from 1.
  public init(line: Int, column: Int, message: String) {
    self.line = line
    self.column = column
    self.message = message
  }
}

extension ScenarioError: CustomStringConvertible {
  /// `3:7: expected …`. The name of a file can precede it.
  public var description: String { "\(line):\(column): \(message)" }
}
