import CharacterDeviceServer
import Glibc
import SystemPackage

/// The directory with the trees of a daemon that serves several nodes. The daemon makes it if it is missing, and
/// removes it at its end.
struct TreesDirectory {
  private let entry: DirectoryEntry
  private let identity: FileIdentity

  /// Makes the directory; nil if something exists at the path already, which stays.
  init?(_ path: FilePath) throws {
    do throws(Errno) {
      entry = try DirectoryEntry(path)
      do throws(Errno) {
        try entry.makeDirectory(mode: 0o700)
      } catch .fileExists {
        return nil
      }
      do throws(Errno) {
        let directory = try entry.open(O_RDONLY | O_DIRECTORY)
        // The mode does not depend on the umask: each tree in the directory has access rights of its own.
        guard fchmod(directory.descriptor.rawValue, 0o755) == 0 else { throw .current }
        identity = try FileIdentity(directory.descriptor)
      } catch {
        entry.removeDirectory()
        throw error
      }
    } catch {
      throw Failure(
        error, doing: "create", at: path, advice: "choose a directory that you may make: --tree DIR"
      )
    }
  }

  /// Removes the directory, unless it has content or another directory has replaced it.
  func remove() {
    if (try? entry.identity) == identity { entry.removeDirectory() }
  }

  /// The directory that ``remove()`` needs to be open.
  var directory: OwnedDescriptor { entry.directory }
}
