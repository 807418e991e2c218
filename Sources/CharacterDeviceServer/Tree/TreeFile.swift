import CFuse
import Glibc
import SystemPackage

/// A file of a tree that a client has open.
final class TreeFile {
  let inode: fuse_ino_t
  /// The user that has opened the file.
  let user: uid_t
  /// The text from which the client reads; nil for a file without a text, or before the first read.
  var snapshot: FileText?
  /// The client has read the last byte of the text.
  var hasEnded = false
  /// The text has changed since the client read its last byte. A read from the start makes a new text.
  var startsOver = false
  /// The reader of a pipe.
  let reader: (any GrowingTextReader)?
  /// The writer of a file of commands that was opened for writing.
  let writer: (any CommandWriter)?
  /// The bytes from the reader for which the client had no room.
  var rest: ArraySlice<UInt8> = []
  /// The client has asked for the position of the end, as tail(1) does before it reads up to the end. Its reads do not wait.
  var stopsAtEnd = false
  /// The reads that wait at the end. There may be several, as two threads may read one open file.
  var waiting: [(request: fuse_req_t, size: Int)] = []
  /// The handle that wakes a client in poll(2).
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

// MARK: - Requests for open files

extension TreeContext {
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
    // Files of sysfs refuse root in the same way, although root may open files of any mode.
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
    openFiles[lastHandle] = TreeFile(
      inode, node(inode).content, user: user, isWritten: mode != O_RDONLY)
    info.pointee.fh = lastHandle
    info.pointee.direct_io = isMappable(inode) ? 0 : 1
    // See DeviceContext.accept.
    info.pointee.noflush = 1
    // If a signal has ended the call, the client does not have the file and does not close it.
    if fuse_reply_open(request, info) != 0 { close(lastHandle) }
  }

  /// Forgets an open file.
  @discardableResult
  private func close(_ handle: UInt64) -> TreeFile? {
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
      // A request without an owner of locks is for the kernel's page cache, which needs whole pages: splice(2) from Linux 6.5 on, and
      // mmap(2). Programs that use splice(2) continue with read(2) after this error.
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

  private func reply(_ request: fuse_req_t, _ file: TreeFile, _ size: Int, at offset: Int) {
    guard let snapshot = file.snapshot else { return }
    file.hasEnded = file.hasEnded || offset + size >= snapshot.count
    reply(request, snapshot.bytes(from: offset, atMost: size)[...])
  }

  private func reply(_ request: fuse_req_t, _ bytes: ArraySlice<UInt8>) {
    bytes.withUnsafeBytes {
      _ = fuse_reply_buf(request, $0.baseAddress?.assumingMemoryBound(to: CChar.self), $0.count)
    }
  }

  func makeInterruptible(_ request: fuse_req_t) {
    fuse_req_interrupt_func(
      request, { request, _ in TreeContext.of(request).interrupt(request) }, nil)
  }

  /// Ends the wait of a client for which a signal has come.
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

  /// A client waits at the end of a pipe.
  var hasWaiting: Bool { !waitingHandles.isEmpty }

  /// Gives the clients that wait at the end of a pipe the text that has come since.
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

  /// Ends all waits, as the server ends. A client at the end of a pipe gets the end of the file, and any other client an error.
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
}
