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

  /// Becomes readable when ``proceed()`` has something to do.
  public var workDescriptor: FileDescriptor { context.timer.descriptor }

  /// Mounts the tree; when the call returns, its files answer.
  ///
  /// - Parameters:
  ///   - tree: What is served: a directory.
  ///   - path: Where. An empty directory may be there; else it is made, and removed in the end.
  ///   - access: Who may use it. The mode is that of directories; a file has of it what is good for it.
  ///   - application: The program that serves it.
  /// - Throws: ``NodeError``; nothing is left behind then.
  public init(
    _ tree: FileTree, at path: FilePath,
    access: NodeAccess = NodeAccess(mode: .ownerReadWriteExecute),
    application: Application
  ) throws(NodeError) {
    self.path = path
    do throws(Errno) {
      context = try TreeContext(tree, access)
    } catch {
      throw NodeError(
        .system, "cannot make a timer for \(path): \(error)",
        advice: "raise the limit of open files: ulimit -n")
    }
    mount = try FuseMount(
      over: .directory, path, of: application, operations: Self.operations, context: context)
  }

  /// See ``FUSEServer/removeStale(at:of:)``.
  public static func removeStale(
    at path: FilePath, of application: Application
  ) throws(NodeError) {
    try MountPoint.removeStale(at: path, of: application)
  }

  public func process() throws(Errno) -> ProcessResult { try mount.session.process() }

  /// Does a part of what takes long: commands, and texts of a user who has had many.
  public func proceed() { context.proceed() }

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
    /// Those of a text have the size that it had when it was last asked for.
    var attributes: Glibc.stat
    /// The directory that it is in; of the root, itself.
    let parent: fuse_ino_t
    /// Of a directory.
    var children: [(name: String, inode: fuse_ino_t)] = []
  }

  /// What a client has open.
  private final class OpenFile {
    let inode: fuse_ino_t
    /// The user that has opened it.
    let user: uid_t
    /// Of a text: what the client reads from.
    var snapshot: FileText?
    /// The client has had the last byte of it.
    var hasEnded = false
    /// The client has ended, and the text is another one since: what it reads from the start is of now.
    var startsOver = false
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

    init(_ inode: fuse_ino_t, _ content: FileTree, user: uid_t, isWritten: Bool) {
      self.inode = inode
      self.user = user
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

  /// A request that is answered later.
  private struct Delayed {
    let request: fuse_req_t
    let user: uid_t
    let answer: () -> Void
  }

  /// Commands that are being done.
  private struct Work {
    let work: any CommandWork
    /// The write(2) that waits for them, and its size; nil where nobody waits.
    let write: (request: fuse_req_t, count: Int)?
  }

  let timer: DelayTimer
  private var nodes: [Node] = []
  private var openFiles: [UInt64: OpenFile] = [:]
  private var lastHandle: UInt64 = 0
  /// Those that somebody waits for.
  private var waitingHandles: Set<UInt64> = []
  private var works: [Work] = []
  /// The first of ``works`` waits for something outside.
  private var isWaiting = false
  /// A part of ``works`` is being done: nothing else may be asked of what stands behind the files.
  private var isBusy = false
  private var delayed: [Delayed] = []
  private let access: NodeAccess

  // Bounds of each resource, so that no client can make this process grow without end, or take all of it.
  private var openFileQuota: Quota
  /// Reads that wait, and requests that are answered later.
  private var waitingQuota: Quota
  /// Of texts that are read, in bytes.
  private var snapshotQuota: Quota
  private var pace = Pace()

  init(_ tree: FileTree, _ access: NodeAccess) throws(Errno) {
    self.access = access
    timer = try DelayTimer()
    let owner = access.owner ?? geteuid()
    openFileQuota = Quota(4096, owner: owner)
    waitingQuota = Quota(1024, owner: owner)
    snapshotQuota = Quota(64 << 20, owner: owner)
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
    if case .pipe(let text) = node(inode).content { attributes.setSize(Int(text.size)) }
    return attributes
  }

  /// The function that makes the text of a file; nil if there is none, or if the text grows.
  private func text(of inode: fuse_ino_t) -> (() -> FileText)? {
    switch node(inode).content {
    case .text(let read, _), .commands(let read?, _): read
    case .directory, .commands, .pipe: nil
    }
  }

  /// How long the kernel may keep what it knows of a file: a file's size changes.
  private func validity(of inode: fuse_ino_t) -> Double {
    if case .directory = node(inode).content { 3600 } else { 0 }
  }

  func lookUp(_ name: String, in parent: fuse_ino_t, _ request: fuse_req_t?) {
    guard let inode = node(parent).children.first(where: { $0.name == name })?.inode else {
      fuse_reply_err(request, ENOENT)
      return
    }
    var entry = fuse_entry_param()
    entry.ino = inode
    // These attributes are valid for no time: a client that wants the present size asks for them again.
    entry.attr = attributes(of: inode)
    entry.attr_timeout = validity(of: inode)
    entry.entry_timeout = 3600
    fuse_reply_entry(request, &entry)
  }

  func answerAttributes(
    of inode: fuse_ino_t, _ info: UnsafeMutablePointer<fuse_file_info>?, _ request: fuse_req_t?
  ) {
    let file = info.flatMap { openFiles[$0.pointee.fh] }
    if let file, file.reader != nil {
      // Only lseek(2) asks for the attributes of an open pipe.
      file.stopsAtEnd = true
      reply(request, attributesOf: inode, size: 0)
      return
    }
    guard let text = text(of: inode) else {
      reply(request, attributesOf: inode)
      return
    }
    // The kernel asks for the size at each read from its page cache.
    if let snapshot = file?.snapshot, file?.hasEnded != true || !isMappable(inode) {
      reply(request, attributesOf: inode, size: snapshot.count)
      return
    }
    let user = fuse_req_ctx(request).pointee.uid
    withTime(of: user, canMakeText(of: inode), request) { [self] in
      let text = text()
      if let file, let snapshot = file.snapshot, snapshot != text {
        file.startsOver = true
        // The kernel forgets what it has in its page cache.
        clock_gettime(CLOCK_REALTIME, &nodes[Int(inode) - 1].attributes.st_mtim)
      }
      nodes[Int(inode) - 1].attributes.setSize(text.count)
      reply(request, attributesOf: inode)
    }
  }

  private func reply(
    _ request: fuse_req_t?, attributesOf inode: fuse_ino_t, size: Int? = nil
  ) {
    var attributes = attributes(of: inode)
    if let size { attributes.setSize(size) }
    fuse_reply_attr(request, &attributes, validity(of: inode))
  }

  private func isMappable(_ inode: fuse_ino_t) -> Bool {
    if case .text(_, let traits) = node(inode).content { traits.contains(.mappable) } else { false }
  }

  /// Whether the text of a file can be made now.
  private func canMakeText(of inode: fuse_ino_t) -> Bool {
    guard isBusy, case .text(_, let traits) = node(inode).content else { return true }
    return traits.contains(.always)
  }

  /// A truncation to nothing, which a shell's `>` may ask for, is done as soon as asked; mode, owner and times stay.
  func setAttributes(of inode: fuse_ino_t, _ fields: Int32, _ request: fuse_req_t?) {
    guard fields & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID) == 0 else {
      fuse_reply_err(request, EPERM)
      return
    }
    reply(request, attributesOf: inode)
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
    let user = fuse_req_ctx(request).pointee.uid
    guard openFileQuota.take(1, for: user) else {
      fuse_reply_err(request, ENFILE)
      return
    }
    lastHandle += 1
    openFiles[lastHandle] = OpenFile(
      inode, node(inode).content, user: user, isWritten: mode != O_RDONLY)
    info.pointee.fh = lastHandle
    info.pointee.direct_io = isMappable(inode) ? 0 : 1
    // See DeviceContext.add.
    info.pointee.noflush = 1
    // A client that was interrupted meanwhile never closes what it did not get.
    if fuse_reply_open(request, info) != 0 { close(lastHandle) }
  }

  /// Takes away what stands for an open file.
  @discardableResult
  private func close(_ handle: UInt64) -> OpenFile? {
    guard let file = openFiles.removeValue(forKey: handle) else { return nil }
    waitingHandles.remove(handle)
    openFileQuota.giveBack(1, of: file.user)
    snapshotQuota.giveBack(file.snapshot?.count ?? 0, of: file.user)
    if let poll = file.pollHandle { fuse_pollhandle_destroy(poll) }
    return file
  }

  func release(_ info: fuse_file_info, _ request: fuse_req_t?) {
    if let work = close(info.fh)?.writer?.finish() { begin(Work(work: work, write: nil)) }
    fuse_reply_err(request, 0)
  }

  func read(_ info: fuse_file_info, _ size: Int, at offset: Int, _ request: fuse_req_t?) {
    guard let request, let file = openFiles[info.fh] else {
      fuse_reply_err(request, EBADF)
      return
    }
    switch node(file.inode).content {
    case .text(let make, _), .commands(let make?, _):
      let isFromStart = offset == 0 && (file.startsOver || !isMappable(file.inode))
      guard isFromStart || file.snapshot == nil else {
        reply(request, file, size, at: offset)
        return
      }
      withTime(of: file.user, canMakeText(of: file.inode), request) { [self] in
        let text = make()
        snapshotQuota.giveBack(file.snapshot?.count ?? 0, of: file.user)
        file.snapshot = nil
        guard snapshotQuota.take(text.count, for: file.user) else {
          fuse_reply_err(request, ENOMEM)
          return
        }
        file.snapshot = text
        file.hasEnded = false
        file.startsOver = false
        reply(request, file, size, at: offset)
      }
    case .pipe:
      // The kernel reads for its page cache, which is for whole pages: splice(2) from Linux 6.5 on, and mmap(2). Programs
      // that splice go on with read(2). A reader has an owner for locks, and the page cache has none.
      guard info.lock_owner != 0 else {
        fuse_reply_err(request, EINVAL)
        return
      }
      if file.hasMore || file.stopsAtEnd {
        reply(request, file.next(size))
      } else if info.flags & O_NONBLOCK != 0 {
        fuse_reply_err(request, EAGAIN)
      } else if !waitingQuota.take(1, for: file.user) {
        fuse_reply_err(request, ENOMEM)
      } else {
        file.waiting.append((request, size))
        waitingHandles.insert(info.fh)
        makeInterruptible(request)
      }
    case .directory, .commands: fuse_reply_err(request, EACCES)
    }
  }

  private func reply(_ request: fuse_req_t, _ file: OpenFile, _ size: Int, at offset: Int) {
    guard let snapshot = file.snapshot else { return }
    file.hasEnded = file.hasEnded || offset + size >= snapshot.count
    reply(request, snapshot.bytes(from: offset, atMost: size)[...])
  }

  private func reply(_ request: fuse_req_t, _ bytes: ArraySlice<UInt8>) {
    bytes.withUnsafeBytes {
      _ = fuse_reply_buf(request, $0.baseAddress?.assumingMemoryBound(to: CChar.self), $0.count)
    }
  }

  private func makeInterruptible(_ request: fuse_req_t) {
    fuse_req_interrupt_func(
      request, { request, _ in TreeContext.of(request).interrupt(request) }, nil)
  }

  /// A signal has come for the client: it shall not wait any longer.
  private func interrupt(_ request: fuse_req_t?) {
    if let index = works.firstIndex(where: { $0.write?.request == request }) {
      let work = works.remove(at: index).work
      if index == 0 { stopWaiting(for: work) }
      work.interrupt()
      fuse_reply_err(request, EINTR)
      return
    }
    if let index = delayed.firstIndex(where: { $0.request == request }) {
      waitingQuota.giveBack(1, of: delayed.remove(at: index).user)
      fuse_reply_err(request, EINTR)
      return
    }
    for handle in waitingHandles {
      guard let file = openFiles[handle],
        let index = file.waiting.firstIndex(where: { $0.request == request })
      else { continue }
      file.waiting.remove(at: index)
      waitingQuota.giveBack(1, of: file.user)
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
        waitingQuota.giveBack(1, of: file.user)
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

  /// No more will come: the end of the file for those who wait at the end of a pipe, and an error for all others.
  func endWaiting() {
    for handle in waitingHandles {
      for (request, _) in openFiles[handle]?.waiting ?? [] { reply(request, []) }
      openFiles[handle]?.waiting = []
    }
    waitingHandles = []
    for work in works {
      work.work.interrupt()
      if let (request, _) = work.write { fuse_reply_err(request, EINTR) }
    }
    works = []
    for delayed in delayed { fuse_reply_err(delayed.request, EINTR) }
    delayed = []
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
    guard !isBusy else {
      let copy = Array(UnsafeRawBufferPointer(start: bytes, count: count))
      withTime(of: fuse_req_ctx(request).pointee.uid, false, request) { [self] in
        write(copy.span, by: writer, request)
      }
      return
    }
    UnsafeRawBufferPointer(start: bytes, count: count).withMemoryRebound(to: UInt8.self) {
      write($0.span, by: writer, request)
    }
  }

  private func write(
    _ bytes: Span<UInt8>, by writer: any CommandWriter, _ request: fuse_req_t?
  ) {
    do throws(Errno) {
      if let work = try writer.write(bytes), let request {
        begin(Work(work: work, write: (request, bytes.count)))
        makeInterruptible(request)
      } else {
        fuse_reply_write(request, bytes.count)
      }
    } catch {
      fuse_reply_err(request, error.rawValue)
    }
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

  // MARK: - What takes long

  private func begin(_ work: Work) {
    works.append(work)
    timer.start(milliseconds: 0)
  }

  /// Answers `request` by `answer`, which takes time: now if that is possible and the time that the user has had is
  /// paid for, otherwise when it is.
  private func withTime(
    of user: uid_t, _ isPossible: Bool, _ request: fuse_req_t?, _ answer: @escaping () -> Void
  ) {
    guard let request else { return }
    let start = clinux_monotonic_nanoseconds()
    if isPossible, pace.allows(user, at: start) {
      answer()
      pace.charge(user, from: start, to: clinux_monotonic_nanoseconds())
    } else if waitingQuota.take(1, for: user) {
      delayed.append(Delayed(request: request, user: user, answer: answer))
      timer.start(milliseconds: Self.delay)
      makeInterruptible(request)
    } else {
      fuse_reply_err(request, ENOMEM)
    }
  }

  /// Between two looks at what is delayed.
  private static let delay = 5

  /// Answers one request of those that are delayed, and does a part of the commands that are there.
  func proceed() {
    guard !isBusy else { return }
    timer.finish()
    let now = clinux_monotonic_nanoseconds()
    if let index = delayed.firstIndex(where: { pace.allows($0.user, at: now) }) {
      let next = delayed.remove(at: index)
      waitingQuota.giveBack(1, of: next.user)
      // Not to be found by an interrupt any more.
      fuse_req_interrupt_func(next.request, nil, nil)
      next.answer()
      pace.charge(next.user, from: now, to: clinux_monotonic_nanoseconds())
    }
    proceedWithWork()
    if !works.isEmpty, !isWaiting {
      timer.start(milliseconds: 0)
    } else if !delayed.isEmpty {
      timer.start(milliseconds: Self.delay)
    }
  }

  /// The first work goes: the next one has its turn.
  private func stopWaiting(for work: any CommandWork) {
    guard isWaiting else { return }
    isWaiting = false
    work.onReady = nil
    timer.start(milliseconds: 0)
  }

  private func proceedWithWork() {
    guard let first = works.first, !isWaiting else { return }
    isBusy = true
    let progress = first.work.proceed()
    isBusy = false
    // Unless it was interrupted meanwhile, which has answered the client.
    guard works.first?.work === first.work else { return }
    if progress == .waiting {
      isWaiting = true
      first.work.onReady = { [weak self] in
        self?.isWaiting = false
        self?.timer.start(milliseconds: 0)
      }
      return
    }
    guard progress != .unfinished else { return }
    works.removeFirst()
    guard let (request, count) = first.write else { return }
    if case .failed(let error) = progress {
      fuse_reply_err(request, error.rawValue)
    } else {
      fuse_reply_write(request, count)
    }
  }
}
