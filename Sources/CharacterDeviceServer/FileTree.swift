import SystemPackage

/// Files whose content a program makes when they are read, as in /proc.
///
/// Like a ``CharacterDevice`` they are called from the one thread that serves them, one call at a time.
public enum FileTree {
  /// A directory with what is in it, in the order in which it is listed.
  case directory(KeyValuePairs<String, FileTree>)
  /// A text, made anew by `read` each time that somebody reads from the start: what one reader sees is of one moment.
  case text(read: () -> [UInt8])
  /// A file that takes commands, by a writer of its own for each open(2). `read` is as for a text; nil where there is
  /// nothing to read.
  case commands(read: (() -> [UInt8])?, makeWriter: () -> any CommandWriter)
  /// A text that grows. Who reads waits at its end for more.
  case pipe(any GrowingText)
}

/// One client that writes to a file of commands.
public protocol CommandWriter: AnyObject {
  /// `write(2)`: takes some of `bytes`, at least one; how many it took. An error is what the call gives the client.
  func write(_ bytes: Span<UInt8>) throws(Errno) -> Int

  /// The client has closed the file: no more will come.
  func finish()
}

/// A text that grows while it is read: what stands behind a ``FileTree/pipe(_:)``.
public protocol GrowingText: AnyObject {
  /// At least as many bytes as any reader has had, and more than before once there is more to read: the file's size. A
  /// reader that follows by size, as tail(1) does, comes back for more when it grows.
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
