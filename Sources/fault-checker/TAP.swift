import Glibc

/// Prints a line at once: a reader may follow the output, and a time limit may end it.
func say(_ line: String) {
  print(line)
  fflush(nil)
}

/// The results in the form of the Test Anything Protocol.
final class TAP {
  private var tests = 0
  private(set) var failures = 0

  /// Makes one test, which passes if `body` throws no error. The error is printed below the result.
  func check(_ description: String, _ body: () throws -> Void) throws {
    do {
      try body()
      tests += 1
      say("ok \(tests) - \(description)")
    } catch let interruption as Interruption {
      throw interruption
    } catch {
      tests += 1
      failures += 1
      say("not ok \(tests) - \(description)")
      for line in "\(error)".split(separator: "\n") { say("#   \(line)") }
    }
  }

  /// Prints lines for people.
  func comment(_ text: some StringProtocol) {
    for line in text.split(separator: "\n") { say("# \(line)") }
  }

  func finish() { say("1..\(tests)") }
}

/// The reason why a check fails.
struct Failed: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}

/// Fails with `reason` if `condition` is false.
func require(_ condition: Bool, _ reason: @autoclosure () -> String) throws(Failed) {
  if !condition { throw Failed(reason()) }
}

/// Fails if `actual` is not `expected`.
func require<Value: Equatable>(_ actual: Value, is expected: Value) throws(Failed) {
  try require(actual == expected, "expected '\(expected)', got '\(actual)'")
}

/// Fails if `text` does not contain `words`.
func require(_ text: String, says words: String) throws(Failed) {
  try require(text.contains(words), "'\(words)' is not in:\n\(text)")
}
