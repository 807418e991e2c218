import CLinux
import Glibc
import SystemPackage

/// One thread's set of descriptors, and what to do when one is readable: epoll(7).
public final class EventLoop {
  private let epoll: FileDescriptor
  private var handlers: [Int32: () throws -> Bool] = [:]
  /// Those of ``handlers`` that may be called although nobody knows whether there is something to do.
  private var polled: Set<Int32> = []
  /// The polled descriptor that had something last.
  private var hot: Int32?
  /// How often it was looked at since the others were.
  private var looksAtHot = 0
  private var isStopped = false
  private var window: PollWindow

  /// - Parameter polling: How long to look for more before sleeping.
  public init(polling: PollPolicy = .never) throws(Errno) {
    window = PollWindow(polling)
    let descriptor = epoll_create1(Int32(EPOLL_CLOEXEC))
    guard descriptor >= 0 else { throw .current }
    epoll = FileDescriptor(rawValue: descriptor)
  }

  deinit { try? epoll.close() }

  /// Calls `handler` each time that `descriptor` is readable or its other end has gone.
  public func add(
    _ descriptor: FileDescriptor, handler: @escaping () throws -> Void
  ) throws(Errno) {
    try watch(descriptor) {
      try handler()
      return true
    }
  }

  /// Calls `handler` also while polling, when there may be nothing to do: it says whether there was, and never blocks.
  public func add(
    polled descriptor: FileDescriptor, handler: @escaping () throws -> Bool
  ) throws(Errno) {
    try watch(descriptor, handler)
    polled.insert(descriptor.rawValue)
  }

  private func watch(
    _ descriptor: FileDescriptor, _ handler: @escaping () throws -> Bool
  ) throws(Errno) {
    var event = epoll_event()
    event.events = EPOLLIN.rawValue
    event.data.fd = descriptor.rawValue
    guard epoll_ctl(epoll.rawValue, EPOLL_CTL_ADD, descriptor.rawValue, &event) == 0 else {
      throw .current
    }
    handlers[descriptor.rawValue] = handler
  }

  /// Calls no handler for `descriptor` any more. Before it is closed.
  public func remove(_ descriptor: FileDescriptor) {
    epoll_ctl(epoll.rawValue, EPOLL_CTL_DEL, descriptor.rawValue, nil)
    handlers[descriptor.rawValue] = nil
    polled.remove(descriptor.rawValue)
    if hot == descriptor.rawValue { hot = nil }
  }

  /// Waits and calls handlers until one of them calls ``stop()`` or throws.
  public func run() throws {
    isStopped = false
    var events = [epoll_event](repeating: epoll_event(), count: 64)
    while !isStopped {
      let start = clinux_monotonic_nanoseconds()
      if try !poll(since: start, &events) {
        let count = epoll_wait(epoll.rawValue, &events, Int32(events.count), -1)
        if count < 0 && errno != EINTR { throw Errno.current }
        window.learn(waited: clinux_monotonic_nanoseconds() - start)
        try handle(events.prefix(Int(max(count, 0))))
      }
    }
  }

  private func handle(_ events: some Collection<epoll_event>) throws {
    for event in events where !isStopped {
      let descriptor = event.data.fd
      if try handlers[descriptor]?() == true, polled.contains(descriptor) { hot = descriptor }
    }
  }

  /// Looks for something to do, as long as that has been worth it: where there was something last each time, elsewhere now
  /// and then.
  ///
  /// - Returns: Whether there was.
  private func poll(since start: UInt64, _ events: inout [epoll_event]) throws -> Bool {
    var now = start
    while now - start < window.current {
      // First, as the client may be waiting for this very core.
      sched_yield()
      let before = now
      now = clinux_monotonic_nanoseconds()
      window.learn(yielded: now - before)
      if let hot, looksAtHot < Self.mostLooksAtHot {
        looksAtHot += 1
        guard try handlers[hot]?() == true else { continue }
        window.learn(waited: now - start)
        return true
      }
      looksAtHot = 0
      let count = epoll_wait(epoll.rawValue, &events, Int32(events.count), 0)
      if count > 0 {
        window.learn(waited: now - start)
        try handle(events.prefix(Int(count)))
        return true
      }
    }
    return false
  }

  /// A descriptor that always has something keeps nobody waiting for longer.
  private static let mostLooksAtHot = 16

  /// Ends ``run()`` once the handler that calls this returns.
  public func stop() { isStopped = true }
}
