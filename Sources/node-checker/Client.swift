import Glibc
import Synchronization

/// One client of a node: a thread that writes or reads one byte again and again, and remembers what came of it.
final class Client {
  private let node: String
  private let kind: Operation.Kind
  private let number: Int
  /// Opens the node for each operation anew.
  private let reopens: Bool
  /// What it writes, in turn: no other client writes these.
  private let bytes: [UInt8]
  private var written = 0
  private var descriptor: Int32 = -1

  private var history: [Operation] = []
  /// So many in all.
  private(set) var operations = 0
  /// The errno of the call that failed; no other follows.
  private(set) var failure: (call: String, errno: Int32)?

  init(_ kind: Operation.Kind, of node: String, number: Int, reopens: Bool, bytes: [UInt8]) {
    self.node = node
    self.kind = kind
    self.number = number
    self.reopens = reopens
    self.bytes = bytes
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  /// Makes operations for one round: until `round` is over, or one fails.
  func makeOperations(in round: Round) {
    while failure == nil, !round.isOver(after: history.count, of: operations) {
      operate()
      if kind == .write && round.writersPause { usleep(100) }
    }
  }

  /// In the first round all write, in the next one less, and so on until one is alone.
  func takesPart(in round: Int, writers: Int) -> Bool {
    kind == .read || (number + round / writers) % writers >= round % writers
  }

  /// What it has done since this was called last.
  func takeHistory() -> [Operation] {
    defer { history = [] }
    return history
  }

  /// Opens the node, unless it is open. Each operation does so, too.
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
    // What a call leaves alone when it moves nothing.
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

/// A time in which clients make operations; their histories are checked at its end.
final class Round: Sendable {
  private let time: UInt64
  private let limit: UInt64
  private let operationsOfRound: Int
  private let operations: Int
  /// After each write, so that readers see what has become of it: a write that is lost beside others may have happened right
  /// before them.
  let writersPause: Bool
  private let end = Atomic<UInt64>(0)

  /// - Parameters:
  ///   - time: How long it takes, in nanoseconds.
  ///   - limit: When it is over, as ``now()``, whenever it began.
  ///   - operationsOfRound: So many of one client are enough.
  ///   - operations: So many of one client are enough in all rounds.
  ///   - writersPause: For a moment after each write.
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

  /// Each client makes one operation at least, however long it takes until it has a CPU.
  func isOver(after count: Int, of allCount: Int) -> Bool {
    count >= operationsOfRound || allCount >= operations
      || count > 0 && now() >= end.load(ordering: .relaxed)
  }
}

/// A thread for each of `clients`, as it sleeps in its system calls, until `round` is over for all of them.
///
/// - Parameter interrupts: Sends them signals meanwhile, which interrupt system calls.
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
  // A thread that has ended may be signalled until it is joined.
  while running.count.load(ordering: .acquiring) > 0 {
    pthread_kill(threads[turn % threads.count], SIGUSR1)
    turn += 1
    usleep(500)
  }
}

/// What a thread starts with.
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
  /// How many threads have not ended.
  let count = Atomic(0)
  /// Held until all have been started: they begin together.
  let gate = Mutex(())
}

/// Nanoseconds of a clock that all threads share and nobody sets.
func now() -> UInt64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

func message(_ error: Int32) -> String { String(cString: strerror(error)) }

/// What the user is told, as the check cannot be made.
struct Failure: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}
