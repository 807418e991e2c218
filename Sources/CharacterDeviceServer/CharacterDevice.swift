import SystemPackage

/// A character device: what answers when a program reads or writes a node.
///
/// A server calls it from the one thread that serves the node, one call at a time; each call answers one request of
/// the kernel, and a client waits for it.
public protocol CharacterDevice: AnyObject {
  /// `open(2)`. An error is what the call gives the client.
  func open() throws(Errno)

  /// `read(2)`: appends at most `buffer.freeCapacity` bytes, which is what the client asked for. None is end of file.
  func read(into buffer: inout OutputSpan<UInt8>) throws(Errno)

  /// Whether one read after another gives the same bytes until something is written, and has no other effect.
  ///
  /// Some programs copy from a node with splice(2). On FUSE and Linux 6.19 and later they get what one read gave, over and over,
  /// if this is true, and the error EIO if it is false.
  var givesTheSameAgain: Bool { get }

  /// `write(2)`: takes some of `bytes`, at least one; how many it took.
  func write(_ bytes: Span<UInt8>) throws(Errno) -> Int
}

extension CharacterDevice {
  public func open() throws(Errno) {}

  public var givesTheSameAgain: Bool { false }
}

/// Who may use a node.
public struct NodeAccess: Hashable, Sendable {
  public var mode: FilePermissions
  /// A user id; nil for whoever makes the node.
  public var owner: UInt32?
  /// A group id; nil for the group of whoever makes the node.
  public var group: UInt32?

  public init(
    mode: FilePermissions = .ownerReadWrite, owner: UInt32? = nil, group: UInt32? = nil
  ) {
    self.mode = mode
    self.owner = owner
    self.group = group
  }
}

/// What a server has found to do.
public enum Processed: Hashable, Sendable {
  /// A request, and has answered it.
  case request
  /// Nothing: no request is there.
  case nothing
  /// The kernel has ended the connection: no request will come any more.
  case end
}

/// A device at its node, served by this process.
public protocol NodeServer: AnyObject {
  /// The node.
  var path: FilePath { get }

  /// Becomes readable when the kernel has a request, or has ended the connection. Never blocks, unless an ``EventLoop``
  /// lets it.
  var descriptor: FileDescriptor { get }

  /// Answers one request, where there is one.
  ///
  /// - Throws: What the kernel's end of the connection failed with.
  func process() throws(Errno) -> Processed

  /// Ends the connection to the kernel. Clients that have the node open get errors from now on. A second call does
  /// nothing.
  func disconnect()

  /// Takes away what is left of the node after ``disconnect()``, or after the end of the process that served it. It takes
  /// the rights that it took to make the node. Call it once: another server may have its node there later.
  func remove()

  /// What ``remove()`` needs to be open, for a ``Keeper`` to keep. None if there is nothing to remove.
  var removalDescriptors: [FileDescriptor] { get }

  /// Closes ``removalDescriptors`` in this process, as a ``Keeper`` calls ``remove()`` in another one.
  func closeRemovalDescriptors()
}

extension NodeServer {
  public func remove() {}

  public var removalDescriptors: [FileDescriptor] { [] }

  public func closeRemovalDescriptors() {}

  /// Takes the node away.
  public func close() {
    disconnect()
    remove()
  }
}
