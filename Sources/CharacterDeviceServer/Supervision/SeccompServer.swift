import CLinux
import Glibc
import SystemPackage

/// A server of a device at a node that exists only for the processes of a command. It needs neither root nor FUSE nor a mount.
///
/// A filter of seccomp(2) gives the server the system calls of the command and of all its children that can concern the node. The server
/// answers the calls that do, as the kernel answers them for a character device, and lets the kernel answer all others. docs/exec.md
/// describes the calls.
public final class SeccompServer: NodeServer {
  public let path: FilePath
  /// The set of epoll(7) with all descriptors of the server.
  public let descriptor: FileDescriptor

  let listener: SeccompListener
  let connection: DeviceConnection
  let node: NodePath
  var attributes: NodeAttributes
  /// The open files by the numbers of their pipes.
  var files: [UInt64: NodeFile] = [:]
  /// The file of all open(2) with O_PATH.
  private var pathOnlyFile: NodeFile?
  private let filter: CallFilter
  private let timer: DelayTimer
  /// The calls for which the device has no answer yet.
  private var waiting: [WaitingCall] = []
  /// The files that no process has open any more, and with which calls still wait.
  private var closedFiles: [NodeFile] = []
  /// Whether the device has events of its own for poll(2); nil if it was not asked yet.
  private(set) var hasPoll: Bool?

  private struct WaitingCall {
    let number: DeviceConnection.Number
    let notification: Notification
    /// The file of the call; nil for open(2).
    let file: NodeFile?
    /// The device was told of a signal.
    var isInterrupted = false
  }

  /// The marks of descriptors in the set of epoll(7). An open file has the number of its pipe.
  private enum Mark {
    static let listener = UInt64.max
    static let timer = UInt64.max - 1
    static let lateAnswers = UInt64.max - 2
  }

  /// - Parameters:
  ///   - path: The node as the command sees it. No file need be there.
  ///   - access: The users that may use the node.
  ///   - command: The command, which has not begun yet.
  ///   - device: The device.
  ///   - tree: A ``FileTreeServer`` that serves a tree on this thread; nil if there is none. The command can use its files.
  public init(
    path: FilePath, access: NodeAccess = NodeAccess(), command: SupervisedCommand,
    device: some CharacterDevice, besides tree: FileTreeServer? = nil
  ) throws(NodeError) {
    self.path = path
    Self.allowOpenFiles()
    filter = command.filter
    listener = SeccompListener(command.listener)
    connection = try DeviceConnection(device)
    do throws(Errno) {
      node = try NodePath(path, besides: tree?.path)
      attributes = NodeAttributes(access, on: node.device)
      timer = try DelayTimer()
      let descriptor = epoll_create1(Int32(EPOLL_CLOEXEC))
      guard descriptor >= 0 else { throw .current }
      self.descriptor = FileDescriptor(rawValue: descriptor)
      try watch(listener.descriptor, EPOLLIN.rawValue, Mark.listener)
      try watch(timer.descriptor, EPOLLIN.rawValue, Mark.timer)
      try watch(connection.lateAnswersDescriptor, EPOLLIN.rawValue, Mark.lateAnswers)
    } catch {
      throw NodeError(error, doing: "serve", at: path, advice: "allow more open files: ulimit -n")
    }
    connection.onPollNews = { [unowned self] pipe in
      if let file = files[pipe] { askForEvents(of: file) }
    }
  }

  /// Raises the limit of open files: each open file of the command needs a descriptor here. The command has its own limit by now.
  private static func allowOpenFiles() {
    var limit = rlimit()
    getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    limit.rlim_cur = limit.rlim_max
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  }

  private func watch(
    _ watched: FileDescriptor, _ events: UInt32, _ mark: UInt64
  ) throws(Errno) {
    var event = epoll_event()
    event.events = events
    event.data.u64 = mark
    guard epoll_ctl(descriptor.rawValue, EPOLL_CTL_ADD, watched.rawValue, &event) == 0 else {
      throw .current
    }
  }

  public func process() throws(Errno) -> ProcessResult {
    var event = epoll_event()
    let count = epoll_wait(descriptor.rawValue, &event, 1, 0)
    guard count > 0 else {
      if count == 0 || errno == EINTR { return .nothing }
      throw .current
    }
    switch event.data.u64 {
    case Mark.listener:
      guard event.events & EPOLLIN.rawValue != 0 else {
        // The last process with the filter has ended.
        epoll_ctl(descriptor.rawValue, EPOLL_CTL_DEL, listener.descriptor.rawValue, nil)
        return .end
      }
      if let notification = try listener.receive() { handle(notification) }
    case Mark.timer: checkWaitingCalls()
    case Mark.lateAnswers:
      connection.takeLateAnswers()
      refreshEvents()
    case let pipe: if let file = files[pipe] { release(file) }
    }
    return .request
  }

  public func disconnect() {
    listener.close()
    for file in Array(files.values) { release(file) }
    closedFiles = []
    connection.disconnect()
  }

  // MARK: - Calls

  private func handle(_ notification: Notification) {
    guard let entry = filter.call(notification.number) else {
      return listener.letKernelAnswer(notification)
    }
    interruptKilledCalls()
    let process = CallerProcess(thread: notification.thread)
    if entry.paths.isEmpty {
      handle(entry.call, withDescriptor: notification, process)
    } else {
      handle(entry.call, entry.paths, of: notification, process)
    }
  }

  /// The open file that a descriptor of a process is; nil for any other file.
  func file(_ descriptor: Int32, of process: CallerProcess) -> NodeFile? {
    guard !files.isEmpty, let pipe = process.pipe(descriptor) else { return nil }
    return files[pipe]
  }

  /// Keeps a call whose request has no answer yet.
  func keepIfWaiting(
    _ notification: Notification, _ number: DeviceConnection.Number, of file: NodeFile? = nil
  ) {
    if connection.isOpen(number) {
      waiting.append(WaitingCall(number: number, notification: notification, file: file))
      timer.start(milliseconds: Self.signalPause)
    }
    if hasPoll == true { refreshEvents() }
  }

  /// The time between two looks for signals of a process whose call waits, in milliseconds. The kernel has no event for this.
  private static let signalPause = 10

  /// Tells the device of signals for calls that wait.
  private func checkWaitingCalls() {
    timer.finish()
    waiting.removeAll { !connection.isOpen($0.number) }
    interruptCalls {
      !listener.isValid($0) || CallerProcess(thread: $0.thread).hasSignal
    }
    let ended = closedFiles.filter { !hasWaitingCall($0) }
    closedFiles.removeAll { file in ended.contains { $0 === file } }
    for file in ended { releaseNow(file) }
    if !waiting.isEmpty { timer.start(milliseconds: Self.signalPause) }
  }

  private func hasWaitingCall(_ file: NodeFile) -> Bool {
    waiting.contains { $0.file === file && connection.isOpen($0.number) }
  }

  /// Tells the device of processes that were killed while their calls wait. Otherwise the next call could give one of these a byte.
  private func interruptKilledCalls() {
    if !waiting.isEmpty { interruptCalls { !listener.isValid($0) } }
  }

  private func interruptCalls(where isInterrupted: (Notification) -> Bool) {
    for index in waiting.indices where !waiting[index].isInterrupted {
      guard isInterrupted(waiting[index].notification) else { continue }
      waiting[index].isInterrupted = true
      connection.interrupt(waiting[index].number)
    }
  }

  // MARK: - Open files

  /// Gives a process a file as the result of its call.
  ///
  /// - Returns: Whether the process has got the file.
  func give(
    _ file: NodeFile, to notification: Notification, flags: Int32
  ) -> Bool {
    do throws(Errno) {
      guard let end = file.clientEnd else { throw .ioError }
      let closesOnExec = flags & O_CLOEXEC != 0
      // The call ends with this answer: the process can use the file before the next line.
      files[file.pipe] = file
      try listener.answer(notification, descriptor: end.descriptor, closesOnExec: closesOnExec)
      return true
    } catch {
      if error != .noSuchFileOrDirectory { listener.fail(notification, error) }
      return false
    }
  }

  /// Watches a new file for its end, and for the events of the device.
  func follow(_ file: NodeFile) {
    file.clientHasEnd()
    // Without events of its own, the set reports errors: the processes have no descriptor any more.
    try? watch(file.ownEnd.descriptor, 0, file.pipe)
    if hasPoll != false { askForEvents(of: file) }
  }

  func forget(_ file: NodeFile) { files[file.pipe] = nil }

  private func release(_ file: NodeFile) {
    files[file.pipe] = nil
    if file === pathOnlyFile { return }
    epoll_ctl(descriptor.rawValue, EPOLL_CTL_DEL, file.ownEnd.descriptor.rawValue, nil)
    // A process was killed, and its call still waits in the device. The kernel keeps a file until the calls with it have ended, too.
    interruptKilledCalls()
    if hasWaitingCall(file) { closedFiles.append(file) } else { releaseNow(file) }
  }

  private func releaseNow(_ file: NodeFile) {
    connection.release(file.handle, flags: file.openFlags)
    if hasPoll == true { refreshEvents() }
  }

  /// The file of open(2) with O_PATH: it has no open file of the device behind it.
  func fileOfPath(for caller: Caller) throws(Errno) -> NodeFile {
    if let pathOnlyFile { return pathOnlyFile }
    let file = try NodeFile(flags: O_RDONLY, handle: 0, isStream: false, caller: caller)
    pathOnlyFile = file
    return file
  }

  func isPathOnly(_ file: NodeFile) -> Bool { file === pathOnlyFile }

  // MARK: - Events

  private func refreshEvents() {
    guard hasPoll == true else { return }
    for file in files.values where file !== pathOnlyFile { askForEvents(of: file) }
  }

  private func askForEvents(of file: NodeFile) {
    connection.poll(file.handle, key: file.pipe) { [unowned self, weak file] answer in
      guard let file, case .success(let bytes) = answer, bytes.count >= 4 else {
        // A device without poll is always readable and writable.
        if case .failure(.noFunction) = answer { hasPoll = false }
        return true
      }
      hasPoll = true
      let events = PollEvents(rawValue: bytes.loadUnaligned(as: UInt32.self))
      let isBroken = !events.isDisjoint(with: [.error, .hangUp])
      file.setReadiness(
        toRead: isBroken || !events.isDisjoint(with: .readable),
        toWrite: isBroken || !events.isDisjoint(with: .writable))
      return true
    }
  }
}
