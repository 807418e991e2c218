import SystemPackage

/// Files whose content a program makes when they are read, as in /proc.
///
/// Like a ``CharacterDevice`` they are called from the one thread that serves them, one call at a time.
public enum FileTree {
  /// A directory with what is in it, in the order in which it is listed.
  case directory(KeyValuePairs<String, FileTree>)
  /// A text of now, made by `read` each time that somebody reads from the start or asks for the size: what one reader
  /// sees is of one moment. As long as nothing has changed, `read` should give the text that it has made already.
  case text(read: () -> FileText, TextTraits = [])
  /// A file that takes commands, by a writer of its own for each open(2). `read` is as for a text; nil where there is
  /// nothing to read, and is called in the middle of a ``CommandWork``, too.
  case commands(read: (() -> FileText)?, makeWriter: () -> any CommandWriter)
  /// A text that grows. Who reads waits at its end for more.
  case pipe(any GrowingText)
}

/// The additional properties of a file of a ``FileTree``.
public struct TextTraits: OptionSet, Sendable {
  public let rawValue: Int

  public init(rawValue: Int) { self.rawValue = rawValue }

  /// mmap(2) works: the file is read by the kernel's page cache.
  public static let mappable = TextTraits(rawValue: 1)
  /// The text can be made in the middle of a ``CommandWork``; all others wait for the end of its part.
  public static let always = TextTraits(rawValue: 2)
}

/// A text of one moment. It consists of parts, which its copies and texts of other moments may share.
public struct FileText: Hashable, Sendable {
  private let parts: [ArraySlice<UInt8>]
  /// Its bytes.
  public let count: Int

  /// The parts, one after the other.
  public init(_ parts: [ArraySlice<UInt8>]) {
    self.parts = parts
    count = parts.reduce(0) { $0 + $1.count }
  }

  /// All of it as one part.
  public init(_ text: String) { self.init([Array(text.utf8)[...]]) }

  /// At most `size` bytes from the `offset`th, none at the end.
  public func bytes(from offset: Int = 0, atMost size: Int = .max) -> [UInt8] {
    guard offset < count else { return [] }
    var room = min(size, count - offset)
    var bytes: [UInt8] = []
    bytes.reserveCapacity(room)
    var skipped = offset
    for part in parts where room > 0 {
      let wanted = part.dropFirst(skipped).prefix(room)
      skipped -= min(skipped, part.count)
      bytes += wanted
      room -= wanted.count
    }
    return bytes
  }
}

/// One client that writes to a file of commands.
public protocol CommandWriter: AnyObject {
  /// `write(2)`: takes all of `bytes`. An error is what the call gives the client.
  ///
  /// - Returns: The work to be done before the client gets its answer; nil if all is done.
  func write(_ bytes: Span<UInt8>) throws(Errno) -> (any CommandWork)?

  /// The client has closed the file: no more will come.
  ///
  /// - Returns: The work that is left, for which no client waits; nil if all is done.
  func finish() -> (any CommandWork)?
}

/// The work that one write(2) has asked for. The server does it in parts, and answers other requests in between.
public protocol CommandWork: AnyObject {
  /// Does the next part, which takes about a millisecond.
  func proceed() -> CommandProgress

  /// The client does not wait any more, or the server ends: no part will come any more.
  func interrupt()

  /// The work calls this on the thread of the server when a part that has given ``CommandProgress/waiting`` can go on. The server
  /// sets it.
  var onReady: (() -> Void)? { get set }
}

/// How far a ``CommandWork`` has come.
public enum CommandProgress: Hashable, Sendable {
  case unfinished
  /// It waits for something outside. The next part comes after ``CommandWork/onReady``; the server serves all others meanwhile.
  case waiting
  case finished
  /// It has ended early. The error is what write(2) gives the client.
  case failed(Errno)
}

/// A text that grows while it is read: what stands behind a ``FileTree/pipe(_:)``.
public protocol GrowingText: AnyObject {
  /// More bytes than any reader has had, and more than before once there is more to read: the file's size. A reader
  /// that follows by size, as tail(1) does, comes back for more when it grows.
  var size: UInt64 { get }

  /// A reader of its own for each open(2).
  func makeReader() -> any GrowingTextReader
}

/// Where one reader of a ``GrowingText`` is.
public protocol GrowingTextReader: AnyObject {
  /// There is more to read.
  var hasMore: Bool { get }

  /// What comes next: some whole lines, and nothing at the end.
  func next() -> [UInt8]
}
