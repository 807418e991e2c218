import CFuse
import Glibc
import Synchronization

/// A file that a client has open: one `open(2)` with all its duplicates and copies in child processes.
public class AnyOpenFile: @unchecked Sendable {
  /// The flags of `open(2)`. `fcntl(2)` can change some of the flags: ``ReadRequest/flags`` and ``WriteRequest/flags`` are the present
  /// ones.
  public let flags: Int32
  /// Whether requests have the position of a read or write. They do on a FUSE node, unless the device says
  /// ``CharacterDevice/isStream``. On a CUSE node the kernel gives 0 for each call: the device keeps the position, in the file's handle.
  public let hasOffsets: Bool

  /// As long as the file is open, the kernel has to see a size of the node; see `apparentSize`. Only the server uses this.
  var needsSize = false

  private struct Poll {
    /// Libfuse's handle that wakes the clients.
    var handle: PollHandle?
    weak var waiters: PollWaiters?
  }
  private let poll = Mutex(Poll())

  fileprivate init(flags: Int32, hasOffsets: Bool) {
    self.flags = flags
    self.hasOffsets = hasOffsets
  }

  /// The client can read.
  public var isReadable: Bool { flags & O_ACCMODE != O_WRONLY }

  /// The client can write.
  public var isWritable: Bool { flags & O_ACCMODE != O_RDONLY }

  /// Wakes the clients that wait for an event of this file in `poll(2)`, `select(2)` or `epoll_wait(2)`. The kernel asks
  /// for the events again then. A call without such a client does nothing. It can be called from any thread.
  public func notifyPoll() {
    poll.withLock {
      if let handle = $0.handle.take() {
        fuse_lowlevel_notify_poll(handle.pointer)
        fuse_pollhandle_destroy(handle.pointer)
      }
    }
  }

  /// Keeps the handle that wakes clients. A newer handle wakes all clients of an older one.
  func setPollHandle(_ handle: PollHandle) {
    poll.withLock {
      if let old = $0.handle { fuse_pollhandle_destroy(old.pointer) }
      $0.handle = handle
    }
  }

  fileprivate func setWaiters(_ waiters: PollWaiters) { poll.withLock { $0.waiters = waiters } }

  /// Forgets the handle and the list, as no client has the file open any more or the connection to the kernel has ended.
  func forgetPoll() {
    let waiters = poll.withLock {
      if let handle = $0.handle.take() { fuse_pollhandle_destroy(handle.pointer) }
      return $0.waiters
    }
    waiters?.remove(self)
  }
}

/// Libfuse's `struct fuse_pollhandle`, which any thread may use.
struct PollHandle: @unchecked Sendable {
  let pointer: OpaquePointer
}

/// An open file with the state that a device keeps for the file.
public final class OpenFile<Handle>: AnyOpenFile, @unchecked Sendable {
  /// The device's own state. Only the device uses it.
  public var handle: Handle

  init(_ handle: Handle, flags: Int32, hasOffsets: Bool) {
    self.handle = handle
    super.init(flags: flags, hasOffsets: hasOffsets)
  }
}

/// A list of open files whose clients wait for the same event in `poll(2)`, for example until a device has bytes to read.
///
/// ``CharacterDevice/poll(_:_:)`` adds a file before it looks for events; ``notify()`` wakes the clients of all files that were added
/// since the last call. Both methods can be called from any thread.
public final class PollWaiters: Sendable {
  private let files = Mutex<[ObjectIdentifier: AnyOpenFile]>([:])

  /// An empty list.
  public init() {}

  /// Adds `file` until the next ``notify()``. A file is in one list at most: the last one.
  public func add(_ file: AnyOpenFile) {
    file.setWaiters(self)
    files.withLock { $0[ObjectIdentifier(file)] = file }
  }

  /// Wakes the clients of all files that were added.
  public func notify() {
    let added = files.withLock {
      let added = $0
      $0 = [:]
      return added
    }
    for file in added.values { file.notifyPoll() }
  }

  fileprivate func remove(_ file: AnyOpenFile) {
    files.withLock { _ = $0.removeValue(forKey: ObjectIdentifier(file)) }
  }
}

/// Events of poll(2), as the kernel numbers them.
public struct PollEvents: OptionSet, Hashable, Sendable {
  public let rawValue: UInt32

  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// A read does not wait: POLLIN and POLLRDNORM.
  public static let readable = PollEvents(rawValue: 0x41)
  /// A write does not wait: POLLOUT and POLLWRNORM.
  public static let writable = PollEvents(rawValue: 0x104)
  /// POLLPRI: something exceptional, as the device defines it.
  public static let priority = PollEvents(rawValue: 0x2)
  /// POLLERR.
  public static let error = PollEvents(rawValue: 0x8)
  /// POLLHUP.
  public static let hangUp = PollEvents(rawValue: 0x10)
}
