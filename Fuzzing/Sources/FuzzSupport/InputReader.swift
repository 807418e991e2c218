/// Takes an input apart into numbers. What is missing at its end is 0.
public struct InputReader {
  private var rest: ArraySlice<UInt8>

  public init(_ bytes: [UInt8]) { rest = bytes[...] }

  public var isAtEnd: Bool { rest.isEmpty }

  /// The next number, its lowest byte first.
  public mutating func next<Number: FixedWidthInteger>(_ type: Number.Type = Number.self) -> Number
  {
    (0..<Number.bitWidth / 8).reduce(0) { number, place in
      number | Number(truncatingIfNeeded: rest.popFirst() ?? 0) << Number(8 * place)
    }
  }

  /// One of `values`.
  public mutating func next<Value>(of values: [Value]) -> Value {
    values[Int(next(UInt8.self)) % values.count]
  }
}
