/// The check of one node: its clients, and the results of their operations.
final class NodeCheck {
  let clients: [Client]
  private let node: String
  private var register: Register
  private var violation: Register.Violation?
  /// The operations that moved no byte, or more than one byte, without an error.
  private var odd: [Operation] = []
  private var counts: [Operation.Kind: Int] = [:]
  private var bytesRead: Set<UInt8> = []

  /// - Parameter initial: The possible bytes of the node at the start.
  init(_ node: String, writers: Int, readers: Int, reopens: Bool, initial: [UInt8]) {
    self.node = node
    register = Register(startingWith: initial)
    clients = (0..<writers + readers).map { number in
      let isWriter = number < writers
      return Client(
        isWriter ? .write : .read, of: node, number: number,
        reopens: reopens && number % 2 == 1,
        bytes: isWriter ? (0...255).filter { Int($0) % writers == number } : [])
    }
  }

  /// Checks the operations of a round.
  func takeHistories() {
    let history = clients.flatMap { $0.takeHistory() }
    for operation in history {
      switch operation.outcome {
      case .done:
        counts[operation.kind, default: 0] += 1
        if operation.kind == .read { bytesRead.insert(operation.byte) }
      case .failed: break
      case .moved: odd.append(operation)
      }
    }
    guard violation == nil else { return }
    do throws(Register.Violation) {
      try register.check(history)
    } catch {
      violation = error
    }
  }

  private var failures: [String] {
    clients.compactMap(\.failure).map { "\($0.call): \(message($0.errno))" }
  }

  var hasWritten: Bool { counts[.write] != nil }

  /// Whether a call of each client has failed.
  var hasFailedWhole: Bool { failures.count == clients.count }

  /// A line with the counts.
  var summary: String {
    let failed = Dictionary(grouping: failures) { $0 }
      .map { "\($0.value.count) x \($0.key)" }.sorted().joined(separator: ", ")
    return """
      \(node): \(counts[.write, default: 0]) writes, \(counts[.read, default: 0]) reads of \(bytesRead.count) bytes; \
      clients that failed: \(failed.isEmpty ? "0" : failed); \
      \(violation == nil ? "linearizable" : "NOT LINEARIZABLE")
      """
  }

  /// The faults of the node, in words.
  ///
  /// - Parameter expectingFailures: Whether calls may fail.
  func faults(expectingFailures: Bool) -> [String] {
    var faults: [String] = []
    if let violation { faults.append("\(violation)") }
    for operation in odd.prefix(10) {
      guard case .moved(let count) = operation.outcome else { continue }
      faults.append("\(operation) moved \(count) bytes, with no error")
    }
    if !expectingFailures { faults += Set(failures).sorted().map { "a call failed: \($0)" } }
    return faults.map { "\(node): \($0)" }
  }
}
