import CFuse
import CLinux
import Glibc
import SystemPackage

/// Serves a ``FileTree`` at a directory, through the kernel's FUSE.
public final class FileTreeServer: NodeServer {
  public let path: FilePath
  private let mount: FuseMount
  private let context: TreeContext

  public var descriptor: FileDescriptor { mount.session.descriptor }

  /// Mounts the tree; when the call returns, its files answer.
  ///
  /// - Parameters:
  ///   - tree: What is served: a directory.
  ///   - path: Where. An empty directory may be there; else it is made, and removed in the end.
  ///   - access: Who may use it. The mode is that of directories; a file has of it what is good for it.
  ///   - fileSystem: The file system's type is `fuse.` and this.
  /// - Throws: ``NodeError``; nothing is left behind then.
  public init(
    _ tree: FileTree, at path: FilePath,
    access: NodeAccess = NodeAccess(mode: .ownerReadWriteExecute),
    fileSystem: String
  ) throws(NodeError) {
    self.path = path
    context = TreeContext(tree, access)
    mount = try FuseMount(
      over: .directory, path, fileSystem: fileSystem, operations: Self.operations, context: context)
  }

  /// See ``FUSEServer/removeStale(at:fileSystem:)``.
  public static func removeStale(
    at path: FilePath, fileSystem: String
  ) throws(NodeError) {
    try MountPoint.removeStale(at: path, fileSystem: fileSystem)
  }

  public func process() throws(Errno) -> Processed { try mount.session.process() }

  /// Gives those who wait at the end of a pipe what has come since.
  public func answerWaiting() { context.answerWaiting() }

  /// Somebody waits at the end of a pipe.
  public var hasWaiting: Bool { context.hasWaiting }

  /// Until ``disconnect()``.
  public var isConnected: Bool { mount.session.isOpen }

  public func disconnect() {
    context.endWaiting()
    mount.session.disconnect()
  }

  public func remove() { mount.remove() }

  public var removalDescriptors: [FileDescriptor] { [mount.directory.descriptor] }

  public func closeRemovalDescriptors() { mount.directory.close() }

  private static var operations: fuse_lowlevel_ops {
    var operations = fuse_lowlevel_ops()
    operations.`init` = { userData, connection in
      guard let userData, let connection else { return }
      // The `>` of a shell is an open with O_TRUNC.
      connection.pointee.want |= UInt32(FUSE_CAP_ATOMIC_O_TRUNC)
      // Whoever has much to write has it done in parts, and the device is not kept waiting.
      connection.pointee.max_write = min(connection.pointee.max_write, 1 << 16)
      TreeContext.of(userData: userData).isInitialized = true
    }
    operations.lookup = { request, parent, name in
      guard let name else { return }
      TreeContext.of(request).lookUp(String(cString: name), in: parent, request)
    }
    operations.getattr = { request, inode, info in
      TreeContext.of(request).answerAttributes(of: inode, info, request)
    }
    operations.setattr = { request, inode, _, fields, _ in
      TreeContext.of(request).setAttributes(of: inode, fields, request)
    }
    operations.open = { request, inode, info in
      guard let info else { return }
      TreeContext.of(request).open(inode, info, request)
    }
    operations.read = { request, inode, size, offset, info in
      guard let info else { return }
      TreeContext.of(request).read(info.pointee, size, at: Int(offset), request)
    }
    operations.write = { request, _, bytes, size, _, info in
      guard let info else { return }
      TreeContext.of(request).write(info.pointee, bytes, count: size, request)
    }
    operations.poll = { request, inode, info, handle in
      guard let info else { return }
      TreeContext.of(request).poll(info.pointee, handle, request)
    }
    operations.release = { request, _, info in
      guard let info else { return }
      TreeContext.of(request).release(info.pointee, request)
    }
    operations.readdir = { request, inode, size, offset, _ in
      TreeContext.of(request).list(inode, size, from: Int(offset), request)
    }
    // What stands in the tree stays, and nothing comes in.
    operations.mknod = { request, _, _, _, _ in fuse_reply_err(request, EPERM) }
    operations.create = { request, _, _, _, _ in fuse_reply_err(request, EPERM) }
    operations.mkdir = { request, _, _, _ in fuse_reply_err(request, EPERM) }
    operations.unlink = { request, _, _ in fuse_reply_err(request, EPERM) }
    operations.rmdir = { request, _, _ in fuse_reply_err(request, EPERM) }
    operations.symlink = { request, _, _, _ in fuse_reply_err(request, EPERM) }
    operations.link = { request, _, _, _ in fuse_reply_err(request, EPERM) }
    operations.rename = { request, _, _, _, _, _ in fuse_reply_err(request, EPERM) }
    return operations
  }
}

/// What the callbacks of a tree's server need, and how they answer.
private final class TreeContext: FuseSession.Context {
  /// A file or a directory, its inode number being one more than its place in ``nodes``.
  private struct Node {
    let content: FileTree
    let attributes: Glibc.stat
    /// The directory that it is in; of the root, itself.
    let parent: fuse_ino_t
    /// Of a directory.
    var children: [(name: String, inode: fuse_ino_t)] = []
  }

  /// What a client has open.
  private final class OpenFile {
    let inode: fuse_ino_t
    /// Of a text: what the client reads from.
    var snapshot: [UInt8]?
    /// Of a pipe.
    let reader: (any GrowingTextReader)?
    /// Of a file of commands that was opened to write.
    let writer: (any CommandWriter)?
    /// What the reader gave and the client had no room for.
    var rest: ArraySlice<UInt8> = []
    /// The client has asked where the end is, as tail(1) does before it reads up to there: it does not wait.
    var stopsAtEnd = false
    /// Reads that wait at the end: two threads may read one open file.
    var waiting: [(request: fuse_req_t, size: Int)] = []
    /// To tell a client that waits in poll(2).
    var pollHandle: OpaquePointer?

    init(_ inode: fuse_ino_t, _ content: FileTree, isWritten: Bool) {
      self.inode = inode
      if case .pipe(let text) = content { reader = text.makeReader() } else { reader = nil }
      if isWritten, case .commands(_, let makeWriter) = content {
        writer = makeWriter()
      } else {
        writer = nil
      }
    }

    var hasMore: Bool { !rest.isEmpty || reader?.hasMore ?? true }

    /// At most `size` bytes of a pipe.
    func next(_ size: Int) -> ArraySlice<UInt8> {
      if rest.isEmpty { rest = reader?.next()[...] ?? [] }
      let part = rest.prefix(size)
      rest = rest.dropFirst(size)
      return part
    }
  }

  /// What all clients together can have, so that none of them can make this process grow without end.
  private enum Limit {
    static let openFiles = 4096
    /// Reads that wait.
    static let waiting = 1024
    /// Of texts that are read, in bytes.
    static let snapshots = 64 << 20
  }

  private var nodes: [Node] = []
  private var openFiles: [UInt64: OpenFile] = [:]
  private var lastHandle: UInt64 = 0
  /// The bytes of all files' snapshots.
  private var snapshotBytes = 0
  /// Those that somebody waits for.
  private var waitingHandles: Set<UInt64> = []
  private let access: NodeAccess

  init(_ tree: FileTree, _ access: NodeAccess) {
    self.access = access
    super.init()
    add(tree, to: fuse_ino_t(FUSE_ROOT_ID))
  }

  /// The inode number.
  @discardableResult
  private func add(_ tree: FileTree, to parent: fuse_ino_t) -> fuse_ino_t {
    let inode = fuse_ino_t(nodes.count + 1)
    let (type, mask): (mode_t, FilePermissions) =
      switch tree {
      case .directory: (S_IFDIR, FilePermissions(rawValue: 0o777))
      case .text, .pipe: (S_IFREG, [.ownerRead, .groupRead, .otherRead])
      case .commands(nil, _): (S_IFREG, [.ownerWrite, .groupWrite, .otherWrite])
      case .commands: (S_IFREG, FilePermissions(rawValue: 0o666))
      }
    let mode = type | access.mode.intersection(mask).rawValue
    nodes.append(
      Node(
        content: tree, attributes: fileAttributes(mode, access, inode: UInt64(inode)),
        parent: parent))
    if case .directory(let entries) = tree {
      for (name, entry) in entries {
        let child = add(entry, to: inode)
        nodes[Int(inode) - 1].children.append((name, child))
      }
    }
    return inode
  }

  private func node(_ inode: fuse_ino_t) -> Node { nodes[Int(inode) - 1] }

  private func attributes(of inode: fuse_ino_t) -> Glibc.stat {
    var attributes = node(inode).attributes
    if case .pipe(let text) = node(inode).content { attributes.st_size = Int(text.size) }
    return attributes
  }

  /// How long the kernel may keep what it knows of a file: a pipe's size changes.
  private func validity(of inode: fuse_ino_t) -> Double {
    if case .pipe = node(inode).content { 0 } else { 3600 }
  }

  func lookUp(_ name: String, in parent: fuse_ino_t, _ request: fuse_req_t?) {
    guard let inode = node(parent).children.first(where: { $0.name == name })?.inode else {
      fuse_reply_err(request, ENOENT)
      return
    }
    var entry = fuse_entry_param()
    entry.ino = inode
    entry.attr = attributes(of: inode)
    entry.attr_timeout = validity(of: inode)
    entry.entry_timeout = 3600
    fuse_reply_entry(request, &entry)
  }

  func answerAttributes(
    of inode: fuse_ino_t, _ info: UnsafeMutablePointer<fuse_file_info>?, _ request: fuse_req_t?
  ) {
    var attributes = attributes(of: inode)
    // Only lseek(SEEK_END) asks for the attributes of an open file.
    if let info, let file = openFiles[info.pointee.fh], file.reader != nil {
      file.stopsAtEnd = true
      attributes.st_size = 0
    }
    fuse_reply_attr(request, &attributes, validity(of: inode))
  }

  /// A truncation to nothing, which a shell's `>` may ask for, is done as soon as asked; mode, owner and times stay.
  func setAttributes(of inode: fuse_ino_t, _ fields: Int32, _ request: fuse_req_t?) {
    guard fields & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID) == 0 else {
      fuse_reply_err(request, EPERM)
      return
    }
    var attributes = attributes(of: inode)
    fuse_reply_attr(request, &attributes, validity(of: inode))
  }

  func open(
    _ inode: fuse_ino_t, _ info: UnsafeMutablePointer<fuse_file_info>, _ request: fuse_req_t?
  ) {
    let mode = info.pointee.flags & O_ACCMODE
    let (isReadable, isWritable): (Bool, Bool) =
      switch node(inode).content {
      case .directory: (false, false)
      case .text, .pipe: (true, false)
      case .commands(let read, _): (read != nil, true)
      }
    // As sysfs: also for root, whom no mode keeps out.
    guard isReadable || mode == O_WRONLY, isWritable || mode == O_RDONLY else {
      fuse_reply_err(request, EACCES)
      return
    }
    guard openFiles.count < Limit.openFiles else {
      fuse_reply_err(request, ENFILE)
      return
    }
    lastHandle += 1
    openFiles[lastHandle] = OpenFile(
      inode, node(inode).content, isWritten: mode != O_RDONLY)
    info.pointee.fh = lastHandle
    info.pointee.direct_io = 1
    // See DeviceContext.answerOpen.
    info.pointee.noflush = 1
    // A client that was interrupted meanwhile never closes what it did not get.
    if fuse_reply_open(request, info) != 0 { openFiles[lastHandle] = nil }
  }

  func release(_ info: fuse_file_info, _ request: fuse_req_t?) {
    let file = openFiles.removeValue(forKey: info.fh)
    waitingHandles.remove(info.fh)
    snapshotBytes -= file?.snapshot?.count ?? 0
    if let handle = file?.pollHandle { fuse_pollhandle_destroy(handle) }
    file?.writer?.finish()
    fuse_reply_err(request, 0)
  }

  func read(_ info: fuse_file_info, _ size: Int, at offset: Int, _ request: fuse_req_t?) {
    guard let request, let file = openFiles[info.fh] else {
      fuse_reply_err(request, EBADF)
      return
    }
    switch node(file.inode).content {
    case .text(let make), .commands(let make?, _):
      let text = offset == 0 ? make() : file.snapshot ?? make()
      let bytes = snapshotBytes - (file.snapshot?.count ?? 0) + text.count
      guard bytes <= Limit.snapshots else {
        fuse_reply_err(request, ENOMEM)
        return
      }
      snapshotBytes = bytes
      file.snapshot = text
      reply(request, text.dropFirst(offset).prefix(size))
    case .pipe:
      if file.hasMore || file.stopsAtEnd {
        reply(request, file.next(size))
      } else if info.flags & O_NONBLOCK != 0 {
        fuse_reply_err(request, EAGAIN)
      } else if waitingHandles.reduce(0, { $0 + (openFiles[$1]?.waiting.count ?? 0) })
        >= Limit.waiting
      {
        fuse_reply_err(request, ENOMEM)
      } else {
        file.waiting.append((request, size))
        waitingHandles.insert(info.fh)
        fuse_req_interrupt_func(
          request, { request, _ in TreeContext.of(request).interrupt(request) }, nil)
      }
    case .directory, .commands: fuse_reply_err(request, EACCES)
    }
  }

  private func reply(_ request: fuse_req_t, _ bytes: ArraySlice<UInt8>) {
    bytes.withUnsafeBytes {
      _ = fuse_reply_buf(request, $0.baseAddress?.assumingMemoryBound(to: CChar.self), $0.count)
    }
  }

  /// A signal has come for the client: it shall not wait any longer.
  private func interrupt(_ request: fuse_req_t?) {
    for handle in waitingHandles {
      guard let file = openFiles[handle],
        let index = file.waiting.firstIndex(where: { $0.request == request })
      else { continue }
      file.waiting.remove(at: index)
      if file.waiting.isEmpty && file.pollHandle == nil { waitingHandles.remove(handle) }
      fuse_reply_err(request, EINTR)
      return
    }
  }

  var hasWaiting: Bool { !waitingHandles.isEmpty }

  func answerWaiting() {
    for handle in waitingHandles {
      guard let file = openFiles[handle], file.hasMore else { continue }
      while !file.waiting.isEmpty, file.hasMore {
        let (request, size) = file.waiting.removeFirst()
        reply(request, file.next(size))
      }
      if let poll = file.pollHandle {
        fuse_lowlevel_notify_poll(poll)
        fuse_pollhandle_destroy(poll)
        file.pollHandle = nil
      }
      if file.waiting.isEmpty { waitingHandles.remove(handle) }
    }
  }

  /// No more will come: the end of the file for those who wait.
  func endWaiting() {
    for handle in waitingHandles {
      for (request, _) in openFiles[handle]?.waiting ?? [] { reply(request, []) }
      openFiles[handle]?.waiting = []
    }
    waitingHandles = []
  }

  func poll(_ info: fuse_file_info, _ handle: OpaquePointer?, _ request: fuse_req_t?) {
    guard let file = openFiles[info.fh] else {
      fuse_reply_err(request, EBADF)
      return
    }
    if let old = file.pollHandle { fuse_pollhandle_destroy(old) }
    file.pollHandle = handle
    if handle != nil { waitingHandles.insert(info.fh) }
    let events = file.reader == nil ? POLLIN | POLLOUT : file.hasMore ? POLLIN : 0
    fuse_reply_poll(request, UInt32(events))
  }

  func write(
    _ info: fuse_file_info, _ bytes: UnsafePointer<CChar>?, count: Int, _ request: fuse_req_t?
  ) {
    guard let writer = openFiles[info.fh]?.writer else {
      fuse_reply_err(request, EBADF)
      return
    }
    answer(request, bytes, count: count) { (bytes) throws(Errno) in try writer.write(bytes) }
  }

  func list(_ inode: fuse_ino_t, _ size: Int, from start: Int, _ request: fuse_req_t?) {
    let entries = [(".", inode), ("..", node(inode).parent)] + node(inode).children
    let size = min(size, 1 << 16)
    var buffer = [CChar](repeating: 0, count: size)
    var used = 0
    for (index, entry) in entries.enumerated().dropFirst(start) {
      var attributes = attributes(of: entry.1)
      let needed = buffer.withUnsafeMutableBufferPointer {
        fuse_add_direntry(
          request, $0.baseAddress! + used, size - used, entry.0, &attributes, off_t(index + 1))
      }
      guard used + needed <= size else { break }
      used += needed
    }
    _ = fuse_reply_buf(request, buffer, used)
  }
}
