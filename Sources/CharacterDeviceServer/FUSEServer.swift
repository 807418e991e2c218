import CFuse
import CLinux
import Glibc
import SystemPackage

/// Serves a device as a file at any path, through the kernel's FUSE, where there is no CUSE.
///
/// The server makes a plain file and mounts over it a file system whose root is itself a regular file. Answers come as
/// near to a character device's as FUSE lets a server come: docs/file-operations.md.
public final class FUSEServer: NodeServer {
  public let path: FilePath
  private let mount: FuseMount

  public var descriptor: FileDescriptor { mount.session.descriptor }

  /// Makes the node; when the call returns, it answers.
  ///
  /// - Parameters:
  ///   - path: The node. Nothing else may be there.
  ///   - access: Who may use it. Root's nodes are open to whom the mode lets in; those of other users only to
  ///     themselves, as fusermount3 has it by default.
  ///   - fileSystem: The file system's type is `fuse.` and this.
  ///   - device: What answers.
  /// - Throws: ``NodeError``; nothing is left behind then.
  public init(
    path: FilePath, access: NodeAccess = NodeAccess(), fileSystem: String,
    device: any CharacterDevice
  ) throws(NodeError) {
    self.path = path
    let context = DeviceContext(device: device)
    context.attributes = fileAttributes(S_IFREG | access.mode.rawValue, access, inode: 1)
    mount = try FuseMount(
      over: .file, path, fileSystem: fileSystem, operations: Self.operations, context: context)
  }

  /// Clears away the mount and the file that a killed server left at `path`; a living one's stay.
  ///
  /// - Throws: ``NodeError`` where the caller may not unmount it.
  public static func removeStale(
    at path: FilePath, fileSystem: String
  ) throws(NodeError) {
    try MountPoint.removeStale(at: path, fileSystem: fileSystem)
  }

  public func process() throws(Errno) -> Processed { try mount.session.process() }

  public func disconnect() { mount.session.disconnect() }

  public func remove() { mount.remove() }

  public var removalDescriptors: [FileDescriptor] { [mount.directory.descriptor] }

  public func closeRemovalDescriptors() { mount.directory.close() }

  private static var operations: fuse_lowlevel_ops {
    var operations = fuse_lowlevel_ops()
    operations.`init` = { userData, connection in
      guard let userData, let connection else { return }
      // The `>` of a shell is an open with O_TRUNC, and has to work; as a request of its own it would be the truncation
      // that is refused below.
      connection.pointee.want |= UInt32(FUSE_CAP_ATOMIC_O_TRUNC)
      DeviceContext.of(userData: userData).isInitialized = true
    }
    operations.open = { request, _, info in
      // As the driver of a device without direct I/O answers; the kernel would let a file on FUSE have it.
      if let info, info.pointee.flags & CLINUX_O_DIRECT != 0 {
        fuse_reply_err(request, EINVAL)
      } else {
        DeviceContext.of(request).answerOpen(request, info)
      }
    }
    operations.read = { request, _, size, _, _ in
      DeviceContext.of(request).answerRead(request, count: size)
    }
    operations.write = { request, _, bytes, size, _, _ in
      DeviceContext.of(request).answerWrite(request, bytes, count: size)
    }
    operations.getattr = { request, _, info in
      // Only lseek(SEEK_END) asks for the attributes of an open file: the one seek that a server can refuse.
      if info == nil {
        DeviceContext.of(request).answerAttributes(request)
      } else {
        fuse_reply_err(request, ESPIPE)
      }
    }
    operations.setattr = { request, _, attributes, fields, _ in
      DeviceContext.of(request).set(attributes, fields, request)
    }
    operations.lseek = { request, _, _, _, _ in fuse_reply_err(request, ESPIPE) }
    operations.fsync = { request, _, _, _ in fuse_reply_err(request, EINVAL) }
    operations.fallocate = { request, _, _, _, _, _ in fuse_reply_err(request, ENODEV) }
    operations.ioctl = { request, _, _, _, _, _, _, _, _ in fuse_reply_err(request, ENOTTY) }
    return operations
  }
}

extension DeviceContext {
  fileprivate func answerAttributes(_ request: fuse_req_t?) {
    // Valid for no time: the kernel asks again rather than show the size that it computes from writes.
    fuse_reply_attr(request, &attributes, 0)
  }

  /// chmod, chown and utimensat, which a node in /dev takes; the kernel has checked who asks. No size: a device is not
  /// truncated.
  fileprivate func set(
    _ new: UnsafeMutablePointer<Glibc.stat>?, _ fields: Int32, _ request: fuse_req_t?
  ) {
    guard let new, fields & FUSE_SET_ATTR_SIZE == 0 else {
      fuse_reply_err(request, EINVAL)
      return
    }
    var now = timespec()
    clock_gettime(CLOCK_REALTIME, &now)
    if fields & FUSE_SET_ATTR_MODE != 0 {
      attributes.st_mode = S_IFREG | new.pointee.st_mode & 0o7777
    }
    if fields & FUSE_SET_ATTR_UID != 0 { attributes.st_uid = new.pointee.st_uid }
    if fields & FUSE_SET_ATTR_GID != 0 { attributes.st_gid = new.pointee.st_gid }
    if fields & FUSE_SET_ATTR_ATIME != 0 { attributes.st_atim = new.pointee.st_atim }
    if fields & FUSE_SET_ATTR_ATIME_NOW != 0 { attributes.st_atim = now }
    if fields & FUSE_SET_ATTR_MTIME != 0 { attributes.st_mtim = new.pointee.st_mtim }
    if fields & FUSE_SET_ATTR_MTIME_NOW != 0 { attributes.st_mtim = now }
    attributes.st_ctim = now
    answerAttributes(request)
  }
}
