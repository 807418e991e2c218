import CharacterDeviceServer
import Glibc
import SystemPackage

/// The terminal that shows a view: the alternate screen without a cursor. Keys arrive at once.
///
/// The terminal is opened anew and is non-blocking. A terminal that accepts no more output, as when a connection hangs,
/// must not prevent the program from ending.
final class Screen {
  /// Readable when a key was pressed.
  let descriptor: FileDescriptor
  private var settings = termios()
  private var isEntered = false
  /// The lines on the screen; empty if the content of the screen is unknown.
  private var shown: [String] = []
  /// The output that the terminal has not accepted yet.
  private var pending: ArraySlice<UInt8> = []

  /// - Throws: The error of open(2) if the process has no terminal.
  init() throws(Errno) {
    let terminal = open("/dev/tty", O_RDWR | O_NONBLOCK | O_CLOEXEC)
    guard terminal >= 0 else { throw .current }
    descriptor = FileDescriptor(rawValue: terminal)
  }

  deinit { try? descriptor.close() }

  /// Takes the terminal at the start, and takes it back after the process was stopped. The next ``draw(_:)`` writes all
  /// lines.
  func enter() {
    if !isEntered { tcgetattr(descriptor.rawValue, &settings) }
    var raw = settings
    // A key arrives without a newline, and Ctrl-S does not stop the output. Ctrl-C and Ctrl-Z remain signals.
    raw.c_lflag &= ~tcflag_t(ICANON | ECHO)
    raw.c_iflag &= ~tcflag_t(IXON)
    tcsetattr(descriptor.rawValue, TCSANOW, &raw)
    // Alternate screen, no cursor, no wrapping.
    if !isEntered { write("\u{1b}[?1049h\u{1b}[?25l\u{1b}[?7l") }
    isEntered = true
    shown = []
  }

  /// Restores the terminal. A second call does nothing.
  func leave() {
    guard isEntered else { return }
    isEntered = false
    write("\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l")
    tcsetattr(descriptor.rawValue, TCSANOW, &settings)
  }

  /// Draws anew after a change of the size and after a stop of the process, and ends the loop at a signal that ends the program.
  func handleSignals(in loop: EventLoop, _ draw: @escaping () -> Void) throws {
    let signals = try TerminationSignals(and: [SIGWINCH, SIGTSTP, SIGCONT])
    try loop.add(signals.descriptor) { [self] in
      switch signals.next() {
      case "SIGWINCH", "SIGCONT": enter()
      case "SIGTSTP":
        leave()
        signals.passOn(SIGTSTP)
        enter()
      default: return loop.stop()
      }
      draw()
    }
  }

  /// The size that is assumed if the terminal does not know its own.
  private static let usualSize = (columns: 80, rows: 24)

  var size: (columns: Int, rows: Int) {
    var size = winsize()
    guard ioctl(descriptor.rawValue, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0
    else { return Self.usualSize }
    return (Int(size.ws_col), Int(size.ws_row))
  }

  /// The keys that were pressed; nil if the terminal is gone.
  func keys() -> [UInt8]? {
    var bytes = [UInt8](repeating: 0, count: 64)
    // A new one for each read, so that the key Esc does not take the next letter with it.
    var parser = KeyParser()
    do {
      let count = try bytes.withUnsafeMutableBytes { try descriptor.read(into: $0) }
      return count == 0 ? nil : bytes.prefix(count).compactMap { parser.parse($0) }
    } catch {
      return error as? Errno == .resourceTemporarilyUnavailable ? [] : nil
    }
  }

  /// Whether the user wants colours (https://no-color.org).
  static let hasColours =
    (getenv("NO_COLOR").map { String(cString: $0) } ?? "").isEmpty
    && getenv("TERM").map { String(cString: $0) } != "dumb"

  /// Shows `lines`, one for each row, each at most as long as a row. Only changed lines are written.
  func draw(_ lines: [String]) {
    flush()
    // The terminal has not accepted the last frame, so this frame is skipped.
    guard pending.isEmpty else { return }
    var frame = ""
    for (index, line) in lines.enumerated() where shown.count != lines.count || shown[index] != line
    {
      // The row is cleared before the line is written: after a line that fills the row, the cursor is still on its last
      // column, and clearing would erase the last character.
      frame += "\u{1b}[\(index + 1);1H\u{1b}[K\(line)"
    }
    shown = lines
    if !frame.isEmpty { write(frame) }
  }

  private func write(_ text: String) {
    pending += text.utf8
    flush()
  }

  private func flush() {
    while !pending.isEmpty {
      guard let count = try? pending.withUnsafeBytes({ try descriptor.write($0) }) else { return }
      pending = pending.dropFirst(count)
    }
  }
}
