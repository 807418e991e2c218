import CharacterDeviceServer
import Glibc
import Scenarios
import SystemPackage

/// The file of a page. An older file is there as a whole until the new one is.
struct PageFile {
  /// The path that the user gave.
  let path: String

  /// - Throws: ``Failure`` if something else than a regular file is there.
  init(_ path: String) throws {
    self.path = path
    var status = stat()
    guard lstat(path, &status) == 0 else {
      // The error of making the file tells more than this one.
      return
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
      throw Failure(
        "cannot replace \(path): it is no regular file: give the path of a new file for the page",
        status: .cannotCreate)
    }
  }

  /// Writes a new file, which then takes the place of the older one.
  func replace(with text: String) throws {
    let new = "\(path).\(getpid()).new"
    do {
      let file = try FileDescriptor.open(
        FilePath(new), .writeOnly, options: [.create, .exclusiveCreate, .closeOnExec, .noFollow],
        permissions: [.ownerReadWrite, .groupRead, .otherRead])
      do {
        try file.closeAfter { _ = try file.writeAll(text.utf8) }
        guard rename(new, path) == 0 else { throw Errno(rawValue: errno) }
      } catch {
        unlink(new)
        throw error
      }
    } catch let error as Errno {
      throw Failure(
        error, doing: "write", at: FilePath(path), advice: "give another path for the page")
    }
  }
}
