/// The one byte of a node as all that its clients did lets it be: proves that their operations are linearizable, that is, that
/// each could have happened at one moment between its start and its end.
///
/// Just-in-time linearization (Wing and Gong 1993; Lowe 2017): goes through the starts and ends of the operations in their
/// order, and keeps all states in which the register can be. An operation takes effect when its end comes, at the latest.
/// Two things keep the states few. A pending read takes effect as soon as the register has its byte. And a pending write may
/// have taken effect right before the last one that the register has, seen by pending reads or by nobody: that is decided only
/// when its end comes, or the end of a read that saw it.
struct Register {
  /// A possible state, but for ``lastWrites``.
  private struct State: Hashable {
    var byte: UInt8
    /// Those of the pending operations that have taken effect.
    var done: Set<Int> = []
  }

  /// The possible states, each with the latest time at which the last write may have taken effect. Later is better: the pending
  /// writes that started before may have happened right before it, unseen.
  private var lastWrites: [State: Int] = [:]

  private struct Pending {
    let operation: Operation
    let start: Int
  }

  /// By number; those of failed writes for ever, as nobody knows when they take effect, if they do.
  private var pending: [Int: Pending] = [:]
  /// The numbers of pending operations by their byte.
  private var pendingReads: [UInt8: Set<Int>] = [:]
  private var pendingWrites: [UInt8: Set<Int>] = [:]
  private var operations = 0
  /// Starts and ends so far: the time that counts.
  private var time = 0

  /// - Parameter bytes: What it may have in the beginning.
  init(startingWith bytes: some Sequence<UInt8>) {
    for byte in bytes { lastWrites[State(byte: byte)] = 0 }
  }

  /// What it may have now.
  var possibleBytes: Set<UInt8> { Set(lastWrites.keys.map(\.byte)) }

  /// Why operations are not linearizable.
  struct Violation: Error, CustomStringConvertible {
    /// The operation that cannot have taken effect until its end.
    let operation: Operation
    /// What the register could have had then.
    let possibleBytes: Set<UInt8>
    /// What had started and not ended.
    let pending: [Operation]

    var description: String {
      """
      \(operation) cannot be explained: the node could only have \
      \(possibleBytes.sorted().map(hex).joined(separator: " ")); at the same time: \
      \(pending.isEmpty ? "nothing" : pending.map { "\($0)" }.joined(separator: "; "))
      """
    }
  }

  /// Proves `history` linearizable after all the histories before.
  ///
  /// - Parameter history: All operations since, in any order. Of those that failed, writes may have taken effect.
  mutating func check(_ history: [Operation]) throws(Violation) {
    var events: [(time: UInt64, isEnd: Bool, index: Int)] = []
    events.reserveCapacity(2 * history.count)
    for (index, operation) in history.enumerated() {
      let isCertain = operation.outcome == .done
      guard isCertain || operation.kind == .write else { continue }
      events.append((operation.start, false, index))
      if isCertain { events.append((operation.end, true, index)) }
    }
    // At the same time everything starts first: it may have been at once.
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

  /// The state in which `write` has just taken effect, and the reads that have its byte.
  private func writing(_ write: Int, in state: State) -> State {
    let byte = pending[write]!.operation.byte
    return State(byte: byte, done: state.done.union(pendingReads[byte] ?? []).union([write]))
  }

  /// The state in which `write` took effect right before the last one, and the reads that had started and have its byte.
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
