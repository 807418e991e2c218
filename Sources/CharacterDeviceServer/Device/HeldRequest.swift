import CFuse
import SystemPackage

/// A request that a device has passed on to another process, and answers when that process does.
///
/// A signal for the client does not end the client's call: the device passes the signal on, and the other process decides. All methods
/// are called on the thread that serves the node. A request that is never taken fails with `EIO`.
public final class HeldRequest<Request: DeviceRequest & ~Copyable> {
  private var request: Request?
  private let reference: RequestReference
  private let handler: InterruptHandler

  /// - Parameters:
  ///   - request: The request.
  ///   - onInterrupt: A function that is called when a signal comes for the client, also before this returns. It must not answer
  ///     the request.
  public init(_ request: consuming Request, onInterrupt: @escaping () -> Void) {
    reference = request.reference
    handler = InterruptHandler(onInterrupt)
    self.request = consume request
    reference.onInterrupt(
      InterruptHandler.function, Unmanaged.passUnretained(handler).toOpaque())
  }

  deinit { if request != nil { reference.onInterrupt(nil, nil) } }

  /// Takes out the request; nil if it was taken before.
  public func take() -> Request? {
    guard let request = request.take() else { return nil }
    reference.onInterrupt(nil, nil)
    return request
  }
}

/// A function for the signals of one request, in the form that libfuse calls.
private final class InterruptHandler {
  private let body: () -> Void

  init(_ body: @escaping () -> Void) { self.body = body }

  static let function: fuse_interrupt_func_t = { _, handler in
    guard let handler else { return }
    Unmanaged<InterruptHandler>.fromOpaque(handler).takeUnretainedValue().body()
  }
}
