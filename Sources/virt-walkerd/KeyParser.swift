/// A parser that takes the keys of letters out of a terminal's input, and leaves out the keys that send an escape sequence:
/// arrows, function keys, and a letter together with Alt.
struct KeyParser {
  private enum State {
    case key
    /// After ESC.
    case escape
    /// After ESC [: up to the final byte of the sequence (ECMA-48, 5.4).
    case controlSequence
    /// After ESC O: one more byte.
    case singleShift
  }

  private var state = State.key

  /// The key that `byte` completes; nil if the byte belongs to an escape sequence.
  mutating func parse(_ byte: UInt8) -> UInt8? {
    switch (state, byte) {
    case (_, 0x1b): state = .escape
    case (.key, _): return byte
    case (.escape, UInt8(ascii: "[")): state = .controlSequence
    case (.escape, UInt8(ascii: "O")): state = .singleShift
    case (.controlSequence, 0x20...0x3f): break
    case (.escape, _), (.controlSequence, _), (.singleShift, _): state = .key
    }
    return nil
  }
}
