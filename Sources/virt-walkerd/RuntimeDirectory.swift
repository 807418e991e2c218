import CharacterDeviceServer
import Glibc
import SystemPackage

/// A directory with a record of each node that is served, and with the locks of the nodes.
///
/// Only its owner can write to it. All users can read root's directory, so that any user of a node can see which daemon
/// serves it. The locks are in a directory that only the owner can enter.
final class RuntimeDirectory {
  let path: FilePath
  /// The directory with the records.
  private(set) var records: OwnedDescriptor
  /// The directory with the locks.
  private(set) var locks: OwnedDescriptor
  private let entry: DirectoryEntry

  private static let locksName = "lock"

  /// The directory of root's daemons.
  static let system: FilePath = "/run/virt-walkerd"

  /// The directory of the caller's daemons.
  static var own: FilePath {
    if geteuid() == 0 { return system }
    if let base = getenv("XDG_RUNTIME_DIR") {
      var attributes = stat()
      if stat(base, &attributes) == 0, attributes.st_uid == geteuid() {
        return FilePath(platformString: base).appending("virt-walkerd")
      }
    }
    return FilePath("/tmp/virt-walkerd-\(geteuid())")
  }

  /// Opens the caller's directory, and makes it if it is missing.
  init() throws {
    path = Self.own
    do throws(Errno) {
      entry = try DirectoryEntry(path)
    } catch {
      throw Failure(refused: error, doing: "create", at: path)
    }
    (records, locks) = try Self.make(path, entry)
  }

  /// Makes the directory anew, after the daemon that ended last has removed it.
  func makeAgain() throws { (records, locks) = try Self.make(path, entry) }

  private static func make(
    _ path: FilePath, _ entry: DirectoryEntry
  ) throws -> (OwnedDescriptor, OwnedDescriptor) {
    while true {
      let isRoot = geteuid() == 0
      let records = try make(entry, mode: isRoot ? 0o755 : 0o700, at: path)
      guard let records else { continue }
      let locksPath = path.appending(locksName)
      do {
        let locks = try make(DirectoryEntry(locksName, in: records), mode: 0o700, at: locksPath)
        if let locks { return (records, locks) }
      } catch {
        entry.removeDirectory()
        throw error
      }
    }
  }

  /// - Returns: The directory; nil if another process has just removed it.
  private static func make(
    _ entry: DirectoryEntry, mode: mode_t, at path: FilePath
  ) throws -> OwnedDescriptor? {
    do throws(Errno) {
      try entry.makeDirectory(mode: mode)
    } catch .fileExists {
    } catch .noSuchFileOrDirectory where path.lastComponent?.string == locksName {
      return nil
    } catch {
      throw Failure(refused: error, doing: "create", at: path)
    }
    let directory = try open(entry, owner: geteuid(), allowed: mode, at: path)
    // The umask of the first daemon must not close root's directory to the users of the later daemons.
    if let directory { fchmod(directory.descriptor.rawValue, mode) }
    return directory
  }

  /// Opens a directory to list its records.
  ///
  /// - Returns: The directory; nil if there is none.
  static func records(in path: FilePath) throws -> OwnedDescriptor? {
    let isSystem = path == system
    guard let entry = try? DirectoryEntry(path) else { return nil }
    return try open(
      entry, owner: isSystem ? 0 : geteuid(), allowed: isSystem ? 0o755 : 0o700, at: path)
  }

  /// Opens a directory whose content can be trusted: it belongs to `owner`, and other users have no rights except
  /// `allowed`.
  private static func open(
    _ entry: DirectoryEntry, owner: uid_t, allowed: mode_t, at path: FilePath
  ) throws -> OwnedDescriptor? {
    let foreign = Failure(
      "\(path) belongs to another user: \(advice(remove: path))", status: .noPermission)
    let directory: OwnedDescriptor
    let attributes: stat
    do throws(Errno) {
      directory = try entry.open(O_RDONLY | O_DIRECTORY)
      attributes = try directory.descriptor.attributes()
    } catch .noSuchFileOrDirectory {
      return nil
    } catch {
      if error == .permissionDenied, (try? entry.attributes)?.st_uid != owner { throw foreign }
      throw Failure(
        error, doing: "open the directory", at: path, advice: advice(remove: path))
    }
    guard attributes.st_uid == owner else { throw foreign }
    guard attributes.st_mode & 0o777 & ~allowed == 0 else {
      throw Failure(
        "\(path) is open to other users, so its content cannot be trusted: \(advice(remove: path))",
        status: .noPermission)
    }
    return directory
  }

  private static func advice(remove path: FilePath) -> String {
    geteuid() == 0
      ? "remove it: rm -r \(path)"
      : "remove it, or set XDG_RUNTIME_DIR to a directory of yours"
  }

  /// Removes the directory after its last record.
  func removeIfEmpty() {
    DirectoryEntry(Self.locksName, in: records).removeDirectory()
    entry.removeDirectory()
  }

  /// The descriptors that ``removeIfEmpty()`` and ``NodeLock/release()`` need to be open.
  var descriptors: [OwnedDescriptor] { [entry.directory, records, locks] }
}

extension Failure {
  /// Describes a failure to write in a directory or to a file.
  init(refused errno: Errno, doing action: String, at path: FilePath) {
    let advice =
      switch errno {
      case .noSpace: "make room there: df and df -i show the full file system"
      case .readOnlyFileSystem: "mount its file system writable"
      case .fileTooLarge: "allow larger files: ulimit -f unlimited"
      default: "make it writable for you"
      }
    self.init(errno, doing: action, at: path, advice: advice)
  }
}
