import CLinux
import Glibc
import SystemPackage

/// A strategy that expects the next request from the server that had the last requests. It polls for the request, or sleeps in the system
/// call that gets the request.
///
/// A client that goes on at once gets its answer sooner than with ``SleepWait``. A second thread watches the other descriptors
/// meanwhile. The best way to wait depends on clients, CPUs and load: ``WaitLearner`` tries each.
public final class AdaptiveWait: WaitStrategy {
  private let policy: PollPolicy
  private let learner = WaitLearner()
  /// The server that had the last request.
  private var expected: EventLoop.Member?
  /// The number of requests in a row from ``expected``.
  private var requestsInRow = 0
  /// The loop's thread sleeps in the system call that gets the next request of ``expected``.
  private var isBlocking = false
  private let latency: WakeLatency
  private let load = SystemLoad()
  private var interrupter: SleepInterrupter?

  /// The number of requests in a row after which the next one is expected from the same server.
  private static let requestsToStay = 8

  /// The number of requests after which the loop handles the other descriptors.
  private static let requestsToLookAround = 16

  /// A strategy for one loop. It opens its files now, so that it works in a ``Sandbox``, too.
  public init(_ policy: PollPolicy = .automatic) {
    self.policy = policy
    latency = WakeLatency(isWanted: policy == .automatic)
  }

  deinit { interrupter?.stop() }

  public func wait(in loop: EventLoop) throws {
    guard let expected, requestsInRow >= Self.requestsToStay else {
      return try loop.handleEvents(timeout: -1)
    }
    if let window {
      try wakeUp(loop)
      if try poll(expected, for: window, loop) { return }
    } else if try block(on: expected, loop) {
      let hadRequest = try expected.process()
      if hadRequest { handled(requestOf: expected) }
      if hadRequest, interrupter?.hasReadable != true { return }
      // Another descriptor has something.
      requestsInRow = 0
      return try loop.handleEvents(timeout: 0)
    }
    try loop.handleEvents(timeout: -1)
  }

  public func handled(requestOf member: EventLoop.Member) {
    if member === expected {
      requestsInRow += 1
    } else {
      expected = member
      requestsInRow = 1
    }
    guard policy == .automatic else { return }
    learner.served(at: clinux_monotonic_nanoseconds()) { [latency, load] in
      Waiting.allCases.filter { waiting in
        switch waiting {
        case .sleep: true
        case .alert: latency.isAvailable
        // Polling would take the CPU from other threads that want to run, and the client is one of these.
        case .poll: !load.takesAllCPUs
        }
      }
    }
    interrupter?.noteRequest(isNextSoon: learner.waiting != .sleep)
  }

  public func wakeUp(_ loop: EventLoop) throws {
    guard isBlocking, let expected else { return }
    isBlocking = false
    interrupter?.unwatch()
    expected.server.descriptor.setBlocking(false)
    try loop.watch(expected.server.descriptor)
  }

  public func removed(_ member: EventLoop.Member) { if member === expected { expected = nil } }

  public func loopEnded() { latency.release() }

  /// The time to poll for the next request, in nanoseconds; nil if the strategy does not poll.
  private var window: UInt64? {
    switch policy {
    case .never: nil
    case .always(let microseconds): UInt64(microseconds) * 1000
    case .automatic: learner.waiting == .poll ? UInt64(PollPolicy.longest) * 1000 : nil
    }
  }

  /// Looks for a request of `member` again and again, and for events of the other descriptors from time to time.
  ///
  /// - Returns: Whether there was a request or an event.
  private func poll(
    _ member: EventLoop.Member, for window: UInt64, _ loop: EventLoop
  ) throws -> Bool {
    let start = clinux_monotonic_nanoseconds()
    var now = start
    while now - start < window {
      // The client may wait for this CPU, so it gets the CPU first.
      sched_yield()
      let before = now
      now = clinux_monotonic_nanoseconds()
      learner.lostCPU(for: now - before)
      guard requestsInRow % Self.requestsToLookAround != 0 else {
        requestsInRow += 1
        try loop.handleEvents(timeout: 0)
        return true
      }
      if try member.process() {
        handled(requestOf: member)
        return true
      }
    }
    return false
  }

  /// Makes the next system call for a request of `member` sleep until there is a request. ``interrupter`` ends the system call when
  /// another descriptor is readable.
  ///
  /// - Returns: False if the system has no thread or descriptor left for the interrupter.
  private func block(on member: EventLoop.Member, _ loop: EventLoop) throws -> Bool {
    guard !isBlocking else { return true }
    if interrupter == nil {
      interrupter = try? SleepInterrupter(epoll: loop.epoll, latency: latency)
    }
    guard let interrupter else {
      requestsInRow = 0
      return false
    }
    let descriptor = member.server.descriptor
    loop.unwatch(descriptor)
    descriptor.setBlocking(true)
    isBlocking = true
    interrupter.watch()
    return true
  }
}

/// The number of threads that want to run: proc_loadavg(5). The file is opened once, as a server in a ``Sandbox`` cannot open files.
private final class SystemLoad {
  private let descriptor = open("/proc/loadavg", O_RDONLY | O_CLOEXEC)
  private let cpus = sysconf(Int32(_SC_NPROCESSORS_ONLN))

  deinit { if descriptor >= 0 { close(descriptor) } }

  /// At least as many threads want to run as there are CPUs, besides this thread.
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
