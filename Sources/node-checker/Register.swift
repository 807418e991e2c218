/// The one byte of a node as a register. It proves that the operations of the clients are linearizable: each operation could have
/// happened at one moment between its start and its end.
///
/// The algorithm is just-in-time linearization (Wing and Gong 1993; Lowe 2017). It goes through the starts and ends of the
/// operations in their order, and keeps all states in which the register can be. An operation takes effect at its end at the
/// latest. Two rules keep the number of states small. A pending read takes effect as soon as the register has its byte. A pending
/// write may have taken effect right before the last write of the register, seen by pending reads or by no read. The algorithm
/// decides this only at the end of the write, or at the end of a read that saw the write.
struct Register {
  /// A possible state, without the time of the last write (``lastWrites``).
  private struct State: Hashable {
    var byte: UInt8
    /// The numbers of the pending operations that have taken effect.
    var done: Set<Int> = []
  }

  /// The possible states, each with the latest possible time of the last write. A later time allows more: pending writes that
  /// started before that time may have happened right before the last write, without being seen.
  private var lastWrites: [State: Int] = [:]

  private struct Pending {
    let operation: Operation
    let start: Int
  }

  /// The pending operations by their number. Failed writes stay pending, because they may take effect at any time or never.
  private var pending: [Int: Pending] = [:]
  /// The numbers of pending operations by their byte.
  private var pendingReads: [UInt8: Set<Int>] = [:]
  private var pendingWrites: [UInt8: Set<Int>] = [:]
  private var operations = 0
  /// The number of starts and ends so far, which is the time of the algorithm.
  private var time = 0

  /// - Parameter bytes: The possible bytes of the register at the start.
  init(startingWith bytes: some Sequence<UInt8>) {
    for byte in bytes { lastWrites[State(byte: byte)] = 0 }
  }

  /// The possible bytes of the register now.
  var possibleBytes: Set<UInt8> { Set(lastWrites.keys.map(\.byte)) }

  /// The reason why operations are not linearizable.
  struct Violation: Error, CustomStringConvertible {
    /// The operation that cannot have taken effect before its end.
    let operation: Operation
    /// The possible bytes of the register at that time.
    let possibleBytes: Set<UInt8>
    /// The other operations that had started and not ended.
    let pending: [Operation]

    var description: String {
      """
      \(operation) cannot be explained: the node could only have \
      \(possibleBytes.sorted().map(hex).joined(separator: " ")); at the same time: \
      \(pending.isEmpty ? "nothing" : pending.map { "\($0)" }.joined(separator: "; "))
      """
    }
  }

  /// Proves that `history` is linearizable after all histories before.
  ///
  /// - Parameter history: All operations since the last call, in any order. A failed write may have taken effect.
  mutating func check(_ history: [Operation]) throws(Violation) {
    var events: [(time: UInt64, isEnd: Bool, index: Int)] = []
    events.reserveCapacity(2 * history.count)
    for (index, operation) in history.enumerated() {
      let isCertain = operation.outcome == .done
      guard isCertain || operation.kind == .write else { continue }
      events.append((operation.start, false, index))
      if isCertain { events.append((operation.end, true, index)) }
    }
    // At equal times, starts come before ends, because the operations may overlap.
    events.sort { ($0.time, $0.isEnd ? 1 : 0) < ($1.time, $1.isEnd ? 1 : 0) }
    let first = operations
    operations += history.count
    for event in events {
      time += 1
      if event.isEnd {
        try end(first + event.index)
      } else {
        start(history[event.index], number: first + event.index)
      }
    }
  }

  private mutating func start(_ operation: Operation, number: Int) {
    pending[number] = Pending(operation: operation, start: time)
    switch operation.kind {
    case .write: pendingWrites[operation.byte, default: []].insert(number)
    case .read:
      pendingReads[operation.byte, default: []].insert(number)
      var states: [State: Int] = [:]
      for (var state, lastWrite) in lastWrites {
        if state.byte == operation.byte { state.done.insert(number) }
        states[state] = lastWrite
      }
      lastWrites = states
    }
  }

  private mutating func end(_ number: Int) throws(Violation) {
    guard let ended = pending[number] else { return }
    var states: [State: Int] = [:]
    func keep(_ state: State, _ lastWrite: Int) {
      var state = state
      state.done.remove(number)
      states[state] = max(lastWrite, states[state] ?? 0)
    }
    for (state, lastWrite) in lastWrites {
      guard !state.done.contains(number) else {
        keep(state, lastWrite)
        continue
      }
      let writes =
        ended.operation.kind == .write
        ? [number] : pendingWrites[ended.operation.byte, default: []].subtracting(state.done)
      for write in writes {
        keep(writing(write, in: state), time)
        if max(ended.start, pending[write]!.start) < lastWrite {
          keep(writing(write, in: state, before: lastWrite), lastWrite)
        }
      }
    }
    guard !states.isEmpty else {
      throw Violation(
        operation: ended.operation, possibleBytes: possibleBytes,
        pending: pending.filter { $0.key != number }.map(\.value.operation)
          .sorted { $0.start < $1.start })
    }
    lastWrites = states
    pending[number] = nil
    switch ended.operation.kind {
    case .write: pendingWrites[ended.operation.byte]?.remove(number)
    case .read: pendingReads[ended.operation.byte]?.remove(number)
    }
    if pendingReads[ended.operation.byte]?.isEmpty == true {
      pendingReads[ended.operation.byte] = nil
    }
  }

  /// The state in which `write` and the reads of its byte have just taken effect.
  private func writing(_ write: Int, in state: State) -> State {
    let byte = pending[write]!.operation.byte
    return State(byte: byte, done: state.done.union(pendingReads[byte] ?? []).union([write]))
  }

  /// The state in which `write` took effect right before the last write, and so did the reads of its byte that had started.
  private func writing(_ write: Int, in state: State, before lastWrite: Int) -> State {
    let reads = pendingReads[pending[write]!.operation.byte, default: []]
      .filter { pending[$0]!.start < lastWrite }
    return State(byte: state.byte, done: state.done.union(reads).union([write]))
  }
}

extension Operation: CustomStringConvertible {
  var description: String {
    let what = kind == .write ? "write of" : "read of"
    return "client \(client)'s \(what) \(hex(byte)) (\(start) to \(end) ns)"
  }
}

func hex(_ byte: UInt8) -> String {
  let digits = String(byte, radix: 16)
  return digits.utf8.count == 1 ? "0\(digits)" : digits
}
