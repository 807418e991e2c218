import CFuse
import CLinux
import Glibc
import SystemPackage

/// The plain file or the directory that a FUSE server makes to mount over, and removes.
struct MountPoint {
  enum Kind { case file, directory }

  let path: FilePath
  let fileSystem: String
  private let kind: Kind
  /// The file or the directory itself, until it is mounted over.
  private let file: FileDescriptor
  private let identity: FileIdentity
  /// False for a directory that was there before, and stays.
  private let isMade: Bool

  /// What the file says to whoever finds it: only then is it taken for ours.
  private static let text = "mount point of virt-walkerd, which removes it when it ends\n"

  /// Makes the file or the directory; an empty directory may be there already.
  init(_ kind: Kind, _ path: FilePath, fileSystem: String) throws(NodeError) {
    self.kind = kind
    self.path = path
    self.fileSystem = fileSystem
    do {
      switch kind {
      case .file: (file, isMade) = (try Self.makeFile(path), true)
      case .directory: (file, isMade) = try Self.makeDirectory(path)
      }
      identity = try FileIdentity(file)
    } catch {
      let errno = error as? Errno ?? .ioError
      let place =
        switch kind {
        case .file: "a node that you may make: --path FILE"
        case .directory: "a directory that you may make: --tree DIR"
        }
      throw NodeError(
        errno, doing: "create", at: path,
        advice: errno == .permissionDenied
          ? "run as root, or choose \(place)" : "choose \(place)")
    }
  }

  private static func makeFile(_ path: FilePath) throws -> FileDescriptor {
    let file = try FileDescriptor.open(
      path, .writeOnly, options: [.create, .exclusiveCreate, .noFollow, .closeOnExec],
      permissions: [.ownerReadWrite])
    do {
      _ = try file.writeAll(text.utf8)
    } catch {
      // As where a disk is full.
      unlink(path.string)
      try? file.close()
      throw error
    }
    return file
  }

  private static func makeDirectory(_ path: FilePath) throws -> (FileDescriptor, isMade: Bool) {
    let isMade = mkdir(path.string, 0o700) == 0
    guard isMade || errno == EEXIST else { throw Errno.current }
    let directory = try FileDescriptor.open(
      path, .readOnly, options: [.directory, .noFollow, .closeOnExec])
    return (directory, isMade)
  }

  /// What mount(2) is to mount over. For root it is the file that was made, whatever stands at its path by then: in a
  /// directory of somebody else's that may be a link to a file of root's.
  var target: String { geteuid() == 0 ? "/proc/self/fd/\(file.rawValue)" : path.string }

  /// It is mounted over, or will not be.
  func release() { try? file.close() }

  /// - Throws: Where something is at `path` that cannot be mounted over.
  static func checkIsFree(_ path: FilePath, for kind: Kind) throws(NodeError) {
    guard kind == .directory else { return try checkNodeIsFree(path) }
    guard let type = try? fileType(path) else { return }
    guard type == S_IFDIR, isEmpty(path) else {
      throw NodeError(
        .exists, "\(path) exists and is no empty directory",
        advice: "choose another directory: --tree DIR")
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

  /// Takes away the mount, if it is still there, and the file.
  func remove() {
    if Self.isMounted(path, fileSystem: fileSystem) { Self.unmount(path) }
    guard isMade, (try? FileIdentity(path)) == identity else { return }
    switch kind {
    case .file: unlink(path.string)
    case .directory: rmdir(path.string)
    }
  }

  /// See ``FUSEServer/removeStale(at:fileSystem:)``.
  static func removeStale(at path: FilePath, fileSystem: String) throws(NodeError) {
    if isMounted(path, fileSystem: fileSystem) {
      // A dead server's mount answers ENOTCONN; anything else is somebody's.
      // Not stat(2), which the kernel may answer by what it remembers of the dead one.
      var answer = statfs()
      guard statfs(path.string, &answer) != 0, errno == ENOTCONN else { return }
      guard unmount(path) else {
        throw NodeError(
          .notPermitted,
          "\(path) is the mount of a virt-walkerd that was killed, and cannot be unmounted: \(Errno.current)",
          advice: "as root: umount -l \(path)")
      }
      // One over which a tree was mounted; it goes only if it is empty.
      rmdir(path.string)
    }
    if isOurs(path) { unlink(path.string) }
  }

  /// Whether the plain file at `path` is one that ``init(_:fileSystem:)`` made.
  private static func isOurs(_ path: FilePath) -> Bool {
    guard (try? fileType(path)) == S_IFREG,
      let file = try? FileDescriptor.open(path, .readOnly, options: [.noFollow, .closeOnExec])
    else { return false }
    var content = [UInt8](repeating: 0, count: text.utf8.count + 1)
    let count = try? file.closeAfter {
      try content.withUnsafeMutableBytes { try file.read(into: $0) }
    }
    return content.prefix(count ?? 0).elementsEqual(text.utf8)
  }

  /// Whether the topmost mount at `path` is of our type.
  private static func isMounted(_ path: FilePath, fileSystem: String) -> Bool {
    (try? MountTable())?.mount(at: path)?.type == "fuse.\(fileSystem)"
  }

  /// Detaches the mount at `path`, as root or through fusermount3.
  @discardableResult
  private static func unmount(_ path: FilePath) -> Bool {
    if umount2(path.string, Int32(MNT_DETACH | UMOUNT_NOFOLLOW)) == 0 {
      return true
    }
    let arguments = ["fusermount3", "-u", "-z", "-q", "--", path.string]
    var child = pid_t()
    let result = withArgumentVector(arguments) {
      posix_spawnp(&child, arguments[0], nil, nil, $0, environ)
    }
    return result == 0 && waitForEnd(of: child) == 0
  }
}

/// Which file a path or a descriptor stands for.
package struct FileIdentity: Equatable {
  let device: dev_t
  let inode: ino_t

  package init(_ path: FilePath) throws(Errno) {
    var attributes = Glibc.stat()
    guard lstat(path.string, &attributes) == 0 else { throw .current }
    self.init(attributes)
  }

  package init(_ file: FileDescriptor) throws(Errno) {
    var attributes = Glibc.stat()
    guard fstat(file.rawValue, &attributes) == 0 else { throw .current }
    self.init(attributes)
  }

  private init(_ attributes: Glibc.stat) {
    device = attributes.st_dev
    inode = attributes.st_ino
  }
}

/// The type bits of the mode of `path` itself.
func fileType(_ path: FilePath) throws(Errno) -> mode_t {
  var attributes = Glibc.stat()
  guard lstat(path.string, &attributes) == 0 else { throw .current }
  return attributes.st_mode & S_IFMT
}

/// - Throws: Where something is at `path` already.
func checkNodeIsFree(_ path: FilePath) throws(NodeError) {
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
        "a regular file, perhaps of a write while no daemon ran",
        "rm \(path) if nobody needs it, or choose another node with --name or --path"
      )
    case S_IFCHR: ("a character device", "choose another node with --name or --path")
    case S_IFDIR: ("a directory", "choose another node with --name or --path")
    case S_IFLNK: ("a symbolic link", "choose another node with --name or --path")
    default: ("of another kind", "choose another node with --name or --path")
    }
  throw NodeError(.exists, "\(path) exists and is not ours (\(what))", advice: advice)
}
