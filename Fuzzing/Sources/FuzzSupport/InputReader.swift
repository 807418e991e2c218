/// Reads numbers from an input. Bytes that are missing at the end count as 0.
public struct InputReader {
  private var rest: ArraySlice<UInt8>

  public init(_ bytes: [UInt8]) { rest = bytes[...] }

  public var isAtEnd: Bool { rest.isEmpty }

  /// Reads a number, with its lowest byte first.
  public mutating func next<Number: FixedWidthInteger>(_ type: Number.Type = Number.self) -> Number
  {
    (0..<Number.bitWidth / 8).reduce(0) { number, place in
      number | Number(truncatingIfNeeded: rest.popFirst() ?? 0) << Number(8 * place)
    }
  }

  /// Chooses one of `values`.
  public mutating func next<Value>(of values: [Value]) -> Value {
    values[Int(next(UInt8.self)) % values.count]
  }
}
