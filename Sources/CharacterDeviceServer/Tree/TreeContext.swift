import CFuse
import CLinux
import Glibc
import SystemPackage

/// The nodes of a tree, the files that clients have open, and the answers to the kernel's requests.
final class TreeContext: FuseSession.Context {
  /// A file or a directory. Its inode number is one more than its index in ``nodes``.
  struct Node {
    let content: FileTree
    /// The attributes for `stat(2)`. The size of a text is the one that a client asked for last.
    var attributes: Glibc.stat
    /// The directory that contains the node; the root contains itself.
    let parent: fuse_ino_t
    /// The content of a directory.
    var children: [(name: String, inode: fuse_ino_t)] = []
  }

  let timer: DelayTimer
  var nodes: [Node] = []
  var openFiles: [UInt64: TreeFile] = [:]
  var lastHandle: UInt64 = 0
  /// The handles of the pipes for which a client waits.
  var waitingHandles: Set<UInt64> = []
  /// The work that clients have asked for, in the order in which it is done.
  var works: [Work] = []
  /// The first of ``works`` waits for an event outside.
  var isWaiting = false
  /// A part of ``works`` is being done. The program behind the files cannot do anything else meanwhile.
  var isBusy = false
  var delayed: [DelayedRequest] = []
  let access: NodeAccess

  // Each resource has a limit, so that no client can make this process grow without end, or take all of a resource.
  var openFileQuota: Quota
  /// The limit of reads that wait and of requests that are answered later.
  var waitingQuota: Quota
  /// The limit of the texts that clients read, in bytes.
  var snapshotQuota: Quota
  var pace = Pace()

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

  /// Adds a node and the nodes below it.
  ///
  /// - Returns: The inode number.
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
}

// MARK: - Names and attributes

extension TreeContext {
  func node(_ inode: fuse_ino_t) -> Node { nodes[Int(inode) - 1] }

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

  /// The time in seconds for which the kernel may keep the attributes of a node. A file's size changes at any time.
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
    // A file's attributes are valid for no time: the kernel asks for the size again when a client wants it.
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
    // The kernel asks for the size before each read from its page cache.
    if let snapshot = file?.snapshot, file?.hasEnded != true || !isMappable(inode) {
      reply(request, attributesOf: inode, size: snapshot.count)
      return
    }
    let user = fuse_req_ctx(request).pointee.uid
    withTime(of: user, canMakeText(of: inode), request) { [self] in
      let text = text()
      if let file, let snapshot = file.snapshot, snapshot != text {
        file.startsOver = true
        // With another time, the kernel discards the file's pages in its page cache.
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

  func isMappable(_ inode: fuse_ino_t) -> Bool {
    if case .text(_, let traits) = node(inode).content { traits.contains(.mappable) } else { false }
  }

  /// Whether the text of a file can be made now.
  func canMakeText(of inode: fuse_ino_t) -> Bool {
    guard isBusy, case .text(_, let traits) = node(inode).content else { return true }
    return traits.contains(.always)
  }

  /// Answers a change of attributes. A truncation, as the `>` of a shell asks for it, succeeds and changes nothing; so does a change of
  /// the times. A change of mode or owner fails.
  func setAttributes(of inode: fuse_ino_t, _ fields: Int32, _ request: fuse_req_t?) {
    guard fields & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID) == 0 else {
      fuse_reply_err(request, EPERM)
      return
    }
    reply(request, attributesOf: inode)
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
