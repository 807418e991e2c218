import SystemPackage

/// The place of a user's code in the simulated system.
public enum CodeKind: String, Hashable, Sendable, CaseIterable {
  /// A kernel module in the guest.
  case module
  /// A hook in the host's KVM.
  case hook
}

/// A process that was started to run a user's code, as the daemon's end of its channel.
public struct StartedCode: Sendable {
  /// The shared memory: `struct channel` (Kernel/runtime/channel.h).
  public let memory: FileDescriptor
  /// The daemon's end of the socket. Its end of file means that the process has ended.
  public let socket: FileDescriptor
  /// The process, as the launcher names it.
  public let process: Int32

  public init(memory: FileDescriptor, socket: FileDescriptor, process: Int32) {
    self.memory = memory
    self.socket = socket
    self.process = process
  }
}

/// A line of a user's source.
public struct SourcePlace: Hashable, Sendable {
  /// The name of the function, as the source has it.
  public let function: String
  /// The path of the file, as the user has given it.
  public let file: String
  /// The line, from 1; 0 if the compiler has not told.
  public let line: Int
  /// Whether the function is the user's, not the runtime's.
  public let isUsers: Bool

  public init(function: String, file: String, line: Int, isUsers: Bool) {
    self.function = function
    self.file = file
    self.line = line
    self.isUsers = isUsers
  }
}

/// The manner in which a process has ended.
public enum CodeEnd: Hashable, Sendable {
  case exited(Int32)
  case killed(signal: Int32)
}

/// The reason why a user's code does not run, for the user: the file and the line if there is one, and the next step.
public struct CodeFailure: Error, Hashable, Sendable, CustomStringConvertible {
  public let description: String

  public init(_ description: String) { self.description = description }
}

/// The part of the daemon that compiles a user's code, and starts processes that run it. It is outside of the daemon's sandbox.
///
/// Each function waits for its result.
public protocol CodeLauncher: AnyObject {
  /// Starts a process with the present program of a kind.
  func start(_ kind: CodeKind) throws(CodeFailure) -> StartedCode

  /// Makes memory for stage-2 tables that the daemon and the hook's process can share: memfd_create(2).
  func makeTableMemory(size: Int) throws(CodeFailure) -> FileDescriptor

  /// Whether a process is stopped, e.g. at a breakpoint of a debugger.
  func isStopped(_ process: Int32) -> Bool

  /// Kills a process if it still runs, and waits for its end.
  func end(_ process: Int32) -> CodeEnd

  /// The places of addresses in the program that `process` runs, the innermost function first. An address can have several places,
  /// as functions are inlined. An address without a place has an empty list.
  func places(of addresses: [UInt64], in process: Int32) -> [[SourcePlace]]
}
