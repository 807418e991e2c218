import Foundation
import Glibc
import SystemPackage
import Testing

@testable import CharacterDeviceServer

/// A client that makes its next request at once, and the cost of each way of waiting.
private struct Traffic {
  let learner = WaitLearner()
  /// The cost of a request in nanoseconds.
  var costs: [Waiting: UInt64]
  var now: UInt64 = 1 << 40
  var available = Waiting.allCases
  /// The number of requests for each way of waiting.
  var used: [Waiting: Int] = [:]

  init(sleep: UInt64, alert: UInt64, poll: UInt64) {
    costs = [.sleep: sleep, .alert: alert, .poll: poll]
  }

  mutating func request(after pause: UInt64? = nil) {
    used[learner.waiting, default: 0] += 1
    now += pause ?? costs[learner.waiting] ?? 0
    learner.served(at: now) { available }
  }

  mutating func requests(_ count: Int) { for _ in 0..<count { request() } }
}

@Suite struct WaitLearnerTests {
  /// The number of requests in which each way is tried once.
  private let trials = 5 * (WaitLearner.burst + 2 * WaitLearner.warmUp)

  @Test(arguments: [
    (10_000, 20_000, 30_000, Waiting.sleep), (50_000, 8000, 15_000, .alert),
    (50_000, 40_000, 15_000, .poll),
    // Polling takes a CPU, and awake CPUs take power. Each has to save enough time.
    (50_000, 16_000, 15_000, .alert), (16_000, 15_000, 14_000, .sleep),
  ])
  func fastestWayIsFound(sleep: UInt64, alert: UInt64, poll: UInt64, best: Waiting) {
    var traffic = Traffic(sleep: sleep, alert: alert, poll: poll)
    traffic.requests(trials)
    traffic.used = [:]
    traffic.requests(5000)
    #expect(traffic.learner.waiting == best)
    #expect(traffic.used == [best: 5000])
  }

  @Test func whatIsSeldomIsSleptFor() {
    var traffic = Traffic(sleep: 50_000, alert: 40_000, poll: 10_000)
    traffic.requests(trials)
    #expect(traffic.learner.waiting == .poll)
    traffic.request(after: 2_000_000)
    #expect(traffic.learner.waiting == .sleep)
    for _ in 0..<1000 { traffic.request(after: 2_000_000) }
    #expect(traffic.learner.waiting == .sleep)
    // The learner still knows the result.
    traffic.requests(2 * WaitLearner.warmUp)
    #expect(traffic.learner.waiting == .poll)
  }

  /// The load changes: the best way becomes half as fast, or another way becomes faster.
  @Test func whatWasLearnedIsLearnedAgain() {
    var traffic = Traffic(sleep: 50_000, alert: 40_000, poll: 10_000)
    traffic.requests(trials)
    traffic.costs[.poll] = 100_000
    traffic.requests(trials + 3 * WaitLearner.burst)
    #expect(traffic.learner.waiting == .alert)
    traffic.costs[.sleep] = 5000
    traffic.requests((WaitLearner.burst + WaitLearner.warmUp) * WaitLearner.mostBursts)
    #expect(traffic.learner.waiting == .sleep)
  }

  /// A trial ends early if it is far too slow.
  @Test func slowTrialIsShort() {
    var traffic = Traffic(sleep: 10_000, alert: 900_000, poll: 900_000)
    traffic.requests(10_000)
    #expect(traffic.learner.waiting == .sleep)
    #expect(traffic.used[.alert, default: 0] < 20 && traffic.used[.poll, default: 0] < 20)
  }

  /// If other processes need the CPU, they get it. The time without the CPU counts in the trial, so the trial is short.
  @Test func lostCPUEndsPolling() {
    var traffic = Traffic(sleep: 50_000, alert: 40_000, poll: 4_000_000)
    for _ in 0..<10_000 {
      if traffic.learner.waiting == .poll { traffic.learner.lostCPU(for: 4_000_000) }
      traffic.request()
    }
    #expect(traffic.learner.waiting == .alert)
    #expect(traffic.used[.poll, default: 0] < 50)
  }
}

@Suite struct EventLoopTests {
  /// A server that sends itself the next request.
  private final class Echo: NodeServer {
    let path: FilePath = "/"
    let descriptor: FileDescriptor
    private let writer: FileDescriptor
    private(set) var bytes = 0

    init() throws {
      (descriptor, writer) = try FileDescriptor.pipe()
      descriptor.setBlocking(false)
      try write()
    }

    func process() throws(Errno) -> ProcessResult {
      var byte: UInt8 = 0
      guard read(descriptor.rawValue, &byte, 1) == 1 else { return .nothing }
      bytes += 1
      return .request
    }

    func write() throws { _ = try writer.writeAll([0]) }

    func disconnect() {
      try? descriptor.close()
      try? writer.close()
    }
  }

  /// A server with a next request at once does not keep the loop from other descriptors.
  @Test(arguments: [PollPolicy.never, .automatic, .always(microseconds: 50)])
  func everyDescriptorIsServed(policy: PollPolicy) throws {
    let loop = try EventLoop(waiting: AdaptiveWait(policy))
    let echo = try Echo()
    let (otherRead, otherWrite) = try FileDescriptor.pipe()
    try loop.add(echo) { _ in
      if echo.bytes == 1000 { _ = try otherWrite.writeAll([0]) }
      try echo.write()
    }
    try loop.add(otherRead) { loop.stop() }
    try loop.run()
    #expect(echo.bytes >= 1000)
    echo.close()
    for descriptor in [otherRead, otherWrite] { try descriptor.close() }
  }

  /// A loop that sleeps in the system call for the next request wakes up for any other event, each time.
  @Test(arguments: [PollPolicy.never, .automatic, .always(microseconds: 50)])
  func sleepIsInterrupted(policy: PollPolicy) throws {
    let echo = try Echo()
    let (otherRead, otherWrite) = try FileDescriptor.pipe()
    let writer = otherWrite.rawValue
    let rounds = 200
    // The thread writes at about the time at which the loop begins to sleep.
    Thread.detachNewThread {
      for round in 0..<rounds {
        usleep(UInt32(round % 10) * 50)
        var byte: UInt8 = 0
        _ = write(writer, &byte, 1)
      }
    }
    let loop = try EventLoop(waiting: AdaptiveWait(policy))
    var heard = 0
    var left = 20
    try loop.add(echo) { _ in
      left -= 1
      if left > 0 { try echo.write() }
    }
    try loop.add(otherRead) {
      var byte: UInt8 = 0
      _ = read(otherRead.rawValue, &byte, 1)
      heard += 1
      if heard == rounds { loop.stop() }
      // The next requests let the loop sleep there again.
      left = 20
      try echo.write()
    }
    try loop.run()
    #expect(heard == rounds)
    #expect(echo.bytes >= rounds)
    echo.close()
    for descriptor in [otherRead, otherWrite] { try descriptor.close() }
  }

  /// During a long operation, the loop serves all other descriptors. An error of theirs ends the loop afterwards.
  @Test(arguments: [PollPolicy.never, .automatic, .always(microseconds: 50)])
  func othersAreServedMeanwhile(policy: PollPolicy) throws {
    let loop = try EventLoop(waiting: AdaptiveWait(policy))
    let (own, other) = (try Echo(), try Echo())
    let (workRead, workWrite) = try FileDescriptor.pipe()
    try loop.add(own) { _ in try own.write() }
    try loop.add(other) { _ in
      try other.write()
      if other.bytes == 500 { throw Errno.addressInUse }
    }
    _ = try workWrite.writeAll([0])
    try loop.add(workRead) {
      #expect(!loop.isServingOthers)
      var byte: UInt8 = 0
      _ = read(workRead.rawValue, &byte, 1)
      let seen = own.bytes
      while loop.serveOthers(than: own) {}
      #expect(own.bytes == seen)
      #expect(other.bytes == 500)
      #expect(!loop.isServingOthers)
    }
    #expect(throws: Errno.addressInUse) { try loop.run() }
    own.close()
    other.close()
    for descriptor in [workRead, workWrite] { try descriptor.close() }
  }

  /// A handler lets a server handle the requests that are there, but not in the middle of one, and not without end.
  @Test(arguments: [PollPolicy.never, .automatic, .always(microseconds: 50)])
  func requestsOfAServerAreHandledFirst(policy: PollPolicy) throws {
    let loop = try EventLoop(waiting: AdaptiveWait(policy))
    let (device, endless) = (try Echo(), try Echo())
    let (fileRead, fileWrite) = try FileDescriptor.pipe()
    var reads = 0
    try loop.add(device) { _ in
      guard device.bytes == 1 else { return }
      _ = try fileWrite.writeAll([0])
      while reads == 0 { _ = loop.serveOthers(than: device) }
    }
    try loop.add(endless) { _ in try endless.write() }
    try loop.add(fileRead) {
      var byte: UInt8 = 0
      _ = read(fileRead.rawValue, &byte, 1)
      reads += 1
      for _ in 0..<20 { try device.write() }
      loop.handleRequests(of: device)
      loop.handleRequests(of: endless)
      #expect(device.bytes == (loop.isServingOthers ? 1 : 41))
      if loop.isServingOthers { _ = try fileWrite.writeAll([0]) } else { loop.stop() }
    }
    try loop.run()
    #expect(reads == 2)
    for server in [device, endless] { server.close() }
    for descriptor in [fileRead, fileWrite] { try descriptor.close() }
  }

  /// Idle CPUs may sleep soon after the last request, even while the loop's thread sleeps itself.
  @Test func wakeLatencyIsTakenBack() throws {
    let latency = WakeLatency(isWanted: true)
    // Only root can ask for a low latency.
    #expect(latency.isAvailable == (geteuid() == 0))
    let epoll = try FileDescriptor.pipe()
    let interrupter = try SleepInterrupter(epoll: epoll.readEnd, latency: latency)
    for _ in 0..<100 {
      interrupter.noteRequest(isNextSoon: true)
      #expect(latency.isRequested == latency.isAvailable)
    }
    for _ in 0..<1000 where latency.isRequested { usleep(10_000) }
    #expect(!latency.isRequested)
    interrupter.noteRequest(isNextSoon: true)
    interrupter.noteRequest(isNextSoon: false)
    #expect(!latency.isRequested)
    interrupter.noteRequest(isNextSoon: true)
    interrupter.stop()
    #expect(!latency.isRequested)
    try epoll.readEnd.close()
    try epoll.writeEnd.close()
  }
}
