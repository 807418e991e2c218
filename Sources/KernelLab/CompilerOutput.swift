import Scenarios

/// The messages of a build, with the user's names of files, and without the lines in which `make` says what has failed.
struct CompilerOutput {
  /// Paths in the messages, and what the user sees instead.
  let names: [(built: String, shown: String)]

  private static let mostLines = 60
  private static let longestLine = 400

  func lines(of output: [String]) -> [String] {
    var lines = output.filter { !Self.isNoise($0) }.map(show)
    // A failure without another message has at least make's own.
    if lines.isEmpty { lines = output.suffix(10).map(show) }
    let more = lines.count - Self.mostLines
    if more > 0 {
      lines =
        Array(lines.prefix(Self.mostLines / 2)) + ["(\(more) more lines)"]
        + lines.suffix(Self.mostLines / 2)
    }
    return lines
  }

  private static func isNoise(_ line: String) -> Bool {
    if line.isEmpty { return true }
    if line.hasPrefix("make[") || line.hasPrefix("make: ") {
      // A missing rule is a reason; an error of a command has its own message.
      return line.contains(": Entering directory") || line.contains(": Leaving directory")
        || line.contains("] Error ") || line.contains("Waiting for unfinished jobs")
        || line.hasSuffix(" Error 2")
    }
    return false
  }

  private func show(_ line: String) -> String {
    var line = line.count > Self.longestLine ? line.prefix(Self.longestLine) + "..." : line
    for (built, shown) in names where !built.isEmpty {
      line = line.replacing(built, with: shown)
    }
    return line.printable(allowing: ["\t"])
  }
}
