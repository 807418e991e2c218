/// What a function of the kernel returns as `-errno`.
public enum KernelError: Int32, Error, Hashable, Sendable {
  /// E2BIG: a mapping does not fit the entry that was asked to hold it.
  case tooBig = 7
  /// ENOEXEC: instructions where there can be none.
  case notExecutable = 8
  /// EAGAIN: nothing to do, let the guest try again.
  case tryAgain = 11
  /// ENOMEM
  case outOfMemory = 12
  /// EFAULT
  case badAddress = 14
  /// EEXIST
  case exists = 17
  /// EINVAL
  case invalidArgument = 22
  /// ERANGE: an address beyond what the table translates.
  case outOfRange = 34
  /// ENOSYS: the kernel does not emulate this access.
  case notImplemented = 38
}

extension KernelError: CustomStringConvertible {
  /// The name in <errno.h>.
  public var description: String {
    switch self {
    case .tooBig: "E2BIG"
    case .notExecutable: "ENOEXEC"
    case .tryAgain: "EAGAIN"
    case .outOfMemory: "ENOMEM"
    case .badAddress: "EFAULT"
    case .exists: "EEXIST"
    case .invalidArgument: "EINVAL"
    case .outOfRange: "ERANGE"
    case .notImplemented: "ENOSYS"
    }
  }
}
