import ArgumentParser
import Glibc
import Histogram

/// Writes a byte to a node and reads it back, again and again, and prints the time of such a pair as JSON.
@main
struct NodeBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "node-bench",
    abstract: "Measure write+read pairs on a node, and print JSON. Times are nanoseconds.")

  @Argument(help: "The node.")
  var path: String

  @Option(help: "The number of clients. Each is a thread with its own open descriptor of the node.")
  var clients = 1

  @Option(help: "The time in seconds before the measurement.")
  var warmUp = 0.1

  @Option(help: "The time in seconds of the measurement.")
  var seconds = 1.0

  @Option(help: "The maximum number of measured pairs of each client.")
  var pairs = Int.max

  @Option(help: "The process that serves the node. Its CPU time is measured, too.")
  var serverPid: pid_t?

  func run() throws {
    var server = clockid_t()
    if let serverPid, clock_getcpuclockid(serverPid, &server) != 0 {
      throw Failure("there is no process \(serverPid)")
    }
    let gate = Gate(clients + 1)
    let all = try (0..<clients).map { _ in
      try Client(
        path, checksByte: clients == 1, warmUp: nanoseconds(warmUp),
        duration: nanoseconds(seconds), pairs: pairs, gate: gate)
    }
    let threads = try all.map(start)

    gate.wait()  // all clients have warmed up
    let begin = (
      time: now(), client: now(CLOCK_PROCESS_CPUTIME_ID), server: serverPid.map { _ in now(server) }
    )
    gate.wait()
    for thread in threads { pthread_join(thread, nil) }
    let serverTime = begin.server.map { now(server) - $0 }
    let clientTime = now(CLOCK_PROCESS_CPUTIME_ID) - begin.client
    let time = now() - begin.time

    var latencies = Latencies.empty
    for client in all {
      if let failure = client.failure { throw failure }
      latencies.add(client.latencies)
    }
    print(
      json(latencies, time: time, client: clientTime, server: serverTime))
  }

  private func json(_ latencies: Latencies, time: UInt64, client: UInt64, server: UInt64?) -> String
  {
    let count = Double(latencies.totalCount)
    func percentile(_ percent: Double) -> UInt64 { latencies.valueAtPercentile(percent) }
    let distribution = latencies.percentiles(ticksPerHalfDistance: 5)
      .map { "[\($0.percentile), \($0.value)]" }
    return """
      {"count": \(latencies.totalCount), "pairs_per_second": \(count / Double(time) * 1e9), \
      "p50": \(percentile(50)), "p99": \(percentile(99)), "p99.9": \(percentile(99.9)), \
      "max": \(latencies.max), "client_cpu": \(Double(client) / count), \
      "server_cpu": \(server.map { "\(Double($0) / count)" } ?? "null"), \
      "distribution": [\(distribution.joined(separator: ", "))]}
      """
  }
}

/// Nanoseconds with three digits, up to a minute.
typealias Latencies = Histogram<UInt64>

extension Latencies {
  static var empty: Latencies {
    Latencies(highestTrackableValue: 60_000_000_000, numberOfSignificantValueDigits: .three)
  }
}

/// One open descriptor.
private final class Client {
  private let path: String
  private let descriptor: Int32
  private let checksByte: Bool
  private let warmUp: UInt64
  private let duration: UInt64
  private let pairs: Int
  private let gate: Gate
  private(set) var latencies = Latencies.empty
  private(set) var failure: Failure?

  init(
    _ path: String, checksByte: Bool, warmUp: UInt64, duration: UInt64, pairs: Int, gate: Gate
  ) throws {
    self.path = path
    self.checksByte = checksByte
    self.warmUp = warmUp
    self.duration = duration
    self.pairs = pairs
    self.gate = gate
    descriptor = open(path, O_RDWR)
    guard descriptor >= 0 else { throw Failure("\(path): \(String(cString: strerror(errno)))") }
  }

  func run() {
    var warmedUp = Latencies.empty
    makePairs(for: warmUp, atMost: .max, into: &warmedUp)
    gate.wait()  // all clients have warmed up
    gate.wait()  // the CPU time of all clients was read
    makePairs(for: duration, atMost: pairs, into: &latencies)
  }

  private func makePairs(for duration: UInt64, atMost pairs: Int, into latencies: inout Latencies) {
    guard failure == nil else { return }
    var written: UInt8 = 0
    var got: UInt8 = 0
    var begin = now()
    let end = begin + duration
    for _ in 0..<pairs {
      written &+= 1
      let writeResult = write(descriptor, &written, 1)
      guard writeResult == 1 else { return fail("write", writeResult) }
      let readResult = read(descriptor, &got, 1)
      guard readResult == 1 else { return fail("read", readResult) }
      guard !checksByte || got == written else {
        failure = Failure("\(path): \(written) was written, but \(got) was read")
        return
      }
      let after = now()
      latencies.record(after - begin)
      if after >= end { return }
      begin = after
    }
  }

  private func fail(_ call: String, _ result: Int) {
    let reason = result < 0 ? String(cString: strerror(errno)) : "\(result) bytes"
    failure = Failure("\(call) on \(path): \(reason)")
  }
}

/// A gate that opens when all of the threads have arrived.
private final class Gate {
  private let barrier = UnsafeMutablePointer<pthread_barrier_t>.allocate(capacity: 1)

  init(_ threads: Int) { pthread_barrier_init(barrier, nil, UInt32(threads)) }

  func wait() { pthread_barrier_wait(barrier) }
}

private struct Failure: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}

/// Starts a thread. Each client has a thread, because it sleeps in its system calls.
private func start(_ client: Client) throws -> pthread_t {
  var thread = pthread_t()
  let error = pthread_create(
    &thread, nil,
    { client in
      Unmanaged<Client>.fromOpaque(client!).takeRetainedValue().run()
      return nil
    }, Unmanaged.passRetained(client).toOpaque())
  guard error == 0 else {
    throw Failure("cannot start a thread: \(String(cString: strerror(error)))")
  }
  return thread
}

private func nanoseconds(_ seconds: Double) -> UInt64 { UInt64(seconds * 1e9) }

private func now(_ clock: clockid_t = CLOCK_MONOTONIC) -> UInt64 {
  var time = timespec()
  clock_gettime(clock, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
