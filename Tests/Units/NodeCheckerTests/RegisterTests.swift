import SeededRandom
import Testing

@testable import node_checker

/// Tests with histories that a register can have, and with histories that only a faulty register has.
@Suite struct RegisterTests {
  /// One operation of a history: its byte, start and end.
  private func write(
    _ byte: UInt8, _ start: UInt64, _ end: UInt64, _ outcome: Operation.Outcome = .done
  ) -> Operation {
    Operation(client: 0, kind: .write, byte: byte, start: start, end: end, outcome: outcome)
  }

  private func read(_ byte: UInt8, _ start: UInt64, _ end: UInt64) -> Operation {
    Operation(client: 1, kind: .read, byte: byte, start: start, end: end)
  }

  private func isLinearizable(_ history: [Operation]) -> Bool {
    var register = Register(startingWith: [0])
    do throws(Register.Violation) {
      try register.check(history)
      return true
    } catch {
      return false
    }
  }

  @Test func whatARegisterCanDo() {
    #expect(isLinearizable([]))
    #expect(isLinearizable([read(0, 1, 2), write(1, 3, 4), read(1, 5, 6)]))
    // During a write, a read gives the old or the new byte. After the new byte, no read gives the old one.
    #expect(isLinearizable([write(1, 1, 9), read(0, 2, 3), read(1, 4, 5), read(1, 6, 7)]))
    // Either of two simultaneous writes can be the last.
    #expect(isLinearizable([write(1, 1, 5), write(2, 2, 6), read(1, 7, 8)]))
    #expect(isLinearizable([write(1, 1, 5), write(2, 2, 6), read(2, 7, 8)]))
    // Two readers see both bytes, one after the other.
    #expect(isLinearizable([write(1, 1, 9), write(2, 1, 9), read(2, 2, 3), read(1, 4, 5)]))
    // A long read can give the byte of any moment in its duration.
    #expect(isLinearizable([read(1, 1, 20), write(1, 2, 3), write(2, 4, 5), read(2, 6, 7)]))
  }

  @Test func lostWriteIsFound() {
    #expect(!isLinearizable([write(1, 1, 2), read(0, 3, 4)]))
    #expect(!isLinearizable([write(1, 1, 2), write(2, 3, 4), read(1, 5, 6)]))
  }

  @Test func staleReadIsFound() {
    #expect(!isLinearizable([write(1, 1, 9), read(1, 2, 3), read(0, 4, 5)]))
    #expect(
      !isLinearizable([
        write(1, 1, 9), write(2, 1, 9), read(1, 2, 3), read(2, 4, 5), read(1, 6, 7),
      ]))
    // One of the two cannot be both before and after the third.
    #expect(
      !isLinearizable([
        write(1, 1, 2), write(2, 3, 9), read(2, 4, 5), write(3, 6, 7), read(2, 10, 11),
      ]))
  }

  @Test func byteThatNobodyWroteIsFound() {
    #expect(!isLinearizable([write(1, 1, 2), read(3, 3, 4)]))
    #expect(!isLinearizable([read(1, 1, 2), write(1, 3, 4)]))
  }

  /// Two registers get each other's writes.
  @Test func mixedUpRegistersAreFound() {
    #expect(isLinearizable([write(1, 1, 2), read(1, 5, 6)]))
    #expect(isLinearizable([write(2, 3, 4), read(2, 5, 6)]))
    #expect(!isLinearizable([write(1, 1, 2), read(2, 5, 6)]))
    #expect(!isLinearizable([write(2, 3, 4), read(1, 5, 6)]))
  }

  /// A failed write may take effect once at any later time, or never.
  @Test func failedWrite() {
    let failed = write(1, 1, 2, .failed(5))
    #expect(isLinearizable([failed, read(0, 3, 4)]))
    #expect(isLinearizable([failed, read(1, 3, 4)]))
    #expect(isLinearizable([failed, read(0, 3, 4), read(1, 5, 6)]))
    #expect(!isLinearizable([failed, read(1, 3, 4), read(0, 5, 6)]))
    #expect(!isLinearizable([failed, read(1, 3, 4), write(2, 5, 6), read(1, 7, 8)]))
    #expect(!isLinearizable([read(1, 0, 0), failed]))
  }

  /// The next history begins with the bytes that the last one leaves possible, and with no others.
  @Test func historiesAreContinued() throws {
    var register = Register(startingWith: [0])
    try register.check([write(1, 1, 5), write(2, 2, 6), write(3, 3, 4, .failed(5))])
    #expect(register.possibleBytes == [1, 2])
    try register.check([read(3, 7, 8), write(1, 9, 10), read(1, 11, 12)])
    #expect(throws: Register.Violation.self) { try register.check([read(3, 13, 14)]) }
  }

  @Test func anyByteToStartWith() throws {
    var register = Register(startingWith: 0...255)
    try register.check([read(7, 1, 2)])
    #expect(throws: Register.Violation.self) { try register.check([read(8, 3, 4)]) }
  }

  @Test func violationNamesTheOperation() {
    var register = Register(startingWith: [0])
    let violation = #expect(throws: Register.Violation.self) {
      try register.check([write(0x41, 1, 2), write(0x42, 3, 9), read(0x0b, 4, 5)])
    }
    #expect(
      violation?.description
        == "client 1's read of 0b (4 to 5 ns) cannot be explained: the node could only have 41; at the same time: client 0's write of 42 (3 to 9 ns)"
    )
  }

  /// Hundreds of simultaneous clients have more orders than can be tried.
  @Test func manyAtOnce() {
    var history: [Operation] = []
    for number: UInt64 in 0..<100 {
      history.append(write(UInt8(number), number, 2000 + number * 37 % 100))
    }
    for number: UInt64 in 0..<300 {
      history.append(read(UInt8(number * 7 % 100), 100 + number, 1500 + number * 11 % 800))
    }
    #expect(isLinearizable(history))
    history.append(read(200, 100, 2000))
    #expect(!isLinearizable(history))
  }

  /// Random short histories, compared with a search through all orders.
  @Test(arguments: 0..<8)
  func sameAsTryingAllOrders(seed: UInt64) {
    var generator = SplitMix64(seed: seed + 1)
    var linearizable = 0
    for _ in 0..<4000 {
      let history = (0..<Int.random(in: 2...7, using: &generator)).map { number in
        let start = UInt64.random(in: 0...12, using: &generator)
        let isWrite = Bool.random(using: &generator)
        return Operation(
          client: number, kind: isWrite ? .write : .read,
          byte: UInt8.random(in: 0...2, using: &generator), start: start,
          end: start + UInt64.random(in: 0...6, using: &generator),
          outcome: isWrite && Int.random(in: 0..<8, using: &generator) == 0 ? .failed(5) : .done)
      }
      let expected = hasOrder(history, byte: 0)
      #expect(isLinearizable(history) == expected, "\(history)")
      if expected { linearizable += 1 }
    }
    // Otherwise, the comparison would prove little.
    #expect((400...3600).contains(linearizable))
  }

  /// Whether some order of `history` is possible. All orders are tried.
  private func hasOrder(_ history: [Operation], byte: UInt8) -> Bool {
    let isOver = history.allSatisfy { $0.outcome != .done }
    if isOver { return true }
    return history.indices.contains { index in
      let operation = history[index]
      var rest = history
      rest.remove(at: index)
      // An operation that ended before another began cannot come later.
      guard !rest.contains(where: { $0.outcome == .done && $0.end < operation.start }) else {
        return false
      }
      switch operation.kind {
      case .write: return hasOrder(rest, byte: operation.byte)
      case .read: return operation.byte == byte && hasOrder(rest, byte: byte)
      }
    }
  }
}
