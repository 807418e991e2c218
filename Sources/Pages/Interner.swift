/// A table of different values, each of which has a number.
struct Interner<Value: Hashable & Sendable>: Sendable {
  private(set) var values: [Value] = []
  private var numbers: [Value: Int] = [:]

  init(_ first: [Value] = []) { for value in first { _ = number(of: value) } }

  /// The number of a value, which is put into the table if it is not there.
  mutating func number(of value: Value) -> Int {
    if let number = numbers[value] { return number }
    numbers[value] = values.count
    values.append(value)
    return values.count - 1
  }
}
