import CLinux
import Glibc
import SystemPackage

/// The system calls with the path of the node.
extension SeccompServer {
  func handle(
    _ call: SupervisedCall, _ paths: [SupervisedCall.PathArgument],
    of notification: Notification, _ process: CallerProcess
  ) {
    for (index, argument) in paths.enumerated() {
      let directory = argument.directory.map { notification.int($0) } ?? AT_FDCWD
      let address = notification.argument(argument.path)
      guard address != 0, let path = process.path(at: address), !path.isEmpty else {
        // An empty path is the file of the descriptor itself.
        guard call.takesEmptyPath(notification, isMissing: address == 0),
          let file = file(directory, of: process)
        else { continue }
        return answer(call, notification, process, .file(pipe: file.pipe), index)
      }
      let follows = argument.follows.holds(in: notification)
      if !follows, call == .readlink || call == .readlinkat,
        let pipe = node.pipe(ofLink: path, in: directory, of: process), files[pipe] != nil
      {
        return answerLink(call, notification, process)
      }
      if let target = node.target(of: path, in: directory, of: process, follows: follows) {
        return answer(call, notification, process, target, index)
      }
    }
    listener.letKernelAnswer(notification)
  }

  /// - Parameter index: The number of the path among the paths of the call.
  private func answer(
    _ call: SupervisedCall, _ notification: Notification, _ process: CallerProcess,
    _ target: NodePath.Target, _ index: Int
  ) {
    switch target {
    case .belowNode: return fail(notification, .notDirectory)
    // A pipe of another program.
    case .file(let pipe) where files[pipe] == nil: return listener.letKernelAnswer(notification)
    case .file, .node: break
    }
    // The answers below depend on the memory of the process, and some change the node.
    guard listener.isValid(notification) else { return }
    switch call {
    case .open, .openat, .openat2, .creat: open(call, notification, process)
    case .stat, .lstat: answerStatus(notification, process, at: 1)
    case .newfstatat: answerStatus(notification, process, at: 2)
    case .statx:
      answer(
        notification, process.setBytes(at: notification.argument(4), attributes.extendedStatus))
    case .access, .faccessat, .faccessat2: checkAccess(call, notification, process)
    case .statfs: answerFileSystem(notification, process)
    case .chmod: setMode(notification, process, mode: 1)
    case .fchmodat, .fchmodat2: setMode(notification, process, mode: 2)
    case .chown, .lchown: setOwner(notification, process, user: 1)
    case .fchownat: setOwner(notification, process, user: 2)
    case .utime, .utimes, .futimesat, .utimensat: setTimes(call, notification, process)
    default: fail(notification, call.errorAtNode(notification, index))
    }
  }

  func fail(_ notification: Notification, _ error: Errno) {
    listener.fail(notification, error)
  }

  /// Answers with success, or with `EFAULT` if the memory for the answer was missing.
  private func answer(_ notification: Notification, _ hasMemory: Bool) {
    if hasMemory { listener.answer(notification, 0) } else { fail(notification, .badAddress) }
  }

  /// Answers a call that changes the attributes of the node.
  func change(
    _ notification: Notification, _ process: CallerProcess,
    _ body: (CallerProcess.Rights) throws(Errno) -> Void
  ) {
    guard let rights = process.rights else { return listener.letKernelAnswer(notification) }
    guard listener.isValid(notification) else { return }
    do throws(Errno) {
      try body(rights)
      listener.answer(notification, 0)
    } catch {
      fail(notification, error)
    }
  }

  // MARK: - open

  private func open(
    _ call: SupervisedCall, _ notification: Notification, _ process: CallerProcess
  ) {
    let flags: Int32
    switch call {
    case .open: flags = notification.int(1)
    case .creat: flags = O_CREAT | O_WRONLY | O_TRUNC
    case .openat2:
      // The flags are the first field of struct open_how.
      guard let given = process.integer(at: notification.argument(2), as: UInt64.self) else {
        return fail(notification, .badAddress)
      }
      flags = Int32(truncatingIfNeeded: given)
    default: flags = notification.int(2)
    }
    guard let rights = process.rights else { return listener.letKernelAnswer(notification) }
    guard listener.isValid(notification) else { return }
    let caller = Caller(pid: notification.thread, uid: rights.user, gid: rights.group)
    if flags & CLINUX_O_PATH != 0 { return openPath(notification, caller, flags) }
    if flags & O_CREAT != 0 && flags & O_EXCL != 0 { return fail(notification, .fileExists) }
    if flags & O_DIRECTORY != 0 { return fail(notification, .notDirectory) }
    let mode = flags & O_ACCMODE
    // A driver without direct I/O.
    guard flags & CLINUX_O_DIRECT == 0, mode != O_ACCMODE else {
      return fail(notification, .invalidArgument)
    }
    let wanted: UInt32 = mode == O_RDONLY ? 4 : mode == O_WRONLY ? 2 : 6
    guard attributes.allows(wanted, rights) else { return fail(notification, .permissionDenied) }
    let number = connection.open(caller, flags: flags & ~(O_CREAT | O_EXCL | O_NOCTTY | O_CLOEXEC))
    {
      [unowned self] answer in opened(answer, notification, caller, flags)
    }
    keepIfWaiting(notification, number)
  }

  private func opened(
    _ answer: DeviceConnection.Answer, _ notification: Notification, _ caller: Caller,
    _ flags: Int32
  ) -> Bool {
    do throws(Errno) {
      // struct fuse_open_out: the handle, and flags.
      let bytes = try answer.get()
      guard bytes.count >= 12 else { throw .ioError }
      let isStream = bytes.loadUnaligned(fromByteOffset: 8, as: UInt32.self) & 1 << 4 != 0
      let file = try NodeFile(
        flags: flags, handle: bytes.loadUnaligned(as: UInt64.self), isStream: isStream,
        caller: caller)
      guard give(file, to: notification, flags: flags) else {
        forget(file)
        return false
      }
      follow(file)
      return true
    } catch {
      // The server itself has no descriptor left.
      fail(notification, error == .tooManyOpenFiles ? .tooManyOpenFilesInSystem : error)
      return false
    }
  }

  private func openPath(_ notification: Notification, _ caller: Caller, _ flags: Int32) {
    if flags & O_DIRECTORY != 0 { return fail(notification, .notDirectory) }
    do throws(Errno) {
      _ = give(try fileOfPath(for: caller), to: notification, flags: flags)
    } catch {
      fail(notification, error)
    }
  }

  // MARK: - Attributes

  func answerStatus(_ notification: Notification, _ process: CallerProcess, at argument: Int) {
    answer(
      notification, process.setValue(at: notification.argument(argument), attributes.status))
  }

  private func answerFileSystem(_ notification: Notification, _ process: CallerProcess) {
    var answer = CLinux.statfs()
    guard statfs(node.path.removingLastComponent().string, &answer) == 0 else {
      return fail(notification, .current)
    }
    self.answer(notification, process.setValue(at: notification.argument(1), answer))
  }

  /// Answers readlink(2) of a link in /proc/PID/fd with the path of the node.
  private func answerLink(
    _ call: SupervisedCall, _ notification: Notification, _ process: CallerProcess
  ) {
    let first = call == .readlink ? 1 : 2
    let size = notification.int(first + 1)
    guard size > 0 else { return fail(notification, .invalidArgument) }
    let bytes = Array(node.path.string.utf8.prefix(Int(size)))
    guard process.setBytes(at: notification.argument(first), bytes) else {
      return fail(notification, .badAddress)
    }
    listener.answer(notification, bytes.count)
  }

  private func checkAccess(
    _ call: SupervisedCall, _ notification: Notification, _ process: CallerProcess
  ) {
    let mode = notification.int(call == .access ? 1 : 2)
    guard mode & ~7 == 0 else { return fail(notification, .invalidArgument) }
    let isEffective =
      call == .faccessat2 && notification.int(3) & FileFlags.effectiveAccess != 0
    change(notification, process) { (rights) throws(Errno) in
      guard attributes.allows(UInt32(mode), rights, asRealUser: !isEffective) else {
        throw .permissionDenied
      }
    }
  }

  func setMode(_ notification: Notification, _ process: CallerProcess, mode: Int) {
    change(notification, process) { (rights) throws(Errno) in
      try attributes.setMode(UInt32(truncatingIfNeeded: notification.argument(mode)), rights)
    }
  }

  func setOwner(_ notification: Notification, _ process: CallerProcess, user: Int) {
    change(notification, process) { (rights) throws(Errno) in
      try attributes.setOwner(
        UInt32(truncatingIfNeeded: notification.argument(user)),
        UInt32(truncatingIfNeeded: notification.argument(user + 1)), rights)
    }
  }

  private func setTimes(
    _ call: SupervisedCall, _ notification: Notification, _ process: CallerProcess
  ) {
    let address = notification.argument(call == .utime || call == .utimes ? 1 : 2)
    var times: (access: timespec, modification: timespec)?
    if address != 0 {
      // utime has two seconds, the other calls two pairs of seconds and micro- or nanoseconds.
      let size = call == .utime ? 16 : 32
      guard let bytes = process.bytes(at: address, count: size), bytes.count == size else {
        return fail(notification, .badAddress)
      }
      let words = (0..<size / 8).map { Int(Int64(in: bytes.span, at: $0 * 8) ?? 0) }
      switch call {
      case .utime:
        times = (timespec(tv_sec: words[0], tv_nsec: 0), timespec(tv_sec: words[1], tv_nsec: 0))
      case .utimensat:
        times = (
          timespec(tv_sec: words[0], tv_nsec: words[1]),
          timespec(tv_sec: words[2], tv_nsec: words[3])
        )
      default:
        guard (0..<1_000_000).contains(words[1]), (0..<1_000_000).contains(words[3]) else {
          return fail(notification, .invalidArgument)
        }
        times = (
          timespec(tv_sec: words[0], tv_nsec: words[1] * 1000),
          timespec(tv_sec: words[2], tv_nsec: words[3] * 1000)
        )
      }
    }
    change(notification, process) { (rights) throws(Errno) in
      try attributes.setTimes(times, rights)
    }
  }
}

extension SupervisedCall {
  /// Whether the call takes an empty path for the file of its descriptor.
  fileprivate func takesEmptyPath(_ notification: Notification, isMissing: Bool) -> Bool {
    let flags: Int32
    switch self {
    case .utimensat where isMissing: return true
    case .newfstatat, .utimensat, .faccessat2, .fchmodat2: flags = notification.int(3)
    case .statx: flags = notification.int(2)
    case .fchownat, .execveat, .linkat, .nameToHandleAt: flags = notification.int(4)
    case .readlinkat: return !isMissing
    default: return false
    }
    return flags & FileFlags.emptyPath != 0
  }

  /// The error of a call at the node that never succeeds there.
  fileprivate func errorAtNode(_ notification: Notification, _ index: Int) -> Errno {
    switch self {
    // The node is no program, and inotify(7) has no inode to watch.
    case .execve, .execveat, .inotifyAddWatch: return .permissionDenied
    // The node is in use, as a mount point is.
    case .unlink, .rename, .renameat, .renameat2: return .resourceBusy
    case .unlinkat:
      let removeDirectory: Int32 = 0x200  // AT_REMOVEDIR
      return notification.int(2) & removeDirectory != 0 ? .notDirectory : .resourceBusy
    case .link, .linkat: return index == 0 ? .improperLink : .fileExists
    case .symlink, .symlinkat, .mkdir, .mkdirat, .mknod, .mknodat: return .fileExists
    case .rmdir, .chdir, .chroot: return .notDirectory
    case .setxattr, .lsetxattr, .getxattr, .lgetxattr, .listxattr, .llistxattr, .removexattr,
      .lremovexattr, .nameToHandleAt:
      return .notSupportedOnSocket
    default: return .invalidArgument
    }
  }
}
