import CFuse
import CLinux
import Glibc
import SystemPackage

/// Serves a device as a file at any path, through the kernel's FUSE, where there is no CUSE.
///
/// The server makes a plain file and mounts over it a file system whose root is itself a regular file. Answers come as
/// near to a character device's as FUSE lets a server come: docs/file-operations.md.
public final class FUSEServer: MountedServer {
  /// Makes the node; when the call returns, it answers.
  ///
  /// - Parameters:
  ///   - path: The node. Nothing else may be there.
  ///   - access: Who may use it. Root's nodes are open to whom the mode lets in; those of other users only to
  ///     themselves, as fusermount3 has it by default.
  ///   - application: The program that serves it.
  ///   - device: The device.
  /// - Throws: ``NodeError``; nothing is left behind then.
  public init(
    path: FilePath, access: NodeAccess = NodeAccess(), application: Application,
    device: some CharacterDevice
  ) throws(NodeError) {
    // It asks the kernel, which a server in its sandbox may not.
    _ = pageErrorsReachPrograms
    let context = DeviceContext(device, hasOffsets: true)
    context.fileState.attributes = fileAttributes(S_IFREG | access.mode.rawValue, access, inode: 1)
    try super.init(
      over: .file, path, of: application, operations: Self.operations, context: context)
  }

  private static var operations: fuse_lowlevel_ops {
    var operations = fuse_lowlevel_ops()
    operations.`init` = { userData, connection in
      guard let userData, let connection else { return }
      // An open with O_TRUNC would make the kernel take the file for an empty one, see `apparentSize`. Without this flag the
      // truncation is a request of its own.
      connection.pointee.want &= ~UInt32(FUSE_CAP_ATOMIC_O_TRUNC)
      DeviceContext.of(userData: userData).isInitialized = true
    }
    operations.open = { request, _, info in DeviceContext.of(request).openFile(request, info) }
    operations.release = { request, _, info in DeviceContext.of(request).release(request, info) }
    operations.read = { request, _, count, offset, info in
      // A read(2) names its client as the owner of locks. A request for a page of the page cache names nobody: splice(2) and
      // sendfile(2) make it from Linux 6.5 on, and faults of a mapping.
      if info?.pointee.lock_owner != 0 {
        DeviceContext.with(request) { $0.read(request, count, at: offset, info) }
      } else if pageErrorsReachPrograms {
        // As the driver of a device without splice operations answers.
        fuse_reply_err(request, EINVAL)
      } else {
        DeviceContext.with(request) { $0.readPage(request, count, at: offset, info) }
      }
    }
    operations.write = { request, _, bytes, count, offset, info in
      DeviceContext.with(request) { $0.write(request, bytes, count, at: offset, info) }
    }
    operations.getattr = { request, _, info in
      let context = DeviceContext.of(request)
      if info == nil || context.device.size != nil {
        context.answerAttributes(request)
      } else {
        // Only lseek(2) with SEEK_END asks for the attributes of an open file. The kernel adds the call's offset to the size.
        context.seek(request, 0, from: .end, info)
      }
    }
    operations.setattr = { request, _, attributes, fields, info in
      DeviceContext.of(request).set(attributes, fields, request, info)
    }
    operations.lseek = { request, _, offset, whence, info in
      DeviceContext.of(request).seek(
        request, offset, from: whence == CLINUX_SEEK_DATA ? .data : .hole, info)
    }
    operations.ioctl = {
      request, _, command, argument, info, flags, input, inputCount, outputCount in
      DeviceContext.of(request).ioctl(
        request, command, argument, info, flags, input, inputCount, outputCount)
    }
    operations.poll = { request, _, info, handle in
      DeviceContext.of(request).poll(request, info, handle)
    }
    operations.flush = { request, _, info in DeviceContext.of(request).flush(request, info) }
    operations.fsync = { request, _, dataOnly, info in
      DeviceContext.of(request).fsync(request, dataOnly != 0, info)
    }
    operations.fallocate = { request, _, _, _, _, _ in fuse_reply_err(request, ENODEV) }
    return operations
  }
}

/// The size that the kernel takes the node to have while a client can read it. `stat` shows 0 all the same.
///
/// The driver of a character device has no splice operations: splice(2) and sendfile(2) fail with EINVAL, and programs go
/// on with read(2). A file of FUSE has them. Since Linux 6.5 they find the end of the file at its size, which programs take
/// for a device without a byte. If the size is larger than the position of the file, the kernel asks the server for a page
/// first, see ``pageErrorsReachPrograms``.
///
/// A larger size would have a price: the position of a write with O_APPEND is the size, and RLIMIT_FSIZE holds for positions.
private let apparentSize: Int64 = 1 << 20

/// Whether a program that copies from the node with splice(2) gets the error with which the server answers the kernel's request
/// for a page. From Linux 6.19 on it is EIO, whatever the server says, and many programs do not go on with read(2) then.
private let pageErrorsReachPrograms: Bool = {
  var system = utsname()
  uname(&system)
  let release = withUnsafeBytes(of: system.release) { String(decoding: $0, as: UTF8.self) }
  let numbers = release.split { !$0.isNumber }.prefix(2).compactMap { Int($0) }
  return numbers.lexicographicallyPrecedes([6, 19])
}()

/// The state of a FUSE node as a file, besides its device.
struct FileState {
  /// The attributes that `stat(2)` gives, but for the size.
  var attributes = Glibc.stat()
  /// How many open files need a size: those that can be read.
  var readers = 0
  /// The thread that asked last for the attributes, and has not opened the node since.
  var lastAsker: pid_t?
}

extension DeviceContext {
  fileprivate func openFile(
    _ request: fuse_req_t?, _ info: UnsafeMutablePointer<fuse_file_info>?
  ) {
    guard let info else { return }
    // As the driver of a device without direct I/O answers; the kernel would let a file on FUSE have it.
    guard info.pointee.flags & CLINUX_O_DIRECT == 0 else {
      fuse_reply_err(request, EINVAL)
      return
    }
    if fileState.lastAsker == fuse_req_ctx(request).pointee.pid { fileState.lastAsker = nil }
    open(request, info)
  }

  /// A client is about to have the node open to read it.
  func willOpenToRead() {
    // The kernel locks a page here. Nobody else can hold it: without readers no request for a page is under way.
    if fileState.readers == 0, device.size == nil {
      session?.enlarge(inode: FUSE_ROOT_ID, to: apparentSize)
    }
  }

  /// Fills a page of the kernel's page cache.
  fileprivate func readPage(
    _ request: fuse_req_t?, _ count: Int, at offset: off_t,
    _ info: UnsafeMutablePointer<fuse_file_info>?
  ) {
    if device.size != nil {
      read(request, count, at: offset, info)
    } else if device.givesTheSameAgain {
      read(request, count, at: offset, info, isRepeated: true)
    } else {
      fuse_reply_err(request, EINVAL)
    }
  }

  fileprivate func seek(
    _ request: fuse_req_t?, _ offset: off_t, from origin: SeekRequest.Origin,
    _ info: UnsafeMutablePointer<fuse_file_info>?
  ) {
    withFile(request, info) { request, _, file in
      device.seek(
        SeekRequest(request, Int(offset), from: origin, fileState.attributes), file)
    }
  }

  fileprivate func answerAttributes(_ request: fuse_req_t?) {
    let asker = fuse_req_ctx(request).pointee.pid
    // The kernel says 0 for a thread that this process's pid namespace does not have.
    fileState.lastAsker = asker == 0 ? nil : asker
    // The size is for `stat` only.
    if fileState.readers > 0, device.size == nil {
      session?.outdateAttributes(inode: FUSE_ROOT_ID)
    }
    var answer = fileState.attributes
    if let size = device.size { answer.setSize(size) }
    // Valid for no time: the kernel asks again rather than show the size that it computes from writes.
    fuse_reply_attr(request, &answer, 0)
  }

  /// chmod, chown and utimensat, which a node in /dev takes; the kernel has checked the rights. The truncation of an open
  /// with O_TRUNC, which changes nothing. No other size: a device is not truncated.
  fileprivate func set(
    _ new: UnsafeMutablePointer<Glibc.stat>?, _ fields: Int32, _ request: fuse_req_t?,
    _ info: UnsafeMutablePointer<fuse_file_info>?
  ) {
    let isTruncation = fields & FUSE_SET_ATTR_SIZE != 0
    guard let new, !isTruncation || isPartOfOpen(new.pointee.st_size, request, info) else {
      fuse_reply_err(request, EINVAL)
      return
    }
    if !isTruncation { set(new.pointee, fields) }
    // The kernel takes over the size, and shows it to nobody.
    var answer = fileState.attributes
    answer.st_size = device.size ?? Int(apparentSize)
    fuse_reply_attr(request, &answer, 0)
  }

  private func set(_ new: Glibc.stat, _ fields: Int32) {
    var now = timespec()
    clock_gettime(CLOCK_REALTIME, &now)
    if fields & FUSE_SET_ATTR_MODE != 0 {
      fileState.attributes.st_mode = S_IFREG | new.st_mode & 0o7777
    }
    if fields & FUSE_SET_ATTR_UID != 0 { fileState.attributes.st_uid = new.st_uid }
    if fields & FUSE_SET_ATTR_GID != 0 { fileState.attributes.st_gid = new.st_gid }
    if fields & FUSE_SET_ATTR_ATIME != 0 { fileState.attributes.st_atim = new.st_atim }
    if fields & FUSE_SET_ATTR_ATIME_NOW != 0 { fileState.attributes.st_atim = now }
    if fields & FUSE_SET_ATTR_MTIME != 0 { fileState.attributes.st_mtim = new.st_mtim }
    if fields & FUSE_SET_ATTR_MTIME_NOW != 0 { fileState.attributes.st_mtim = now }
    fileState.attributes.st_ctim = now
  }

  /// Tells the truncation of an open with O_TRUNC from that of truncate(2), which a device refuses.
  ///
  /// The two requests are alike. The kernel asks for the attributes before each, to check rights; then comes the request of
  /// open(2), or that of truncate(2).
  private func isPartOfOpen(
    _ size: off_t, _ request: fuse_req_t?, _ info: UnsafeMutablePointer<fuse_file_info>?
  ) -> Bool {
    size == 0 && info == nil && fileState.lastAsker != fuse_req_ctx(request).pointee.pid
  }
}
