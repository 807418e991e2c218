import CharacterDeviceServer
import Glibc
import SystemPackage

extension FilePath {
  /// Opens a file of this tree.
  ///
  /// - Throws: ``Failure`` with the next step.
  func openTreeFile(
    _ name: String, _ mode: FileDescriptor.AccessMode = .readOnly,
    options: FileDescriptor.OpenOptions = [.nonBlocking, .closeOnExec]
  ) throws -> FileDescriptor {
    let path = appending(name)
    do {
      return try FileDescriptor.open(path, mode, options: options)
    } catch {
      throw path.failureOfOpen(error as? Errno ?? .ioError)
    }
  }

  /// The failure for a file or a directory of a tree that cannot be opened.
  func failureOfOpen(_ error: Errno) -> Failure {
    error == .permissionDenied
      ? Failure(
        "cannot open \(self): \(error): run as the daemon's user, or serve with another --tree-mode",
        status: .noPermission)
      : Failure(
        "cannot open \(self): \(error): virt-walkerd status lists the trees", status: .noInput)
  }
}
