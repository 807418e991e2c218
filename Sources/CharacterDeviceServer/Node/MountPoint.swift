import CFuse
import CLinux
import Glibc
import Synchronization
import SystemPackage

/// The plain file or the directory that a FUSE server makes for its mount, and removes in the end.
final class MountPoint {
  enum Kind { case file, directory }

  let path: FilePath
  private let kind: Kind
  private let entry: DirectoryEntry
  /// The file or the directory itself, until it is mounted over.
  private let file: OwnedDescriptor
  private let identity: FileIdentity
  /// Whether this object made the file or directory. A directory that was there before stays.
  private let isMade: Bool
  /// The kernel's number of the mount; nil before there is one.
  private var mountID: Int? {
    didSet {
      Self.ownMounts.withLock {
        if let oldValue { $0.remove(oldValue) }
        if let mountID { $0.insert(mountID) }
      }
    }
  }
  /// The mounts that this process serves. A request of this process to one of them would wait for this process itself.
  private static let ownMounts = Mutex<Set<Int>>([])

  /// Makes the file or the directory; an empty directory may be there already.
  init(_ kind: Kind, _ path: FilePath, of application: Application) throws(NodeError) {
    self.kind = kind
    self.path = path
    do throws(Errno) {
      entry = try DirectoryEntry(path)
      switch kind {
      case .file: (file, isMade) = (try Self.makeFile(entry, application.mountPointText), true)
      case .directory: (file, isMade) = try Self.makeDirectory(entry)
      }
      identity = try FileIdentity(file.descriptor)
    } catch {
      let place =
        switch kind {
        case .file: application.advice.ownNode
        case .directory: application.advice.ownDirectory
        }
      throw NodeError(
        error, doing: "create", at: path,
        advice: error == .permissionDenied ? "run as root, or choose \(place)" : "choose \(place)")
    }
  }

  private static func makeFile(
    _ entry: DirectoryEntry, _ text: String
  ) throws(Errno) -> OwnedDescriptor {
    let file = try entry.open(O_WRONLY | O_CREAT | O_EXCL, mode: 0o600)
    do {
      _ = try file.descriptor.writeAll(text.utf8)
    } catch {
      // The disk may be full.
      entry.remove()
      throw error as? Errno ?? .ioError
    }
    return file
  }

  private static func makeDirectory(
    _ entry: DirectoryEntry
  ) throws(Errno) -> (OwnedDescriptor, isMade: Bool) {
    var isMade = true
    do throws(Errno) {
      try entry.makeDirectory(mode: 0o700)
    } catch .fileExists {
      isMade = false
    }
    return (try entry.open(O_RDONLY | O_DIRECTORY), isMade)
  }

  /// The path for mount(2). For root, this path stands for the file that was made, even if another file is at the node's path by then.
  /// In another user's directory, such a file could be a link to a file of root's.
  var target: String {
    geteuid() == 0 ? "/proc/self/fd/\(file.descriptor.rawValue)" : path.string
  }

  /// Notes the number of the mount, which is there now.
  func noteMount() {
    mountID = (try? Mounted(at: entry))?.id
    file.close()
  }

  /// The directory that ``remove()`` needs open.
  var directory: OwnedDescriptor { entry.directory }

  /// Checks that there is nothing at `path`, or an empty directory for the mount of a directory.
  static func checkIsFree(
    _ path: FilePath, for kind: Kind, _ advice: Application.Advice
  ) throws(NodeError) {
    guard kind == .directory else { return try checkNodeIsFree(path, advice) }
    guard let type = try? fileType(path) else { return }
    guard type == S_IFDIR, isEmpty(path) else {
      throw NodeError(
        .exists, "\(path) exists and is no empty directory",
        advice: advice.otherDirectory)
    }
  }

  private static func isEmpty(_ directory: FilePath) -> Bool {
    guard let stream = opendir(directory.string) else { return false }
    defer { closedir(stream) }
    var count = 0
    while readdir(stream) != nil { count += 1 }
    // "." and ".."
    return count <= 2
  }

  /// Removes the mount, if it is still there, and the file. Any other mount or file at the path stays.
  func remove() {
    if let mount = try? Mounted(at: entry), mount.id == mountID, mount.isDead {
      mount.unmount(path)
    }
    mountID = nil
    guard isMade, (try? entry.identity) == identity else { return }
    switch kind {
    case .file: entry.remove()
    case .directory: entry.removeDirectory()
    }
  }

  /// See ``MountedServer/removeStale(at:of:)``.
  static func removeStale(at path: FilePath, of application: Application) throws(NodeError) {
    // If the path cannot be reached, the server that is made next reports the reason.
    guard let entry = try? DirectoryEntry(path), let mount = try? Mounted(at: entry) else { return }
    guard !Self.ownMounts.withLock({ $0.contains(mount.id) }) else {
      throw NodeError(
        .exists, "\(path) is a node or a tree of this process already",
        advice: application.advice.otherDirectory)
    }
    if mount.id != (try? Mounted(entry.directory))?.id {
      // The mount of a server that runs stays, and so does a mount of another type. The type is compared first, because a request to a
      // server that hangs would not return.
      guard mount.type == "fuse.\(application.fileSystem)", mount.isDead else { return }
      guard mount.unmount(path) else {
        throw NodeError(
          .notPermitted,
          "\(path) is the mount of a \(application.name) that was killed, and cannot be unmounted: \(Errno.current)",
          advice: "as root: umount -l \(path)")
      }
      // This removes the directory below a tree, if it is empty.
      entry.removeDirectory()
    }
    if isOurs(entry, application.mountPointText) { entry.remove() }
  }

  /// Whether the entry is a plain file that ``init(_:_:of:)`` made.
  private static func isOurs(_ entry: DirectoryEntry, _ text: String) -> Bool {
    guard let file = try? entry.openRegularFile(O_RDONLY) else { return false }
    var content = [UInt8](repeating: 0, count: text.utf8.count + 1)
    let count = try? content.withUnsafeMutableBytes { try file.descriptor.read(into: $0) }
    return content.prefix(count ?? 0).elementsEqual(text.utf8)
  }
}

/// The mount at an entry of a directory. If the entry is not a mount point, the mount that contains the entry.
private struct Mounted {
  /// The root of the mount, if it was looked up at a mount point. While this is open, no other mount can take the place of this mount.
  private let root: OwnedDescriptor
  /// The kernel's number of the mount. When the mount is gone, another mount can get the number.
  let id: Int

  init(at entry: DirectoryEntry) throws(Errno) { try self.init(entry.open(CLINUX_O_PATH)) }

  /// The mount that contains a file or directory.
  init(_ file: OwnedDescriptor) throws(Errno) {
    root = file
    let information = open("/proc/self/fdinfo/\(root.descriptor.rawValue)", O_RDONLY | O_CLOEXEC)
    guard information >= 0 else { throw .current }
    defer { close(information) }
    var text = [UInt8](repeating: 0, count: 1024)
    let count = read(information, &text, text.count)
    let lines = String(decoding: text.prefix(max(0, count)), as: UTF8.self).split(separator: "\n")
    let name = "mnt_id:"
    guard let line = lines.first(where: { $0.hasPrefix(name) }),
      let id = Int(line.dropFirst(name.count).drop(while: \.isWhitespace))
    else { throw .ioError }
    self.id = id
  }

  /// Whether the server of the mount has ended. The mount of a dead server answers `ENOTCONN`, and no other mount does.
  var isDead: Bool {
    // This is not stat(2), because the kernel may answer stat(2) with attributes that it has kept from the dead server.
    var answer = statfs()
    return fstatfs(root.descriptor.rawValue, &answer) != 0
      && [ENOTCONN, ECONNABORTED].contains(errno)
  }

  /// The type of the file system, for example "fuse.mirror".
  var type: String? { (try? MountTable())?.type(ofMount: id) }

  /// Detaches this mount, as root or through fusermount3.
  @discardableResult
  func unmount(_ path: FilePath) -> Bool {
    if umount2("/proc/self/fd/\(root.descriptor.rawValue)", Int32(MNT_DETACH)) == 0 { return true }
    guard geteuid() != 0 else { return false }
    let arguments = ["fusermount3", "-u", "-z", "-q", "--", path.string]
    var child = pid_t()
    let result = withArgumentVector(arguments) {
      posix_spawnp(&child, arguments[0], nil, nil, $0, environ)
    }
    return result == 0 && waitForEnd(of: child) == 0
  }
}

/// The type bits of the mode of `path` itself.
func fileType(_ path: FilePath) throws(Errno) -> mode_t {
  var attributes = Glibc.stat()
  guard lstat(path.string, &attributes) == 0 else { throw .current }
  return attributes.st_mode & S_IFMT
}

/// Checks that nothing is at `path`.
func checkNodeIsFree(_ path: FilePath, _ words: Application.Advice) throws(NodeError) {
  let type: mode_t
  do throws(Errno) {
    type = try fileType(path)
  } catch .noSuchFileOrDirectory {
    return
  } catch {
    throw NodeError(error, doing: "look at", at: path, advice: "choose another node")
  }
  let (what, advice) =
    switch type {
    case S_IFREG:
      (
        "a regular file, perhaps from a write while no server ran",
        "rm \(path) if nobody needs it, or \(words.otherNode)"
      )
    case S_IFCHR: ("a character device", words.otherNode)
    case S_IFDIR: ("a directory", words.otherNode)
    case S_IFLNK: ("a symbolic link", words.otherNode)
    default: ("of another kind", words.otherNode)
    }
  throw NodeError(.exists, "\(path) exists and is not ours (\(what))", advice: advice)
}
