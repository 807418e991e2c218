import Glibc
import Synchronization

/// A client of a node: a thread that writes or reads one byte again and again, and keeps the history of its operations.
final class Client {
  private let node: String
  private let kind: Operation.Kind
  private let number: Int
  /// Whether the client opens the node for each operation anew.
  private let reopens: Bool
  /// The bytes that the client writes in turn. No other client writes them.
  private let bytes: [UInt8]
  private var written = 0
  private var descriptor: Int32 = -1

  private var history: [Operation] = []
  /// The number of all operations.
  private(set) var operations = 0
  /// The call that failed, and its errno. The client makes no other call afterwards.
  private(set) var failure: (call: String, errno: Int32)?

  init(_ kind: Operation.Kind, of node: String, number: Int, reopens: Bool, bytes: [UInt8]) {
    self.node = node
    self.kind = kind
    self.number = number
    self.reopens = reopens
    self.bytes = bytes
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  /// Makes operations until `round` is over, or until a call fails.
  func makeOperations(in round: Round) {
    while failure == nil, !round.isOver(after: history.count, of: operations) {
      operate()
      if kind == .write && round.writersPause { usleep(100) }
    }
  }

  /// Whether the client takes part in a round. All writers write in the first round, one less in the next, and so on until one
  /// writer is alone.
  func takesPart(in round: Int, writers: Int) -> Bool {
    kind == .read || (number + round / writers) % writers >= round % writers
  }

  /// The operations since the last call of this function.
  func takeHistory() -> [Operation] {
    defer { history = [] }
    return history
  }

  /// Opens the node if it is not open. Each operation does the same.
  func open() {
    guard descriptor < 0 else { return }
    descriptor = Glibc.open(node, (kind == .write ? O_WRONLY : O_RDONLY) | O_CLOEXEC)
    if descriptor < 0 { failure = ("open", errno) }
  }

  private func operate() {
    open()
    guard descriptor >= 0 else { return }
    var byte: UInt8 = 0
    if kind == .write {
      byte = bytes[written % bytes.count]
      written += 1
    }
    // A call that moves no byte may leave errno as it was.
    errno = 0
    let start = now()
    let count = kind == .write ? write(descriptor, &byte, 1) : read(descriptor, &byte, 1)
    let error = errno
    let end = now()
    let outcome: Operation.Outcome =
      switch count {
      case 1: .done
      case ..<0: .failed(error)
      default: .moved(count)
      }
    operations += 1
    history.append(
      Operation(
        client: number, kind: kind, byte: byte, start: start, end: end, outcome: outcome))
    if case .failed = outcome { failure = (kind == .write ? "write" : "read", error) }
    if reopens || failure != nil {
      close(descriptor)
      descriptor = -1
    }
  }
}

/// A round, in which clients make operations. Their histories are checked at its end.
final class Round: Sendable {
  private let time: UInt64
  private let limit: UInt64
  private let operationsOfRound: Int
  private let operations: Int
  /// Whether writers pause after each write, so that readers see its effect. Without a pause, a lost write may have happened right
  /// before another write.
  let writersPause: Bool
  private let end = Atomic<UInt64>(0)

  /// - Parameters:
  ///   - time: The length of the round in nanoseconds.
  ///   - limit: The time by ``now()`` at which the round ends at the latest.
  ///   - operationsOfRound: The largest number of operations of a client in this round.
  ///   - operations: The largest number of operations of a client in all rounds.
  ///   - writersPause: Whether writers pause for a moment after each write.
  init(
    time: UInt64, limit: UInt64, operationsOfRound: Int, operations: Int, writersPause: Bool
  ) {
    self.time = time
    self.limit = limit
    self.operationsOfRound = operationsOfRound
    self.operations = operations
    self.writersPause = writersPause
  }

  func begin() { end.store(min(limit, now() + time), ordering: .relaxed) }

  /// Whether the round is over for a client. Each client makes at least one operation, also if it gets a CPU too late.
  func isOver(after count: Int, of allCount: Int) -> Bool {
    count >= operationsOfRound || allCount >= operations
      || count > 0 && now() >= end.load(ordering: .relaxed)
  }
}

/// Starts a thread for each client, because a client sleeps in its system calls, and waits until `round` is over for all clients.
///
/// - Parameter interrupts: Whether the threads get signals that interrupt their system calls.
func makeOperations(
  of clients: [Client], in round: Round, interrupts: Bool
) throws(Failure) {
  let running = Running()
  var threads: [pthread_t] = []
  defer { for thread in threads { pthread_join(thread, nil) } }
  try running.gate.withLock { (_) throws(Failure) in
    for client in clients {
      var thread = pthread_t()
      let start = Unmanaged.passRetained(Start(client: client, round: round, running: running))
      running.count.add(1, ordering: .relaxed)
      let error = pthread_create(
        &thread, nil,
        { start in
          Unmanaged<Start>.fromOpaque(start!).takeRetainedValue().run()
          return nil
        }, start.toOpaque())
      guard error == 0 else {
        start.release()
        throw Failure("no thread for client \(threads.count): \(message(error))")
      }
      threads.append(thread)
    }
    round.begin()
  }
  guard interrupts else { return }
  var turn = 0
  // A signal to a thread that has ended is allowed until the thread is joined.
  while running.count.load(ordering: .acquiring) > 0 {
    pthread_kill(threads[turn % threads.count], SIGUSR1)
    turn += 1
    usleep(500)
  }
}

/// The argument of a thread.
private final class Start {
  private let client: Client
  private let round: Round
  private let running: Running

  init(client: Client, round: Round, running: Running) {
    self.client = client
    self.round = round
    self.running = running
  }

  func run() {
    running.gate.withLock { _ in }
    client.makeOperations(in: round)
    running.count.subtract(1, ordering: .releasing)
  }
}

private final class Running: Sendable {
  /// The number of threads that have not ended.
  let count = Atomic(0)
  /// A lock that is held until all threads have started, so that they begin together.
  let gate = Mutex(())
}

/// The time in nanoseconds, by a clock that all threads share and that cannot be set.
func now() -> UInt64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

func message(_ error: Int32) -> String { String(cString: strerror(error)) }

/// The reason why the check is impossible, for the user.
struct Failure: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}
