import CLinux
import Glibc
import SystemPackage

/// One thread's set of descriptors and servers, and what to do when there is something: epoll(7).
public final class EventLoop {
  private let epoll: FileDescriptor
  private var handlers: [Int32: () throws -> Void] = [:]
  private var servers: [Int32: Served] = [:]
  private var events = [epoll_event](repeating: epoll_event(), count: 64)
  /// ``stop()`` was called.
  public private(set) var isStopped = false
  /// The server whose handler has called ``serveOthers(than:)``.
  private var paused: Int32?
  /// An error that a handler has thrown in there.
  private var failure: (any Error)?

  private let policy: PollPolicy
  private var learner = WaitLearner()
  /// The server that had a request last, and how many in a row.
  private var hot: Served?
  private var hits = 0
  /// This thread sleeps in the system call that gets the next request of ``hot``.
  private var isBlocking = false
  private let latency: WakeLatency
  private let load = SystemLoad()
  private var watcher: Watcher?

  /// A server, and who hears of its requests.
  private final class Served {
    let server: any NodeServer
    private let handler: (Processed) throws -> Void

    init(server: any NodeServer, handler: @escaping (Processed) throws -> Void) {
      self.server = server
      self.handler = handler
    }

    /// - Returns: Whether there was a request.
    func process() throws -> Bool {
      let processed = try server.process()
      guard processed != .nothing else { return false }
      try handler(processed)
      return processed == .request
    }
  }

  /// - Parameter polling: How long to look for more before sleeping.
  public init(polling: PollPolicy = .never) throws(Errno) {
    policy = polling
    latency = WakeLatency(isWanted: polling == .automatic)
    let descriptor = epoll_create1(Int32(EPOLL_CLOEXEC))
    guard descriptor >= 0 else { throw .current }
    epoll = FileDescriptor(rawValue: descriptor)
  }

  deinit {
    watcher?.stop()
    try? epoll.close()
  }

  /// Calls `handler` each time that `descriptor` is readable or its other end has gone.
  public func add(
    _ descriptor: FileDescriptor, handler: @escaping () throws -> Void
  ) throws(Errno) {
    try watch(descriptor)
    handlers[descriptor.rawValue] = handler
  }

  /// Lets `server` answer its requests.
  ///
  /// - Parameters:
  ///   - server: Called whenever it has, or may have, a request.
  ///   - handler: Hears of each request, once it is answered, and of the connection's end.
  public func add(
    _ server: any NodeServer, handler: @escaping (Processed) throws -> Void
  ) throws(Errno) {
    try watch(server.descriptor)
    servers[server.descriptor.rawValue] = Served(server: server, handler: handler)
  }

  private func watch(_ descriptor: FileDescriptor) throws(Errno) {
    var event = epoll_event()
    event.events = EPOLLIN.rawValue
    event.data.fd = descriptor.rawValue
    guard epoll_ctl(epoll.rawValue, EPOLL_CTL_ADD, descriptor.rawValue, &event) == 0 else {
      throw .current
    }
  }

  /// Calls nobody for `descriptor` any more. Before it is closed.
  public func remove(_ descriptor: FileDescriptor) {
    if hot?.server.descriptor == descriptor {
      try? unblock()
      hot = nil
    }
    epoll_ctl(epoll.rawValue, EPOLL_CTL_DEL, descriptor.rawValue, nil)
    handlers[descriptor.rawValue] = nil
    servers[descriptor.rawValue] = nil
  }

  /// Waits and calls handlers until one of them calls ``stop()`` or throws.
  public func run() throws {
    isStopped = false
    defer {
      try? unblock()
      latency.release()
    }
    while !isStopped {
      if let hot, hits >= Self.hitsToStay {
        if let window {
          try unblock()
          if try poll(hot, for: window) { continue }
        } else if try block(on: hot) {
          let hadRequest = try hot.process()
          if hadRequest { answered(hot) }
          if hadRequest, watcher?.hasNews != true { continue }
          // Another descriptor has something.
          hits = 0
          try handleEvents(timeout: 0)
          continue
        }
      }
      try handleEvents(timeout: -1)
    }
    if let failure { throw failure }
  }

  /// Ends ``run()`` once the handler that calls this returns.
  public func stop() { isStopped = true }

  /// Handles the requests of all servers but `server`, which is in the middle of a long step. An error of a handler ends
  /// ``run()`` once the caller returns.
  ///
  /// - Returns: False where ``run()`` is to end.
  public func serveOthers(than server: any NodeServer) -> Bool {
    guard paused == nil, !isStopped else { return !isStopped }
    paused = server.descriptor.rawValue
    // The caller's turn goes on afterwards with what it has found.
    let found = events
    defer {
      events = found
      paused = nil
    }
    do {
      try handleEvents(timeout: 0)
    } catch {
      failure = error
      stop()
    }
    return !isStopped
  }

  /// Within ``serveOthers(than:)``: what takes long is to wait.
  public var isServingOthers: Bool { paused != nil }

  /// Waits for anything, and handles it.
  ///
  /// - Parameter timeout: In milliseconds; -1 for none.
  private func handleEvents(timeout: Int32) throws {
    try unblock()
    let count = epoll_wait(epoll.rawValue, &events, Int32(events.count), timeout)
    if count < 0 && errno != EINTR { throw Errno.current }
    for index in 0..<Int(max(count, 0)) where !isStopped {
      let descriptor = events[index].data.fd
      guard descriptor != paused else { continue }
      if let served = servers[descriptor] {
        if try served.process() { answered(served) }
      } else {
        try handlers[descriptor]?()
      }
    }
  }

  /// Requests in a row after which the next one is expected from the same server.
  private static let hitsToStay = 8
}

// MARK: - How to wait for the next request

extension EventLoop {
  /// How long to poll for it, in nanoseconds; nil for not at all.
  private var window: UInt64? {
    switch policy {
    case .never: nil
    case .always(let microseconds): UInt64(microseconds) * 1000
    case .automatic: learner.waiting == .poll ? UInt64(PollPolicy.longest) * 1000 : nil
    }
  }

  /// A request of `served` was answered.
  private func answered(_ served: Served) {
    if served === hot {
      hits += 1
    } else {
      hot = served
      hits = 1
    }
    guard policy == .automatic else { return }
    learner.served(at: clinux_monotonic_nanoseconds()) { [latency, load] in
      Waiting.allCases.filter { waiting in
        switch waiting {
        case .sleep: true
        case .alert: latency.isAvailable
        // Else it would take the CPU from those who have something to do, the client among them.
        case .poll: !load.takesAllCPUs
        }
      }
    }
    watcher?.noteRequest(isNextSoon: learner.waiting != .sleep)
  }

  /// Looks for a request of `served` again and again, and for anything else now and then.
  ///
  /// - Returns: Whether there was something.
  private func poll(_ served: Served, for window: UInt64) throws -> Bool {
    let start = clinux_monotonic_nanoseconds()
    var now = start
    while now - start < window {
      // First, as the client may be waiting for this very CPU.
      sched_yield()
      let before = now
      now = clinux_monotonic_nanoseconds()
      learner.lostCPU(for: now - before)
      guard hits % Self.hitsToLookAround != 0 else {
        hits += 1
        try handleEvents(timeout: 0)
        return true
      }
      if try served.process() {
        answered(served)
        return true
      }
    }
    return false
  }

  /// Requests after which those who are polled for last have their turn.
  private static let hitsToLookAround = 16

  /// Lets the next system call for a request of `served` sleep until there is one. ``watcher`` ends it when another
  /// descriptor has something.
  ///
  /// - Returns: Whether it is so. It takes a thread and a descriptor, and the system may have none left.
  private func block(on served: Served) throws(Errno) -> Bool {
    guard !isBlocking else { return true }
    if watcher == nil { watcher = try? Watcher(epoll: epoll, latency: latency) }
    guard let watcher else {
      hits = 0
      return false
    }
    let descriptor = served.server.descriptor
    epoll_ctl(epoll.rawValue, EPOLL_CTL_DEL, descriptor.rawValue, nil)
    descriptor.setBlocking(true)
    isBlocking = true
    watcher.watch()
    return true
  }

  /// No system call for a request sleeps any more.
  private func unblock() throws(Errno) {
    guard isBlocking, let hot else { return }
    isBlocking = false
    watcher?.unwatch()
    hot.server.descriptor.setBlocking(false)
    try watch(hot.server.descriptor)
  }
}

/// How many threads want to run (proc_loadavg(5)). It is opened once, as a server in a ``Sandbox`` opens nothing.
private final class SystemLoad {
  private let descriptor = open("/proc/loadavg", O_RDONLY | O_CLOEXEC)
  private let cpus = sysconf(Int32(_SC_NPROCESSORS_ONLN))

  deinit { if descriptor >= 0 { close(descriptor) } }

  /// As many threads want to run as there are CPUs, besides this one.
  var takesAllCPUs: Bool {
    var text = [UInt8](repeating: 0, count: 64)
    let fields = text[..<max(0, pread(descriptor, &text, text.count, 0))]
      .split(separator: UInt8(ascii: " "))
    // RUNNABLE/ALL
    guard fields.count > 3, let slash = fields[3].firstIndex(of: UInt8(ascii: "/")),
      let runnable = Int(String(decoding: fields[3][..<slash], as: UTF8.self))
    else { return false }
    return runnable > cpus
  }
}

extension FileDescriptor {
  func setBlocking(_ isBlocking: Bool) {
    let flags = fcntl(rawValue, F_GETFL)
    _ = fcntl(rawValue, F_SETFL, isBlocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK)
  }
}
