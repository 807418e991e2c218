import CFuse
import Synchronization
import SystemPackage

/// Requests that wait until a device can answer them, in the order in which they came.
///
/// A signal for a client takes its request from the queue and ends the client's call with `EINTR`, without any action of the device. When
/// the server ends, the kernel ends each call with `ECONNABORTED`. All methods can be called from any thread, except in a queue of
/// ``OpenRequest`` or ``SeekRequest``.
public final class WaitQueue<Request: DeviceRequest & ~Copyable>: @unchecked Sendable {
  private let entries = Mutex<[Entry]>([])

  /// One request. Libfuse has an unretained reference to it as long as it is in the queue.
  private final class Entry: InterruptibleEntry, @unchecked Sendable {
    var request: Request?
    let reference: RequestReference
    unowned let queue: WaitQueue
    let onInterrupt: (@Sendable () -> Void)?
    /// The entry is not in the queue yet, as libfuse is being told of it. The queue's lock protects this and the next variable.
    var isNew = true
    /// A signal has come while the entry was new.
    var isInterrupted = false

    init(_ request: consuming Request, in queue: WaitQueue, onInterrupt: (@Sendable () -> Void)?) {
      reference = request.reference
      self.request = consume request
      self.queue = queue
      self.onInterrupt = onInterrupt
    }

    override func interrupt() { if queue.takeInterrupted(self) { end() } }

    /// Ends the client's call.
    func end() {
      if let request = request.take() { request.fail(.interrupted) }
      onInterrupt?()
    }
  }

  /// An empty queue.
  public init() {}

  /// Adds a request at the end.
  ///
  /// - Parameters:
  ///   - request: The request.
  ///   - onInterrupt: Called when a signal has ended the client's call, on the thread that serves the node. It may be called before
  ///     this returns.
  public func append(_ request: consuming Request, onInterrupt: (@Sendable () -> Void)? = nil) {
    let entry = Entry(request, in: self, onInterrupt: onInterrupt)
    // If a signal has come already, libfuse calls the handler at once. Libfuse holds the request's lock then, and an answer would free
    // this lock. So the handler only marks the entry, and the answer comes below.
    entry.reference.onInterrupt(
      InterruptibleEntry.handler,
      Unmanaged<InterruptibleEntry>.passUnretained(entry).toOpaque())
    let waits = entries.withLock {
      entry.isNew = false
      if !entry.isInterrupted { $0.append(entry) }
      return !entry.isInterrupted
    }
    if !waits { entry.end() }
  }

  /// Takes out the request that has waited longest; nil if no request waits. Requests of a server that has ended are dropped.
  public func popFirst() -> Request? {
    while let entry = entries.withLock({ $0.isEmpty ? nil : $0.removeFirst() }) {
      guard let request = entry.request.take(), !request.isAbandoned else { continue }
      // After this call, libfuse does not know the entry any more. The queue's lock is not held here, because libfuse holds a lock of
      // its own when it calls the handler, which takes the queue's lock.
      withExtendedLifetime(entry) { entry.reference.onInterrupt(nil, nil) }
      return request
    }
    return nil
  }

  /// No request waits.
  public var isEmpty: Bool {
    // The entries are released when this goes out of scope, without the queue's lock.
    var ended: [Entry] = []
    return entries.withLock { entries in
      ended = entries.filter { !$0.reference.isConnected }
      if !ended.isEmpty { entries.removeAll { !$0.reference.isConnected } }
      return entries.isEmpty
    }
  }

  /// - Returns: Whether the entry was in the queue.
  private func takeInterrupted(_ entry: Entry) -> Bool {
    entries.withLock { entries in
      if entry.isNew { entry.isInterrupted = true }
      guard let index = entries.firstIndex(where: { $0 === entry }) else { return false }
      entries.remove(at: index)
      return true
    }
  }
}

extension WaitQueue where Request == WriteRequest {
  /// Adds a write with a copy of its bytes; see ``WriteRequest/withKeptBytes(_:)``.
  public func append(
    _ request: consuming WriteRequest, _ bytes: Span<UInt8>,
    onInterrupt: (@Sendable () -> Void)? = nil
  ) {
    request.keep(bytes)
    append(request, onInterrupt: onInterrupt)
  }
}

/// An entry without the type of its request, for the function that libfuse calls for a signal.
private class InterruptibleEntry: @unchecked Sendable {
  func interrupt() {}

  static let handler: fuse_interrupt_func_t = { _, entry in
    guard let entry else { return }
    Unmanaged<InterruptibleEntry>.fromOpaque(entry).takeUnretainedValue().interrupt()
  }
}
