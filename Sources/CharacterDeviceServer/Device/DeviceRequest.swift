import CFuse
import SystemPackage

/// A request of the kernel, for which a client waits. A device answers it exactly once.
///
/// A request that is dropped without an answer fails with `EIO`. ``OpenRequest`` and ``SeekRequest`` are answered on the thread that
/// serves the node, and all others from any thread.
public protocol DeviceRequest: ~Copyable {
  /// The process that waits for the answer.
  var caller: Caller { get }

  /// Whether the server has ended. The client has got its error then, and an answer does not reach it.
  var isAbandoned: Bool { get }

  /// Fails the client's call with `error`.
  consuming func fail(_ error: Errno)

  /// The request and its connection.
  var reference: RequestReference { get }
}

extension DeviceRequest where Self: ~Copyable {
  public var caller: Caller { reference.caller }

  public var isAbandoned: Bool { !reference.isConnected }
}

/// The process that a request comes from.
public struct Caller: Hashable, Sendable {
  /// The thread's number; 0 if it is not in the pid namespace of the server.
  public let pid: Int32
  /// The file system user, as user namespaces map it.
  public let uid: UInt32
  /// The file system group.
  public let gid: UInt32
}

/// One of libfuse's requests, with its connection.
///
/// All answers to requests of a device go through this type. It is copied only within a request, which is answered once.
public struct RequestReference {
  fileprivate let request: fuse_req_t
  private let context: Unmanaged<DeviceContext>

  init(_ request: fuse_req_t, _ context: DeviceContext) {
    self.request = request
    self.context = .passUnretained(context)
    context.retainSession()
  }

  var connection: DeviceContext { context.takeUnretainedValue() }

  /// Calls `body` with the connection and takes no reference, as a request that is not answered holds the connection.
  @inline(__always)
  func withConnection<Result>(_ body: (DeviceContext) -> Result) -> Result {
    context._withUnsafeGuaranteedRef(body)
  }

  fileprivate var caller: Caller {
    let context = fuse_req_ctx(request).pointee
    return Caller(pid: context.pid, uid: context.uid, gid: context.gid)
  }

  var isConnected: Bool { context._withUnsafeGuaranteedRef { $0.isConnected } }

  /// Answers by `send`, one of libfuse's functions. Nothing may use the request afterwards.
  ///
  /// - Returns: Whether the answer has reached the kernel. It does not if a signal has ended the client's call.
  @discardableResult
  func answer(_ send: (fuse_req_t) -> Int32) -> Bool {
    let result = send(request)
    context._withUnsafeGuaranteedRef { $0.releaseSession() }
    return result == 0
  }

  @discardableResult
  func fail(_ error: Errno) -> Bool { answer { fuse_reply_err($0, error.rawValue) } }

  /// Lets libfuse call `handler` with `argument` when a signal comes for the client; at once if a signal has come already. Nil ends
  /// this.
  func onInterrupt(_ handler: fuse_interrupt_func_t?, _ argument: UnsafeMutableRawPointer?) {
    fuse_req_interrupt_func(request, handler, argument)
  }
}
