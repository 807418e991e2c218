import CLinux
import Glibc
import SystemPackage

/// One thread's set of descriptors, and what to do when one is readable: epoll(7).
public final class EventLoop {
  private let epoll: FileDescriptor
  private var handlers: [Int32: () throws -> Void] = [:]
  private var isStopped = false

  public init() throws(Errno) {
    let descriptor = epoll_create1(Int32(EPOLL_CLOEXEC))
    guard descriptor >= 0 else { throw .current }
    epoll = FileDescriptor(rawValue: descriptor)
  }

  deinit { try? epoll.close() }

  /// Calls `handler` each time that `descriptor` is readable or its other end has gone.
  public func add(
    _ descriptor: FileDescriptor, handler: @escaping () throws -> Void
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
  }

  /// Waits and calls handlers until one of them calls ``stop()`` or throws.
  public func run() throws {
    isStopped = false
    var events = [epoll_event](repeating: epoll_event(), count: 64)
    while !isStopped {
      let count = epoll_wait(epoll.rawValue, &events, Int32(events.count), -1)
      if count < 0 && errno != EINTR { throw Errno.current }
      for event in events.prefix(Int(max(count, 0))) where !isStopped {
        try handlers[event.data.fd]?()
      }
    }
  }

  /// Ends ``run()`` once the handler that calls this returns.
  public func stop() { isStopped = true }
}
