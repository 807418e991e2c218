import CFuse
import CLinux
import Glibc
import SystemPackage

/// A file system of this process that is mounted over a file or a directory, which was made for it.
struct FuseMount {
  let session: FuseSession
  private let mountPoint: MountPoint

  /// Mounts the file system; when the call returns, it answers.
  ///
  /// - Throws: ``NodeError``; nothing is left behind then.
  init(
    over kind: MountPoint.Kind, _ path: FilePath, of application: Application,
    operations: fuse_lowlevel_ops, context: FuseSession.Context
  ) throws(NodeError) {
    try LibFuse.checkVersion()
    guard access("/dev/fuse", F_OK) == 0 else {
      throw NodeError(
        .unsupported, "/dev/fuse is missing",
        advice: "modprobe fuse; in a container, start it with --device /dev/fuse")
    }
    try MountPoint.checkIsFree(path, for: kind, application.advice)
    let name = application.fileSystem
    var options = ["default_permissions", "fsname=\(name),subtype=\(name)"]
    if geteuid() == 0 { options.append("allow_other") }
    var operations = operations
    let created = withFuseArguments(options: options) {
      cfuse_session_new(
        $0, &operations, MemoryLayout<fuse_lowlevel_ops>.size, context.userData)
    }
    guard let created else {
      throw NodeError(
        .system, "libfuse refused to make \(path)", advice: "see the messages of libfuse above")
    }
    let mountPoint: MountPoint
    do throws(NodeError) {
      mountPoint = try MountPoint(kind, path, of: application)
    } catch {
      fuse_session_destroy(created)
      throw error
    }
    self.mountPoint = mountPoint
    do throws(NodeError) {
      session = try FuseSession(
        created, context: context, mountPoint: mountPoint.target, what: path.string,
        mounted: mountPoint.noteMount)
    } catch {
      mountPoint.remove()
      throw error
    }
  }

  /// The directory that ``remove()`` needs open.
  var directory: OwnedDescriptor { mountPoint.directory }

  /// Unmounts the file system, and removes the file or directory that was made for it.
  func remove() { mountPoint.remove() }
}

/// The attributes of a new file for `stat(2)`, without its size. All times are the present time.
func fileAttributes(_ mode: mode_t, _ access: NodeAccess, inode: UInt64) -> Glibc.stat {
  var attributes = Glibc.stat()
  attributes.st_ino = ino_t(inode)
  attributes.st_nlink = mode & S_IFMT == S_IFDIR ? 2 : 1
  attributes.st_mode = mode
  attributes.st_uid = access.owner ?? geteuid()
  attributes.st_gid = access.group ?? getegid()
  attributes.st_blksize = 4096
  var now = timespec()
  clock_gettime(CLOCK_REALTIME, &now)
  attributes.st_atim = now
  attributes.st_mtim = now
  attributes.st_ctim = now
  return attributes
}

extension Glibc.stat {
  /// Sets the size and the number of blocks of 512 bytes. Without the blocks, programs would take the file for a sparse one.
  mutating func setSize(_ size: Int) {
    st_size = size
    st_blocks = (size + 511) / 512
  }
}
