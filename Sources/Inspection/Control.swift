import Scenarios
import Stage2Sim

/// What the control file is given, taken apart: lines of the language of scenarios (docs/scenario.md), without its first
/// one, as the machine is there already.
struct Commands {
  /// Each line with its step; nil for an empty line and a comment.
  let lines: [(text: Substring, step: Step?)]
  /// How many bytes of what was written that is.
  let length: Int

  /// No more is taken at once, so that the device is not kept waiting.
  private static let limit = 1 << 16
  /// Programs write through buffers of whole pages.
  private static let page = 4096

  /// Takes whole lines. Where somebody's buffer of whole pages ends inside a line, or where it is too much at once, the
  /// rest is left to the next write.
  ///
  /// - Throws: For the first line that is not in the language.
  init(_ bytes: Span<UInt8>) throws(ScenarioError) {
    var text: [UInt8] = []
    let count = min(bytes.count, Self.limit)
    text.reserveCapacity(count)
    for index in 0..<count { text.append(bytes[index]) }
    if count < bytes.count || count % Self.page == 0,
      let newline = text.lastIndex(of: UInt8(ascii: "\n"))
    {
      text.removeLast(text.count - newline - 1)
    }
    length = text.count
    var lines: [(text: Substring, step: Step?)] = []
    let split = text.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
    for (index, bytes) in split.enumerated() {
      let line = Substring(decoding: bytes, as: UTF8.self)
      if index == split.count - 1, bytes.isEmpty { break }
      if bytes.isEmpty || bytes.first == UInt8(ascii: "#") {
        lines.append((line, nil))
        continue
      }
      if bytes.starts(with: "machine ".utf8) {
        throw ScenarioError(
          line: index + 1, column: 1,
          message:
            "expected guest or host: the machine runs already; virt-walkerd replay plays a scenario on one of its own"
        )
      }
      lines.append((line, try Step(parsing: line, line: index + 1)))
    }
    self.lines = lines
  }
}
