import SystemPackage

/// The users that may use a node.
public struct NodeAccess: Hashable, Sendable {
  /// The permissions of the node.
  public var mode: FilePermissions
  /// A user id; nil for the user that makes the node.
  public var owner: UInt32?
  /// A group id; nil for the group of the user that makes the node.
  public var group: UInt32?

  /// By default, only the user that makes the node may use it.
  public init(
    mode: FilePermissions = .ownerReadWrite, owner: UInt32? = nil, group: UInt32? = nil
  ) {
    self.mode = mode
    self.owner = owner
    self.group = group
  }
}

/// The result of a look for a request.
public enum ProcessResult: Hashable, Sendable {
  /// A request was there. The device has answered the request, or keeps it for a later answer.
  case request
  /// No request was there.
  case nothing
  /// The kernel has ended the connection: no request will come any more.
  case end
}

/// A server of a node, in this process.
public protocol NodeServer: AnyObject {
  /// The node.
  var path: FilePath { get }

  /// A descriptor that becomes readable when the kernel has a request, or has ended the connection. A read of the descriptor does not
  /// block, unless a ``WaitStrategy`` of an ``EventLoop`` has changed this.
  var descriptor: FileDescriptor { get }

  /// Handles one request, if one is there.
  ///
  /// - Throws: The error that the kernel's end of the connection failed with.
  func process() throws(Errno) -> ProcessResult

  /// Ends the connection to the kernel. Clients that have the node open get errors from now on. A second call does nothing. A device
  /// must not call this while it handles a request; it calls ``EventLoop/stop()`` instead.
  func disconnect()

  /// Removes the rest of the node after ``disconnect()``, or after the end of the process that served the node. The caller needs the
  /// rights that were needed to make the node. Call this once: another server may have its node there later.
  func remove()

  /// The descriptors that ``remove()`` needs. A ``Keeper`` keeps these open. There are none if there is nothing to remove.
  var removalDescriptors: [FileDescriptor] { get }

  /// Closes ``removalDescriptors`` in this process, for a server whose ``Keeper`` calls ``remove()``.
  func closeRemovalDescriptors()
}

extension NodeServer {
  public func remove() {}

  public var removalDescriptors: [FileDescriptor] { [] }

  public func closeRemovalDescriptors() {}

  /// Ends the connection and removes the node.
  public func close() {
    disconnect()
    remove()
  }
}
