import Glibc
import Logging
import Scenarios

/// Log lines on standard error: `guest: read length: 1 bytes`.
///
/// A reader that has stopped reading never stops the device: while standard error accepts no more output, lines are
/// dropped. Their number is logged when standard error accepts lines again.
struct StandardErrorLog: LogHandler {
  let label: String
  var logLevel: Logger.Level
  var metadata: Logger.Metadata = [:]
  var metadataProvider: Logger.MetadataProvider?
  private let dropped = Counter()

  /// A class without a lock, because the process has one thread.
  private final class Counter: @unchecked Sendable { var value = 0 }

  init(label: String, logLevel: Logger.Level) {
    self.label = label
    self.logLevel = logLevel
  }

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    guard isWritable else {
      dropped.value += 1
      return
    }
    var line = ""
    if dropped.value > 0 {
      line = "\(label): \(dropped.value) lines lost: standard error was not read\n"
      dropped.value = 0
    }
    line += "\(label): \("\(event.message)".printable)\n"
    line.withUTF8 { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
  }

  /// Whether standard error has room for a line. A pipe that polls as writable takes at least PIPE_BUF bytes, 4096 on
  /// Linux, at once.
  private var isWritable: Bool {
    var entry = pollfd(fd: STDERR_FILENO, events: Int16(POLLOUT), revents: 0)
    return poll(&entry, 1, 0) == 1 && entry.revents & Int16(POLLOUT) != 0
  }
}
