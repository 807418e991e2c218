/// The observations in the recorder's output, which comes line by line while the recorder runs.
package struct RecordedSteps {
  /// The observations of the step that runs; nil before the first step.
  private var current: [String]?

  package init() {}

  /// Takes the next line of the recording, without its newline.
  ///
  /// - Returns: The observations of a step, if the line shows that it has ended.
  package mutating func take(_ line: some StringProtocol) -> [String]? {
    if line.hasPrefix("  ") {
      current?.append(String(line.dropFirst(2)))
      return nil
    }
    guard line.hasPrefix("guest ") || line.hasPrefix("host ") else { return nil }
    defer { current = [] }
    return current
  }

  /// Takes the end of the recording.
  ///
  /// - Returns: The observations of the last step; nil if there was no step.
  package mutating func finish() -> [String]? {
    defer { current = nil }
    return current
  }
}
