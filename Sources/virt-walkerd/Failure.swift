import ArgumentParser
import CharacterDeviceServer
import Glibc
import KernelLab
import Scenarios
import SystemPackage
import UserCode

/// An error that ends a command: a line for the user, and an exit status for scripts (sysexits.h).
struct Failure: Error {
  let description: String
  let status: ExitCode
  /// Lines before the description, such as those of a compiler.
  let lines: [String]

  init(_ description: String, status: ExitCode, after lines: [String] = []) {
    self.description = description
    self.status = status
    self.lines = lines
  }

  init(_ failure: CodeFailure) {
    let lines = failure.description.split(separator: "\n").map(String.init)
    if lines.count > 1 {
      self.init(
        "the code does not compile: the lines above say where", status: .dataError, after: lines)
    } else {
      self.init(failure.description, status: .dataError)
    }
  }

  /// Describes the failure of an engine, whose reason stands before the last lines of the kernels.
  init(_ failure: EngineFailure) {
    self.init(failure.reason, status: .unavailable, after: failure.details)
  }

  init(_ failure: LabFailure) {
    self.init(failure.description, status: .dataError, after: failure.lines)
  }

  init(_ error: NodeError) {
    let status: ExitCode =
      switch error.kind {
      case .unsupported: .unavailable
      case .notPermitted: .noPermission
      case .exists: .cannotCreate
      case .system: .systemError
      }
    self.init(error.description, status: status)
  }

  /// Describes an error of the system with a file of the daemon.
  init(_ errno: Errno, doing action: String, at path: FilePath, advice: String) {
    self.init(
      "cannot \(action) \(path): \(errno): \(advice)",
      status: errno == .permissionDenied || errno == .notPermitted
        ? .noPermission : .cannotCreate)
  }
}

extension ExitCode {
  /// EX_DATAERR
  static let dataError = ExitCode(65)
  /// EX_NOINPUT
  static let noInput = ExitCode(66)
  /// EX_UNAVAILABLE
  static let unavailable = ExitCode(69)
  /// EX_OSERR
  static let systemError = ExitCode(71)
  /// EX_CANTCREAT
  static let cannotCreate = ExitCode(73)
  /// EX_NOPERM
  static let noPermission = ExitCode(77)
  /// The exit status that the LSB gives to `status` of an init script if the program does not run.
  static let notRunning = ExitCode(3)
}

/// Runs `body`. A failure is printed to standard error, and its status becomes the exit status.
func reportingFailures(_ body: () throws -> Void) throws {
  do {
    try body()
  } catch {
    let failure: Failure
    switch error {
    case let error as Failure: failure = error
    case let error as NodeError: failure = Failure(error)
    case let error as CodeFailure: failure = Failure(error)
    case let error as EngineFailure: failure = Failure(error)
    case let error as LabFailure: failure = Failure(error)
    case let error as Errno: failure = Failure("\(error)", status: .systemError)
    default: throw error
    }
    let lines = failure.lines.map { $0.printable(allowing: ["\t"]) + "\n" }.joined()
    _ = try? FileDescriptor.standardError.writeAll(
      "\(lines)virt-walkerd: \(failure.description.printable)\n".utf8)
    throw failure.status
  }
}
