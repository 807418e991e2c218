import CharacterDeviceServer
import Glibc
import SystemPackage

/// The terminal with a view on it: the alternate screen, no cursor, each key at once.
///
/// It is opened anew and never waited for: one that takes nothing more, as at the end of a connection that hangs, shall
/// not keep the program from ending.
final class Screen {
  /// Readable when a key was pressed.
  let descriptor: FileDescriptor
  private var settings = termios()
  private var isEntered = false
  /// What stands there; empty where that is not known.
  private var shown: [String] = []
  /// What the terminal has not taken yet.
  private var pending: ArraySlice<UInt8> = []

  /// - Throws: Where the process has no terminal.
  init() throws(Errno) {
    let terminal = open("/dev/tty", O_RDWR | O_NONBLOCK | O_CLOEXEC)
    guard terminal >= 0 else { throw .current }
    descriptor = FileDescriptor(rawValue: terminal)
  }

  deinit { try? descriptor.close() }

  /// Takes the terminal, or takes it back from whoever had it while this process was stopped. The next ``draw(_:)`` writes
  /// all of it.
  func enter() {
    if !isEntered { tcgetattr(descriptor.rawValue, &settings) }
    var raw = settings
    // Keys come without a newline, and Ctrl-S does not stop the output. Ctrl-C and Ctrl-Z stay signals.
    raw.c_lflag &= ~tcflag_t(ICANON | ECHO)
    raw.c_iflag &= ~tcflag_t(IXON)
    tcsetattr(descriptor.rawValue, TCSANOW, &raw)
    // Alternate screen, no cursor, no wrapping.
    if !isEntered { write("\u{1b}[?1049h\u{1b}[?25l\u{1b}[?7l") }
    isEntered = true
    shown = []
  }

  /// Gives the terminal back as it was. A second call does nothing.
  func leave() {
    guard isEntered else { return }
    isEntered = false
    write("\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l")
    tcsetattr(descriptor.rawValue, TCSANOW, &settings)
  }

  /// What a terminal is taken for that does not know its size.
  private static let usualSize = (columns: 80, rows: 24)

  var size: (columns: Int, rows: Int) {
    var size = winsize()
    guard ioctl(descriptor.rawValue, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0
    else { return Self.usualSize }
    return (Int(size.ws_col), Int(size.ws_row))
  }

  /// The keys that were pressed, without arrows and function keys; nil if the terminal has gone.
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

  /// Shows `lines`, as many as there are rows, and none longer than a row. Writes those that are not there yet.
  func draw(_ lines: [String]) {
    flush()
    // The terminal is behind: it misses a frame.
    guard pending.isEmpty else { return }
    var frame = ""
    for (index, line) in lines.enumerated() where shown.count != lines.count || shown[index] != line
    {
      // Cleared first: behind a line that fills the row the cursor still stands on its last column.
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
