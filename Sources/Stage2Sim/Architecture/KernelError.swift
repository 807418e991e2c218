/// An error that a function of the kernel returns as `-errno`.
public enum KernelError: Int32, Error, Hashable, Sendable, CaseIterable {
  /// ENOENT: nothing is there.
  case noEntry = 2
  /// EINTR: the caller has ended the operation (``Checkpoint``).
  case interrupted = 4
  /// E2BIG: a mapping does not fit the entry that was asked to hold it.
  case tooBig = 7
  /// ENOEXEC: instructions are in a place that can have none.
  case notExecutable = 8
  /// ECHILD: there is no child.
  case noChild = 10
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
  /// ERANGE: an address beyond the range that the table translates.
  case outOfRange = 34
  /// ENOSYS: the kernel does not emulate this access.
  case notImplemented = 38
  /// ETIMEDOUT: the expected event did not happen.
  case timedOut = 110

  // The model itself has no use for the others of asm-generic/errno-base.h: a user's hook can return them.

  /// EPERM
  case operationNotPermitted = 1
  /// ESRCH
  case noProcess = 3
  /// EIO
  case ioError = 5
  /// ENXIO
  case noSuchDevice = 6
  /// EBADF
  case badFile = 9
  /// EACCES
  case permissionDenied = 13
  /// ENOTBLK
  case noBlockDevice = 15
  /// EBUSY
  case busy = 16
  /// EXDEV
  case otherDevice = 18
  /// ENODEV
  case noDevice = 19
  /// ENOTDIR
  case noDirectory = 20
  /// EISDIR
  case isDirectory = 21
  /// ENFILE
  case tooManyFilesInSystem = 23
  /// EMFILE
  case tooManyFiles = 24
  /// ENOTTY
  case noTerminal = 25
  /// ETXTBSY
  case programBusy = 26
  /// EFBIG
  case fileTooBig = 27
  /// ENOSPC
  case noSpace = 28
  /// ESPIPE
  case illegalSeek = 29
  /// EROFS
  case readOnly = 30
  /// EMLINK
  case tooManyLinks = 31
  /// EPIPE
  case brokenPipe = 32
  /// EDOM
  case outOfDomain = 33
}

extension KernelError {
  /// The error with a name of <errno.h>; nil if the model has no such error.
  public init?(named name: some StringProtocol) {
    guard let error = Self.allCases.first(where: { $0.description == name }) else { return nil }
    self = error
  }
}

extension KernelError: CustomStringConvertible {
  /// The name in <errno.h>.
  public var description: String {
    switch self {
    case .noEntry: "ENOENT"
    case .interrupted: "EINTR"
    case .tooBig: "E2BIG"
    case .notExecutable: "ENOEXEC"
    case .noChild: "ECHILD"
    case .tryAgain: "EAGAIN"
    case .outOfMemory: "ENOMEM"
    case .badAddress: "EFAULT"
    case .exists: "EEXIST"
    case .invalidArgument: "EINVAL"
    case .outOfRange: "ERANGE"
    case .notImplemented: "ENOSYS"
    case .timedOut: "ETIMEDOUT"
    case .operationNotPermitted: "EPERM"
    case .noProcess: "ESRCH"
    case .ioError: "EIO"
    case .noSuchDevice: "ENXIO"
    case .badFile: "EBADF"
    case .permissionDenied: "EACCES"
    case .noBlockDevice: "ENOTBLK"
    case .busy: "EBUSY"
    case .otherDevice: "EXDEV"
    case .noDevice: "ENODEV"
    case .noDirectory: "ENOTDIR"
    case .isDirectory: "EISDIR"
    case .tooManyFilesInSystem: "ENFILE"
    case .tooManyFiles: "EMFILE"
    case .noTerminal: "ENOTTY"
    case .programBusy: "ETXTBSY"
    case .fileTooBig: "EFBIG"
    case .noSpace: "ENOSPC"
    case .illegalSeek: "ESPIPE"
    case .readOnly: "EROFS"
    case .tooManyLinks: "EMLINK"
    case .brokenPipe: "EPIPE"
    case .outOfDomain: "EDOM"
    }
  }
}

/// The reason why an operation on a stage-2 table ended early, and the place.
public struct Stage2Error: Error, Hashable, Sendable {
  /// The error that the kernel's function returns.
  public let code: KernelError
  /// The IPA that the operation was at.
  public let address: IntermediatePhysicalAddress
  /// The level of the entry that was in the way, 0 to 3; nil if the operation came to no entry.
  public let level: Int?
  /// The entry that was in the way.
  public let entry: Stage2Descriptor?

  /// An error with this code, at this address. A visitor makes its own with ``Visit/error(_:in:)``.
  public init(
    _ code: KernelError, address: IntermediatePhysicalAddress, level: Int? = nil,
    entry: Stage2Descriptor? = nil
  ) {
    self.code = code
    self.address = address
    self.level = level
    self.entry = entry
  }
}

extension Stage2Error: CustomStringConvertible {
  /// `EAGAIN at 0x40000000, level 3, entry 004000008000077f`
  public var description: String {
    var text = "\(code) at \(address)"
    if let level { text += ", level \(level)" }
    if let entry { text += ", entry \(entry)" }
    return text
  }
}
