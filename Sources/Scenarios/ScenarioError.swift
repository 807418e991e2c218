/// A line that is not in the language of scenarios.
public struct ScenarioError: Error, Hashable, Sendable {
  /// The line, from 1.
  public let line: Int
  /// Where in the line, in bytes, from 1.
  public let column: Int
  /// What was expected there, and what stands there.
  public let message: String

  /// An error at a place of the text, both counted from 1.
  public init(line: Int, column: Int, message: String) {
    self.line = line
    self.column = column
    self.message = message
  }
}

extension ScenarioError: CustomStringConvertible {
  /// `3:7: expected …`, for the name of a file in front of it.
  public var description: String { "\(line):\(column): \(message)" }
}
