import CFuse
import CLinux
import Glibc
import Synchronization
import SystemPackage

/// A connection to the kernel's FUSE or CUSE, on libfuse's low level.
///
/// Only this type uses libfuse's session and its buffer.
final class FuseSession {
  /// The state for libfuse's callbacks, which get it as libfuse's `userdata`.
  ///
  /// The context holds libfuse's session until the connection has ended and all requests are answered, by any thread.
  class Context {
    /// The kernel's INIT was answered.
    var isInitialized = false
    /// The session, while it lives.
    fileprivate(set) weak var session: FuseSession?
    /// The thread that serves the node.
    fileprivate(set) var thread = pthread_self()
    fileprivate var raw: OpaquePointer?
    /// The number of users of ``raw``: the connection, and each request of a device that is not answered.
    fileprivate let uses = Atomic<Int>(1)
    fileprivate let hasEnded = Atomic<Bool>(false)
    /// Called before the connection ends.
    func connectionWillEnd() {}
  }

  let context: Context
  let descriptor: FileDescriptor
  private let session: OpaquePointer
  /// The buffer into which libfuse puts requests. It is a pointer, because Swift would check a variable for exclusive access at each
  /// request.
  private let buffer: UnsafeMutablePointer<fuse_buf> = {
    let buffer = UnsafeMutablePointer<fuse_buf>.allocate(capacity: 1)
    buffer.initialize(to: fuse_buf())
    return buffer
  }()
  private(set) var isOpen = true

  /// Connects `session`, made with `context` as its user data, at `mountPoint`, and answers the kernel's INIT.
  ///
  /// - Parameters:
  ///   - what: The name of the connection in errors.
  ///   - mounted: Called when the mount is there, before the kernel's INIT is answered.
  init(
    _ session: OpaquePointer, context: Context, mountPoint: String, what: String,
    mounted: () -> Void = {}
  ) throws(NodeError) {
    self.session = session
    self.context = context
    context.raw = session
    guard fuse_session_mount(session, mountPoint) == 0 else {
      let errno = Errno.current
      fuse_session_destroy(session)
      throw NodeError(
        errno == .notPermitted || errno == .permissionDenied ? .notPermitted : .system,
        "cannot mount \(what): \(errno)",
        advice: geteuid() == 0
          ? "see the messages of libfuse above"
          : "see the messages of libfuse above; /dev/fuse has to be readable and writable for you, and fusermount3 (Debian package fuse3) has to be setuid root"
      )
    }
    mounted()
    descriptor = FileDescriptor(rawValue: fuse_session_fd(session))
    context.session = self
    descriptor.setBlocking(false)
    do throws(NodeError) {
      try initialize(what)
    } catch {
      disconnect()
      throw error
    }
    // Many trees never get another request.
    freeBuffer()
  }

  /// Makes a session whose requests come from this process, by ``deliver(_:)``, and not from the kernel.
  ///
  /// - Parameters:
  ///   - session: The session, made with `context` as its user data.
  ///   - context: The state for libfuse's callbacks.
  ///   - io: The functions of the session. Libfuse gives its answers to `writev`, with `context` as user data.
  init(
    _ session: OpaquePointer, context: Context, io: fuse_custom_io
  ) throws(NodeError) {
    self.session = session
    self.context = context
    context.raw = session
    var io = io
    // Libfuse wants a descriptor, and closes it with the session. Nothing uses it.
    let nowhere = eventfd(0, Int32(EFD_CLOEXEC))
    guard nowhere >= 0, cfuse_session_custom_io(session, &io, nowhere) == 0 else {
      let errno = Errno.current
      fuse_session_destroy(session)
      throw NodeError(
        .system, "cannot make a session of libfuse: \(errno)",
        advice: "allow more open files: ulimit -n")
    }
    descriptor = FileDescriptor(rawValue: nowhere)
  }

  /// Gives a request to libfuse, which calls the operations of the session before this returns.
  func deliver(_ request: UnsafeMutableRawBufferPointer) {
    context.thread = pthread_self()
    var message = fuse_buf()
    message.mem = request.baseAddress
    message.size = request.count
    fuse_session_process_buf(session, &message)
  }

  /// Answers requests until the kernel's first request, INIT, is answered.
  private func initialize(_ what: String) throws(NodeError) {
    let limit: Int32 = 10_000  // milliseconds
    while !context.isInitialized {
      var poll = pollfd(fd: descriptor.rawValue, events: Int16(POLLIN), revents: 0)
      let isAlive: Bool
      do throws(Errno) {
        guard Glibc.poll(&poll, 1, limit) > 0 else { throw .timedOut }
        isAlive = try process() != .end
      } catch {
        throw NodeError(
          .system, "no connection to the kernel for \(what): \(error)",
          advice: "see the kernel's log (dmesg)")
      }
      guard isAlive else {
        throw NodeError(
          .system, "the kernel ended the connection for \(what)",
          advice: "see the kernel's log (dmesg)")
      }
    }
  }

  /// See ``NodeServer/process()``.
  func process() throws(Errno) -> ProcessResult {
    context.thread = pthread_self()
    let result = fuse_session_receive_buf(session, buffer)
    if result > 0 {
      fuse_session_process_buf(session, buffer)
      return fuse_session_exited(session) == 0 ? .request : .end
    }
    switch -result {
    case 0: return .end
    case EINTR, EAGAIN: return .nothing
    default: throw Errno(rawValue: -result)
    }
  }

  /// Makes the kernel forget the attributes of a file. The kernel also ignores the attributes in answers to its earlier requests.
  ///
  /// A program that waits in stat(2) for such an answer gets the answer nevertheless.
  func outdateAttributes(inode: Int32) {
    _ = fuse_lowlevel_notify_inval_inode(session, fuse_ino_t(inode), -1, 0)
  }

  /// Makes the kernel see a file of at least `size` bytes.
  ///
  /// The kernel waits for the lock of the last page. Call this only if no request for that page is open.
  func enlarge(inode: Int32, to size: Int64) {
    outdateAttributes(inode: inode)
    // The kernel has no notification for the size of a file. A byte that is stored in the page cache moves the end of the file.
    var text: UInt8 = 0
    withUnsafeMutablePointer(to: &text) { text in
      var buffers = fuse_bufvec()
      buffers.count = 1
      buffers.buf.size = 1
      buffers.buf.mem = UnsafeMutableRawPointer(text)
      buffers.buf.fd = -1
      _ = fuse_lowlevel_notify_store(
        session, fuse_ino_t(inode), off_t(size - 1), &buffers, fuse_buf_copy_flags(0))
    }
  }

  /// Ends the connection. A device of CUSE goes away, and a mount of FUSE is dead.
  func disconnect() {
    guard isOpen else { return }
    isOpen = false
    context.end(descriptor)
    freeBuffer()
  }

  /// Libfuse makes a new buffer for the next request.
  private func freeBuffer() {
    free(buffer.pointee.mem)
    buffer.pointee.mem = nil
  }

  deinit {
    disconnect()
    buffer.deallocate()
  }
}

// MARK: - Requests that outlive a callback, and the connection

extension FuseSession.Context {
  /// The connection has not ended.
  var isConnected: Bool { !hasEnded.load(ordering: .acquiring) }

  /// Counts a request that is not answered yet.
  func retainSession() { uses.wrappingAdd(1, ordering: .relaxed) }

  /// Notes that a request is answered.
  func releaseSession() {
    if uses.wrappingSubtract(1, ordering: .acquiringAndReleasing).newValue == 0 { destroySession() }
  }

  /// Ends the connection. Requests that are not answered fail with `ECONNABORTED`.
  fileprivate func end(_ descriptor: FileDescriptor) {
    hasEnded.store(true, ordering: .releasing)
    connectionWillEnd()
    // Requests hold no reference to this object, so that it holds itself until the last request is answered.
    _ = Unmanaged.passRetained(self)
    if uses.load(ordering: .acquiring) > 1 { replace(descriptor.rawValue) }
    releaseSession()
  }

  /// Replaces the descriptor of the connection by an unused one. Libfuse closes the descriptor only with the session.
  private func replace(_ descriptor: Int32) {
    let flags = Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK)
    var nowhere = eventfd(0, flags)
    if nowhere < 0 {
      // The process has no free descriptor, so the connection's own is closed first.
      close(descriptor)
      nowhere = eventfd(0, flags)
      guard nowhere >= 0, nowhere != descriptor else { return }
    }
    dup2(nowhere, descriptor)
    close(nowhere)
  }

  private func destroySession() {
    if let raw { fuse_session_destroy(raw) }
    Unmanaged.passUnretained(self).release()
  }
}

extension FuseSession.Context {
  /// The context of the session to which `request` belongs. The session was made with a context of this class.
  static func of(_ request: fuse_req_t?) -> Self { of(userData: fuse_req_userdata(request)) }

  /// Calls `body` with the context of the session to which `request` belongs, and takes no reference, as the session holds the context.
  @inline(__always)
  static func with<Result>(_ request: fuse_req_t?, _ body: (Self) -> Result) -> Result {
    Unmanaged<Self>.fromOpaque(fuse_req_userdata(request))._withUnsafeGuaranteedRef(body)
  }

  /// The context to which libfuse's `userdata` points.
  static func of(userData: UnsafeMutableRawPointer) -> Self {
    Unmanaged<Self>.fromOpaque(userData).takeUnretainedValue()
  }

  var userData: UnsafeMutableRawPointer { Unmanaged.passUnretained(self).toOpaque() }
}

extension Errno {
  /// The error of the last system call: `errno`.
  package static var current: Errno { Errno(rawValue: errno) }
}

/// Calls `body` with libfuse's argument vector for a program that mounts with `options`.
func withFuseArguments<Result>(
  options: [String], _ body: (UnsafeMutablePointer<fuse_args>) -> Result
) -> Result {
  var arguments = fuse_args()
  defer { fuse_opt_free_args(&arguments) }
  // The first argument is the program's name, which libfuse does not use.
  fuse_opt_add_arg(&arguments, "fuse")
  for option in options {
    fuse_opt_add_arg(&arguments, "-o")
    fuse_opt_add_arg(&arguments, option)
  }
  return body(&arguments)
}
