/// A mistake in a user's code that was found while the code ran.
public struct CodeFinding: Hashable, Sendable {
  /// The code with the mistake.
  public let kind: CodeKind
  /// Whether the code has ended. The node then fails with `EIO` until the machine is made anew.
  public let isFatal: Bool
  /// The mistake.
  public let text: String
  /// The next step for the user; empty if the text has it.
  public let advice: String
  /// The place of the mistake in the user's source; nil if it is not known.
  public let place: SourcePlace?
  /// The functions that were running, the innermost first; empty if the mistake has no such functions.
  public let backtrace: [SourcePlace]

  /// A finding.
  public init(
    kind: CodeKind, isFatal: Bool = false, text: String, advice: String = "",
    place: SourcePlace? = nil, backtrace: [SourcePlace] = []
  ) {
    self.kind = kind
    self.isFatal = isFatal
    self.text = text
    self.advice = advice
    self.place = place
    self.backtrace = backtrace
  }
}

extension CodeFinding: CustomStringConvertible {
  /// One line: `virt_walker.c:41: virt_walker_write: text. Advice.`
  public var description: String {
    let start =
      place.map { "\($0.position): " + ($0.function.isEmpty ? "" : "\($0.function): ") }
      ?? "the \(kind.rawValue): "
    return start + text + (advice.isEmpty ? "" : ". \(advice)")
  }

  /// The lines of a kernel's log.
  var logLines: [String] {
    guard isFatal else { return ["\(self)"] }
    var lines = [text]
    if let place { lines.append("pc : \(place.function) (\(place.position))") }
    if !backtrace.isEmpty {
      lines.append("Call trace:")
      var index = 0
      while index < backtrace.count {
        let place = backtrace[index]
        let count = backtrace[index...].prefix { $0 == place }.count
        // A function that calls itself has the same line again and again.
        lines.append(
          " \(place.function) (\(place.position))" + (count > 1 ? ", \(count) times" : ""))
        index += count
      }
    }
    let start = place.map { "\($0.position): " } ?? ""
    if !advice.isEmpty { lines.append(start + advice) }
    return lines
  }
}

extension SourcePlace {
  /// `virt_walker.c:41`
  public var position: String { line > 0 ? "\(file):\(line)" : file }
}

/// The names of errors in <errno.h> that a kernel's code returns.
enum ErrorName {
  private static let names: [Int64: String] = [
    1: "EPERM", 2: "ENOENT", 3: "ESRCH", 4: "EINTR", 5: "EIO", 6: "ENXIO", 7: "E2BIG", 8: "ENOEXEC",
    9: "EBADF", 10: "ECHILD", 11: "EAGAIN", 12: "ENOMEM", 13: "EACCES", 14: "EFAULT", 15: "ENOTBLK",
    16: "EBUSY", 17: "EEXIST", 18: "EXDEV", 19: "ENODEV", 20: "ENOTDIR", 21: "EISDIR", 22: "EINVAL",
    23: "ENFILE", 24: "EMFILE", 25: "ENOTTY", 26: "ETXTBSY", 27: "EFBIG", 28: "ENOSPC",
    29: "ESPIPE", 30: "EROFS", 31: "EMLINK", 32: "EPIPE", 33: "EDOM", 34: "ERANGE", 35: "EDEADLK",
    38: "ENOSYS", 61: "ENODATA", 62: "ETIME", 71: "EPROTO", 74: "EBADMSG", 75: "EOVERFLOW",
    90: "EMSGSIZE", 95: "EOPNOTSUPP", 110: "ETIMEDOUT", 114: "EALREADY", 115: "EINPROGRESS",
    512: "ERESTARTSYS", 517: "EPROBE_DEFER", 524: "ENOTSUPP",
  ]

  /// `-12 (ENOMEM)`, or the number alone.
  static func describe(_ result: Int64) -> String {
    guard result < 0, result > Int64.min, let name = names[-result] else { return "\(result)" }
    return "\(result) (\(name))"
  }
}
