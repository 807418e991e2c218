import Stage2Sim

/// A parser of one line, whose words have one space between them.
///
/// The names of what is expected are strings that only an error makes.
///
/// The parser compares words as bytes of ASCII. Swift's strings are equal if Unicode calls them equivalent, and U+212A would be
/// the `K` of `4K`.
struct LineParser {
  /// A word, and the column of its first byte.
  struct Word {
    let text: String
    let column: Int
    /// The offsets of bytes after a space of the line. The text does not contain these spaces.
    fileprivate(set) var spaces: [Int] = []

    /// The `count` bytes from `offset` on; all bytes to the end if `count` is nil.
    func part(from offset: Int, count: Int? = nil) -> Word {
      let rest = text.utf8.dropFirst(offset)
      return Word(
        text: String(decoding: rest.prefix(count ?? rest.count), as: UTF8.self),
        column: column + offset + spaces.count { $0 <= offset },
        spaces: spaces.filter { $0 > offset }.map { $0 - offset })
    }
  }

  private let bytes: [UInt8]
  private var position = 0
  private let line: Int

  /// - Throws: An error if the line is too long, or contains other bytes than printable ASCII.
  init(_ text: some StringProtocol, line: Int) throws(ScenarioError) {
    self.line = line
    // One byte more than allowed is enough to see that a line is too long.
    bytes = Array(text.utf8.prefix(Scenario.maximumLineLength + 1))
    try Scenario.checkLength(bytes.count, line: line)
    if let index = bytes.firstIndex(where: { !(0x20...0x7e).contains($0) }) {
      throw ScenarioError(
        line: line, column: index + 1,
        message: "expected printable ASCII, found \(Self.describe(bytes[index]))")
    }
  }

  private static func describe(_ byte: UInt8) -> String {
    switch byte {
    case UInt8(ascii: "\r"): "a carriage return: lines end with a newline alone"
    case UInt8(ascii: "\t"): "a tab: words have one space between them"
    default: "byte 0x\(String(byte, radix: 16))"
    }
  }

  var isAtEnd: Bool { position == bytes.count }

  func error(at column: Int, _ message: String) -> ScenarioError {
    ScenarioError(line: line, column: column, message: message)
  }

  func error(at word: Word, expected: String) -> ScenarioError {
    error(
      at: word.column,
      "expected \(expected), found \(word.text.isEmpty ? "nothing" : "'\(word.text)'")")
  }

  /// The next word.
  ///
  /// - Parameter expected: The words that are allowed here, for the error.
  mutating func word(_ expected: @autoclosure () -> String) throws(ScenarioError) -> Word {
    // The word before ends at a space or at the end of the line.
    if position > 0, !isAtEnd { position += 1 }
    guard !isAtEnd else {
      throw error(at: position + 1, "expected \(expected()), found the end of the line")
    }
    let end = bytes[position...].firstIndex(of: UInt8(ascii: " ")) ?? bytes.count
    guard end > position else {
      throw error(at: position + 1, "expected \(expected()), found one more space")
    }
    defer { position = end }
    return Word(
      text: String(decoding: bytes[position..<end], as: UTF8.self), column: position + 1)
  }

  /// The next words as one word without spaces. A word that ends with a comma is followed by another word of the operands.
  mutating func operands(_ expected: @autoclosure () -> String) throws(ScenarioError) -> Word {
    var operands = try word(expected())
    while operands.text.utf8.last == UInt8(ascii: ","), !isAtEnd {
      let next = try word(expected())
      operands = Word(
        text: operands.text + next.text, column: operands.column,
        spaces: operands.spaces + [operands.text.utf8.count])
    }
    return operands
  }

  /// The next word, which is one of `values`.
  mutating func word<Value>(
    oneOf values: KeyValuePairs<String, Value>
  ) throws(ScenarioError) -> Value {
    var names: String { alternatives(values.map(\.key)) }
    let word = try word(names)
    guard let found = values.first(where: { $0.key == word.text }) else {
      throw error(at: word, expected: names)
    }
    return found.value
  }

  /// The next word, which is one of the values of an enumeration.
  mutating func word<Value: CaseIterable & RawRepresentable<String>>(
    of type: Value.Type
  ) throws(ScenarioError) -> Value {
    var names: String { alternatives(type.allCases.map(\.rawValue)) }
    let word = try word(names)
    guard let value = Value(rawValue: word.text) else { throw error(at: word, expected: names) }
    return value
  }

  /// The next word as a number.
  mutating func number(_ expected: @autoclosure () -> String) throws(ScenarioError) -> UInt64 {
    try number(word(expected()), expected())
  }

  /// A number: decimal, or hex with 0x.
  func number(
    _ word: Word, _ expected: @autoclosure () -> String
  ) throws(ScenarioError) -> UInt64 {
    let isHex = word.text.hasPrefix("0x")
    let digits = word.text.utf8.dropFirst(isHex ? 2 : 0)
    let radix: UInt64 = isHex ? 16 : 10
    guard !digits.isEmpty, digits.allSatisfy({ Self.value(ofDigit: $0) < radix }) else {
      throw error(at: word, expected: "\(expected()), decimal or hex with 0x")
    }
    // Such a number is octal in C, and the recorder is a C program.
    guard isHex || digits.count == 1 || digits.first != UInt8(ascii: "0") else {
      throw error(at: word, expected: "\(expected()) without zeros in front")
    }
    var number: UInt64 = 0
    for digit in digits {
      let (high, overflow) = number.multipliedReportingOverflow(by: radix)
      let (sum, carry) = high.addingReportingOverflow(Self.value(ofDigit: digit))
      guard !overflow, !carry else {
        throw error(at: word, expected: "\(expected()) of at most 64 bits")
      }
      number = sum
    }
    return number
  }

  /// A decimal number in `range`.
  func decimal(
    _ word: Word, _ expected: @autoclosure () -> String, in range: ClosedRange<UInt64>
  ) throws(ScenarioError) -> UInt64 {
    guard !word.text.hasPrefix("0x"), let number = try? number(word, ""), range.contains(number)
    else {
      throw error(
        at: word, expected: "\(expected()), \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }

  /// The value of a digit; the largest number for any other byte.
  private static func value(ofDigit byte: UInt8) -> UInt64 {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt64(byte - UInt8(ascii: "0"))
    case UInt8(ascii: "a")...UInt8(ascii: "f"): UInt64(byte - UInt8(ascii: "a")) + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): UInt64(byte - UInt8(ascii: "A")) + 10
    default: .max
    }
  }

  /// - Throws: An error if the line goes on.
  func end() throws(ScenarioError) {
    guard !isAtEnd else { return }
    throw error(
      at: position + 1,
      "expected the end of the line, found '\(String(decoding: bytes[position...], as: UTF8.self))'"
    )
  }
}

/// `a`, `a or b`, `a, b or c`.
func alternatives(_ names: [String]) -> String {
  guard let last = names.last, names.count > 1 else { return names.first ?? "" }
  return "\(names.dropLast().joined(separator: ", ")) or \(last)"
}

/// `0x` and `value` in hexadecimal, with leading zeros up to `digits` digits.
package func hex(_ value: UInt64, digits: Int = 1) -> String {
  "0x\(hexadecimal(value, digits: digits))"
}

/// `0x` and an address in hex, with zeros in front to `digits`.
package func hex(_ address: some MachineAddress, digits: Int = 1) -> String {
  hex(address.rawValue, digits: digits)
}

/// An address of the guest as the recordings write it.
func address(_ address: some MachineAddress) -> String { hex(address, digits: 8) }
