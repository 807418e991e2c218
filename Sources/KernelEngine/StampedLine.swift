/// A line of a kernel's log with its time: `[    1.234567] text`.
struct StampedLine {
  let nanoseconds: UInt64
  let text: Substring

  /// Reads a line; nil if it does not begin with a time.
  init?(_ line: String) {
    guard line.first == "[", let end = line.firstIndex(of: "]") else { return nil }
    let parts = line[line.index(after: line.startIndex)..<end].drop { $0 == " " }
      .split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 2, parts[1].utf8.count == 6, let seconds = UInt64(parts[0]),
      let microseconds = UInt64(parts[1]), seconds < 1 << 32
    else { return nil }
    nanoseconds = (seconds * 1_000_000 + microseconds) * 1000
    text = line[line.index(after: end)...].drop { $0 == " " }
  }
}
