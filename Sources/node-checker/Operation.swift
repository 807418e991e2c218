/// An operation of a client on a node by one system call, with its times.
struct Operation {
  enum Kind { case write, read }

  /// The result of the system call.
  enum Outcome: Equatable {
    /// The call moved the byte.
    case done
    /// The call failed with this errno. The node may have taken the byte of a write nevertheless.
    case failed(Int32)
    /// The call moved another number of bytes than one.
    case moved(Int)
  }

  var client: Int
  var kind: Kind
  /// The byte that was written or read.
  var byte: UInt8
  /// The times before and after the system call, in nanoseconds.
  var start: UInt64
  var end: UInt64
  var outcome = Outcome.done
}
