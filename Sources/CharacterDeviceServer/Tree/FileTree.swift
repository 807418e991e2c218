import SystemPackage

/// A tree of files. The program makes the content of a file when a client reads the file, as in /proc.
///
/// The server calls the functions of a tree from the one thread that serves it, one call at a time.
public enum FileTree {
  /// A directory with its entries, in the order in which they are listed.
  case directory(Entries)
  /// A text that `read` makes each time that a client reads from the start or asks for the size: one client sees the text of one
  /// moment. As long as nothing has changed, `read` should return the text that it has made before.
  case text(read: () -> FileText, TextTraits = [])
  /// A file that takes commands. Each open(2) for writing gets a writer of its own. `read` makes a text, as for ``text(read:_:)``; it is
  /// nil for a file without a text. The server calls `read` also in the middle of a ``CommandWork``.
  case commands(read: (() -> FileText)?, makeWriter: () -> any CommandWriter)
  /// A text that grows. A client that reads waits at the end for more.
  case pipe(any GrowingText)
}

extension FileTree {
  /// The entries of a directory. A literal of a dictionary makes them: `["name": .text(...)]`.
  public struct Entries: ExpressibleByDictionaryLiteral, Sequence {
    private var entries: [(key: String, value: FileTree)]

    public init(dictionaryLiteral entries: (String, FileTree)...) {
      self.entries = entries.map { (key: $0.0, value: $0.1) }
    }

    /// Adds an entry. Its name must differ from the others.
    public mutating func append(_ name: String, _ entry: FileTree) {
      entries.append((key: name, value: entry))
    }

    public func makeIterator() -> IndexingIterator<[(key: String, value: FileTree)]> {
      entries.makeIterator()
    }
  }
}

/// The additional properties of a file of a ``FileTree``.
public struct TextTraits: OptionSet, Sendable {
  public let rawValue: Int

  public init(rawValue: Int) { self.rawValue = rawValue }

  /// mmap(2) works: the kernel reads the file into its page cache.
  public static let mappable = TextTraits(rawValue: 1)
  /// The text can be made in the middle of a ``CommandWork``. Reads of other texts wait for the end of its part.
  public static let always = TextTraits(rawValue: 2)
}

/// A text of one moment. It consists of parts, which may be shared with copies and with texts of other moments.
public struct FileText: Hashable, Sendable {
  private let parts: [ArraySlice<UInt8>]
  /// The number of bytes.
  public let count: Int

  /// A text of several parts, one after the other.
  public init(_ parts: [ArraySlice<UInt8>]) {
    self.parts = parts
    count = parts.reduce(0) { $0 + $1.count }
  }

  /// A text of one part.
  public init(_ text: String) { self.init([Array(text.utf8)[...]]) }

  /// At most `size` bytes from the position `offset` on; no bytes at the end.
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

/// A receiver of the commands that a client writes to one open file.
public protocol CommandWriter: AnyObject {
  /// `write(2)`: takes all of `bytes`. An error is the result of the client's call.
  ///
  /// - Returns: The work that has to be done before the client gets its answer; nil if there is none.
  func write(_ bytes: Span<UInt8>) throws(Errno) -> (any CommandWork)?

  /// `release`: the client has closed the file, and no more bytes come.
  ///
  /// - Returns: The rest of the work, for which no client waits; nil if there is none.
  func finish() -> (any CommandWork)?
}

/// The work for one write(2). The server does the work in parts, and answers other requests in between.
public protocol CommandWork: AnyObject {
  /// Does the next part, which takes about a millisecond.
  func proceed() -> CommandProgress

  /// Ends the work early, as the client does not wait any more or the server ends. The server calls ``proceed()`` no more.
  func interrupt()

  /// The work calls this on the thread of the server when a part that has given ``CommandProgress/waiting`` can go on. The server
  /// sets it.
  var onReady: (() -> Void)? { get set }
}

/// The progress of a ``CommandWork``.
public enum CommandProgress: Hashable, Sendable {
  /// There are more parts.
  case unfinished
  /// The work waits for an event outside. The next part comes after ``CommandWork/onReady``; the server serves all others meanwhile.
  case waiting
  /// The work is done.
  case finished
  /// The work has ended early. The error is the result of the client's write(2).
  case failed(Errno)
}

/// A text that grows while clients read it: the content of a ``FileTree/pipe(_:)``.
public protocol GrowingText: AnyObject {
  /// The file's size: larger than the number of bytes that any reader has read. It grows when there is more to read, so that a reader that
  /// follows the size, as tail(1) does, reads again.
  var size: UInt64 { get }

  /// Makes a reader for one open(2).
  func makeReader() -> any GrowingTextReader
}

/// One reader of a ``GrowingText``, with its position.
public protocol GrowingTextReader: AnyObject {
  /// There is more to read.
  var hasMore: Bool { get }

  /// The next bytes: some whole lines; no bytes at the end.
  func next() -> [UInt8]
}
