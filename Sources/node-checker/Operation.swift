/// What a client did to a node with one system call, and when.
struct Operation {
  enum Kind { case write, read }

  /// How the system call ended.
  enum Outcome: Equatable {
    /// It moved the one byte.
    case done
    /// It failed with this errno. The node may have taken a byte to write all the same.
    case failed(Int32)
    /// It moved so many bytes, and not one.
    case moved(Int)
  }

  var client: Int
  var kind: Kind
  /// What was written or read.
  var byte: UInt8
  /// Before and after the system call, in nanoseconds.
  var start: UInt64
  var end: UInt64
  var outcome = Outcome.done
}
