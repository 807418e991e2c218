import CFuse
import CLinux
import Glibc
import SystemPackage

/// A server of a device at a file of any path, through the kernel's FUSE. It does not need CUSE.
///
/// The server makes a plain file, and mounts a file system over it whose root is a regular file. docs/file-operations.md lists the
/// differences from a character device.
public final class FUSEServer: MountedServer {
  /// Makes the node; when the call returns, it answers.
  ///
  /// - Parameters:
  ///   - path: The node. No file may be there.
  ///   - access: The users that may use the node. If root makes the node, the mode decides. The node of any other user is open to this user
  ///     only, which is the default of fusermount3.
  ///   - application: The program that serves the node.
  ///   - device: The device.
  /// - Throws: ``NodeError``; nothing is left behind then.
  public init(
    path: FilePath, access: NodeAccess = NodeAccess(), application: Application,
    device: some CharacterDevice
  ) throws(NodeError) {
    // This asks the kernel for its version, which a server in its sandbox may not do.
    _ = pageErrorsReachPrograms
    let context = DeviceContext(device, hasOffsets: true)
    context.fileState.attributes = fileAttributes(S_IFREG | access.mode.rawValue, access, inode: 1)
    super.init(
      path,
      try FuseMount(
        over: .file, path, of: application, operations: Self.operations, context: context))
  }

  private static var operations: fuse_lowlevel_ops {
    var operations = fuse_lowlevel_ops()
    operations.`init` = { userData, connection in
      guard let userData, let connection else { return }
      // With this flag, the kernel would set the size to 0 at an open with O_TRUNC; see `apparentSize`. Without the flag, the truncation
      // is a separate request.
      connection.pointee.want &= ~UInt32(FUSE_CAP_ATOMIC_O_TRUNC)
      DeviceContext.of(userData: userData).isInitialized = true
    }
    operations.open = { request, _, info in DeviceContext.of(request).openFile(request, info) }
    operations.release = { request, _, info in DeviceContext.of(request).release(request, info) }
    operations.read = { request, _, count, offset, info in
      // A request of read(2) has an owner of locks. A request for a page of the page cache has none: splice(2) and sendfile(2) make
      // such a request from Linux 6.5 on, and so does a fault of a mapping.
      if info?.pointee.lock_owner != 0 {
        DeviceContext.with(request) { $0.read(request, count, at: offset, info) }
      } else if pageErrorsReachPrograms {
        // The answer of a driver without splice operations.
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

/// The size that the node has for the kernel while a client can read the node. `stat` shows 0 nevertheless.
///
/// The driver of a character device has no splice operations: splice(2) and sendfile(2) fail with EINVAL, and programs go
/// on with read(2). A file of FUSE has splice operations. Since Linux 6.5 these operations find the end of the file at its size, and with a
/// size of 0 a program would read no byte. If the size is larger than the position of the file, the kernel asks the server for a page
/// first, see ``pageErrorsReachPrograms``.
///
/// A larger size would have disadvantages: the position of a write with O_APPEND is the size, and RLIMIT_FSIZE limits positions.
private let apparentSize: Int64 = 1 << 20

/// Whether a program that copies from the node with splice(2) gets the error with which the server answers the kernel's request
/// for a page. From Linux 6.19 on the program gets EIO for each error, and many programs do not go on with read(2) after EIO.
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
  /// The number of open files that need a size; see ``AnyOpenFile/needsSize``.
  var readers = 0
  /// The thread that asked last for the attributes, and has not opened the node since.
  var lastAsker: pid_t?
}

extension DeviceContext {
  fileprivate func openFile(
    _ request: fuse_req_t?, _ info: UnsafeMutablePointer<fuse_file_info>?
  ) {
    guard let info else { return }
    // The answer of a driver without direct I/O. The kernel would allow direct I/O for a file on FUSE.
    guard info.pointee.flags & CLINUX_O_DIRECT == 0 else {
      fuse_reply_err(request, EINVAL)
      return
    }
    if fileState.lastAsker == fuse_req_ctx(request).pointee.pid { fileState.lastAsker = nil }
    open(request, info)
  }

  /// Gives the node its size for the kernel, as a client opens the node for reading.
  func willOpenToRead() {
    // The kernel locks a page here. The lock is free, because without readers no request for a page is under way.
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

  func seek(
    _ request: fuse_req_t?, _ offset: off_t, from origin: SeekRequest.Origin,
    _ info: UnsafeMutablePointer<fuse_file_info>?
  ) {
    withFile(request, info) { request, _, file in
      device.seek(SeekRequest(request, Int(offset), from: origin), file)
    }
  }

  fileprivate func answerAttributes(_ request: fuse_req_t?) {
    let asker = fuse_req_ctx(request).pointee.pid
    // The kernel gives 0 for a thread that is not in this process's pid namespace.
    fileState.lastAsker = asker == 0 ? nil : asker
    // The size of the answer is for `stat` only.
    if fileState.readers > 0, device.size == nil {
      session?.outdateAttributes(inode: FUSE_ROOT_ID)
    }
    var answer = fileState.attributes
    if let size = device.size { answer.setSize(size) }
    // The attributes are valid for no time, so that the kernel asks again. Otherwise it would show a size that it computes from writes.
    fuse_reply_attr(request, &answer, 0)
  }

  /// Answers a change of attributes. chmod, chown and utimensat work as on a node in /dev; the kernel has checked the rights. The
  /// truncation of an open with O_TRUNC succeeds and changes nothing. Any other change of the size fails.
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
    // The kernel takes over the size, but no program sees it.
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

  /// Whether a truncation is a part of an open with O_TRUNC, and not of truncate(2), which a device refuses.
  ///
  /// The two requests are equal. Before a truncate(2), the kernel asks for the attributes to check rights; before the truncation of an
  /// open(2), the request of the open comes in between.
  private func isPartOfOpen(
    _ size: off_t, _ request: fuse_req_t?, _ info: UnsafeMutablePointer<fuse_file_info>?
  ) -> Bool {
    size == 0 && info == nil && fileState.lastAsker != fuse_req_ctx(request).pointee.pid
  }
}
