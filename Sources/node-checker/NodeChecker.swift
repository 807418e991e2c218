import ArgumentParser
import Glibc

/// The program that proves that a node is one byte for all clients that write and read it at the same time.
@main
struct NodeChecker: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "node-checker",
    abstract: "Proves that nodes lose and mix up no byte.",
    discussion: """
      Many clients write and read one byte at a time. The program records the start, the end and the result of each system \
      call. It then proves that the operations are linearizable: each byte that a client has read was written to this node \
      before, and was not overwritten yet. The clients write different bytes, 256 in all.

      Exit status: 0 if there is no fault; 1 if there is a fault; 64 for wrong usage.
      """)

  @Argument(help: ArgumentHelp("The nodes. Each node has clients of its own.", valueName: "node"))
  var nodes: [String]

  @Option(help: "The number of clients that write to a node.")
  var writers = 4

  @Option(help: "The number of clients that read from a node.")
  var readers = 4

  @Flag(help: "Makes every second client open the node for each operation anew.")
  var reopen = false

  @Option(help: "The length of the check in seconds.")
  var seconds = 5.0

  @Option(help: "The largest number of operations of each client.")
  var operations = Int.max

  @Option(
    help: ArgumentHelp(
      "The byte of each node at the start, two hex digits; any byte by default.", valueName: "byte"),
    transform: NodeChecker.parseByte)
  var initial: UInt8?

  @Flag(help: "Sends the clients signals that interrupt their system calls.")
  var interrupt = false

  @Flag(
    help: """
      Makes each client go on until a call fails, because the node goes away. Without this option, no call may fail.
      """)
  var untilError = false

  func validate() throws {
    guard writers > 0, readers >= 0, writers <= 256 else {
      throw ValidationError(
        "--writers is 1 to 256, as clients write different bytes; --readers is 0 or more")
    }
    guard seconds > 0, seconds < 1e6, operations > 0 else {
      throw ValidationError(
        "--seconds is more than 0 and less than a million; --operations is more than 0")
    }
  }

  func run() throws {
    try allowOpenFiles(nodes.count * (writers + readers))
    if interrupt { receiveSignals() }
    let checks = nodes.map {
      NodeCheck(
        $0, writers: writers, readers: readers, reopens: reopen,
        initial: initial.map { [$0] } ?? Array(0...255))
    }
    for client in checks.flatMap(\.clients) { client.open() }
    // The program that takes the node away waits for this line.
    print("all clients have opened it")
    fflush(nil)
    try makeRounds(checks)
    for check in checks { print(check.summary) }
    var faults = checks.flatMap { $0.faults(expectingFailures: untilError) }
    if !untilError && !checks.allSatisfy(\.hasWritten) {
      faults.append("there are nodes that took no byte")
    }
    if untilError && !checks.allSatisfy(\.hasFailedWhole) {
      faults.append("there are clients of which no call has failed")
    }
    for fault in faults { print("# \(fault)") }
    guard faults.isEmpty else { throw ExitCode.failure }
  }

  /// The largest number of operations of a client in a round. It limits the memory of the check.
  private static let operationsOfRound = 10_000
  /// The length of a round in nanoseconds.
  private static let timeOfRound: UInt64 = 200_000_000

  /// Makes rounds of operations and checks each at its end, until the time is over, or until each client has made all its
  /// operations or has failed.
  private func makeRounds(_ checks: [NodeCheck]) throws(Failure) {
    let end = now() + UInt64(seconds * 1e9)
    var number = 0
    // There is at least one round, because the clock jumps if the machine was stopped.
    repeat {
      let clients = checks.flatMap(\.clients).filter {
        $0.failure == nil && $0.operations < operations
      }
      if clients.isEmpty { return }
      let turn = number
      try makeOperations(
        of: clients.filter { $0.takesPart(in: turn, writers: writers) },
        in: Round(
          time: Self.timeOfRound, limit: end, operationsOfRound: Self.operationsOfRound,
          operations: operations, writersPause: turn % writers == writers - 1),
        interrupts: interrupt)
      for check in checks { check.takeHistories() }
      number += 1
    } while now() < end && checks.allSatisfy { $0.faults(expectingFailures: untilError).isEmpty }
  }

  private static func parseByte(_ text: String) throws -> UInt8 {
    guard text.utf8.count == 2, let byte = UInt8(text, radix: 16) else {
      throw ValidationError("'\(text)' is not a byte: give two hex digits")
    }
    return byte
  }
}

/// Raises the limit of open files so that each client can open its node. The limit of a shell is often 1024.
private func allowOpenFiles(_ count: Int) throws(Failure) {
  // The standard streams, and some files that are open for a moment.
  let needed = rlim_t(count + 16)
  var limit = rlimit()
  getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  guard needed <= limit.rlim_max else {
    throw Failure(
      "\(count) clients need \(needed) open files, and this process may have \(limit.rlim_max): ulimit -Hn \(needed) as root, or fewer clients"
    )
  }
  limit.rlim_cur = max(limit.rlim_cur, needed)
  setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
}

/// Makes SIGUSR1 interrupt system calls without another effect.
private func receiveSignals() {
  var action = sigaction()
  // Without SA_RESTART, the system call ends if it can.
  action.__sigaction_handler.sa_handler = { _ in }
  sigaction(SIGUSR1, &action, nil)
}
