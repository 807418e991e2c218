import CLinux
import Glibc
import SystemPackage

/// A loop that waits for descriptors and servers and calls a handler for each, on one thread: epoll(7).
public final class EventLoop {
  /// The descriptor of epoll(7). It is readable when one of the loop's descriptors is readable.
  let epoll: FileDescriptor
  private var handlers: [Int32: () throws -> Void] = [:]
  private var members: [Int32: Member] = [:]
  private var events = [epoll_event](repeating: epoll_event(), count: 64)
  private let strategy: any WaitStrategy
  /// ``stop()`` was called.
  public private(set) var isStopped = false
  /// The server whose handler has called ``serveOthers(than:)``.
  private var paused: Int32?
  /// The error that a handler has thrown within ``serveOthers(than:)`` or ``handleRequests(of:)``.
  private var failure: (any Error)?

  /// A server in a loop.
  public final class Member {
    /// The server.
    public let server: any NodeServer
    private let handler: (ProcessResult) throws -> Void

    fileprivate init(
      _ server: any NodeServer, handler: @escaping (ProcessResult) throws -> Void
    ) {
      self.server = server
      self.handler = handler
    }

    /// Handles one request, if one is there.
    ///
    /// - Returns: Whether there was one.
    public func process() throws -> Bool {
      let result = try server.process()
      guard result != .nothing else { return false }
      try handler(result)
      return result == .request
    }
  }

  /// - Parameter strategy: The way to wait, for this loop alone.
  public init(waiting strategy: any WaitStrategy = SleepWait()) throws(Errno) {
    self.strategy = strategy
    let descriptor = epoll_create1(Int32(EPOLL_CLOEXEC))
    guard descriptor >= 0 else { throw .current }
    epoll = FileDescriptor(rawValue: descriptor)
  }

  deinit {
    strategy.loopEnded()
    try? epoll.close()
  }

  /// Calls `handler` each time that `descriptor` is readable or its other end was closed.
  public func add(
    _ descriptor: FileDescriptor, handler: @escaping () throws -> Void
  ) throws(Errno) {
    try watch(descriptor)
    handlers[descriptor.rawValue] = handler
  }

  /// Lets `server` handle its requests.
  ///
  /// - Parameters:
  ///   - server: The server. The loop lets it process a request when its descriptor is readable.
  ///   - handler: Called after each request, and at the end of the connection.
  public func add(
    _ server: any NodeServer, handler: @escaping (ProcessResult) throws -> Void
  ) throws(Errno) {
    try watch(server.descriptor)
    members[server.descriptor.rawValue] = Member(server, handler: handler)
  }

  /// Adds a descriptor to the set of epoll(7).
  func watch(_ descriptor: FileDescriptor) throws(Errno) {
    var event = epoll_event()
    event.events = EPOLLIN.rawValue
    event.data.fd = descriptor.rawValue
    guard epoll_ctl(epoll.rawValue, EPOLL_CTL_ADD, descriptor.rawValue, &event) == 0 else {
      throw .current
    }
  }

  /// Takes a descriptor out of the set of epoll(7).
  func unwatch(_ descriptor: FileDescriptor) {
    epoll_ctl(epoll.rawValue, EPOLL_CTL_DEL, descriptor.rawValue, nil)
  }

  /// Calls no handler for `descriptor` any more. Call this before the descriptor is closed.
  public func remove(_ descriptor: FileDescriptor) {
    if let member = members.removeValue(forKey: descriptor.rawValue) {
      try? strategy.wakeUp(self)
      strategy.removed(member)
    }
    unwatch(descriptor)
    handlers[descriptor.rawValue] = nil
  }

  /// Waits and calls handlers until one of them calls ``stop()`` or throws.
  public func run() throws {
    isStopped = false
    defer {
      try? strategy.wakeUp(self)
      strategy.loopEnded()
    }
    while !isStopped { try strategy.wait(in: self) }
    if let failure { throw failure }
  }

  /// Ends ``run()`` once the handler that calls this returns.
  public func stop() { isStopped = true }

  /// Handles the requests of all servers but `server`, which is in the middle of a long step. An error of a handler ends
  /// ``run()`` once the caller returns.
  ///
  /// - Returns: False if ``run()`` is to end.
  public func serveOthers(than server: any NodeServer) -> Bool {
    guard paused == nil, !isStopped else { return !isStopped }
    paused = server.descriptor.rawValue
    // The interrupted handleEvents goes on afterwards with the events that it has found.
    let found = events
    defer {
      events = found
      paused = nil
    }
    keepingFailure { try handleEvents(timeout: 0) }
    return !isStopped
  }

  /// Handles the requests of a server that are there now, before those of other servers. The function does nothing if the server is
  /// not in the loop, or is in the middle of a long step. An error of a handler ends ``run()`` once the caller returns.
  ///
  /// The kernel does not wait for the answer to a release: close(2) may return before the device knows of it. A file that shows the
  /// device can call this first, so that it shows the effect of each call that has returned.
  public func handleRequests(of server: any NodeServer) {
    let descriptor = server.descriptor.rawValue
    guard descriptor != paused, let member = members[descriptor] else { return }
    keepingFailure {
      try strategy.wakeUp(self)
      for _ in 0..<Self.mostRequestsBefore {
        guard !isStopped, try member.process() else { return }
      }
    }
  }

  /// Lets ``run()`` end with the error of a function that another handler has called.
  private func keepingFailure(_ body: () throws -> Void) {
    do {
      try body()
    } catch {
      failure = error
      stop()
    }
  }

  /// The most requests that ``handleRequests(of:)`` handles, so that a client that never pauses cannot stop all others.
  private static let mostRequestsBefore = 256

  /// A handler has called ``serveOthers(than:)`` and waits for its return.
  public var isServingOthers: Bool { paused != nil }

  /// Waits for readable descriptors, and calls their handlers.
  ///
  /// - Parameter timeout: The timeout in milliseconds; -1 for none.
  public func handleEvents(timeout: Int32) throws {
    try strategy.wakeUp(self)
    let count = epoll_wait(epoll.rawValue, &events, Int32(events.count), timeout)
    if count < 0 && errno != EINTR { throw Errno.current }
    for index in 0..<Int(max(count, 0)) where !isStopped {
      let descriptor = events[index].data.fd
      guard descriptor != paused else { continue }
      if let member = members[descriptor] {
        if try member.process() { strategy.handled(requestOf: member) }
      } else {
        try handlers[descriptor]?()
      }
    }
  }
}
