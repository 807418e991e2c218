import CharacterDeviceServer
import Glibc
import SystemPackage

/// The directory in which a daemon of several nodes has their trees. It is made if it is missing, and removed in the end.
struct TreesDirectory {
  private let entry: DirectoryEntry
  private let identity: FileIdentity

  /// Makes the directory; nil if something is there already, which stays.
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
        // Each tree in it says who may enter, whatever the umask is.
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

  /// Removes the directory, if it is empty and no other one is there by now.
  func remove() {
    if (try? entry.identity) == identity { entry.removeDirectory() }
  }

  /// What ``remove()`` needs to be open.
  var directory: OwnedDescriptor { entry.directory }
}
