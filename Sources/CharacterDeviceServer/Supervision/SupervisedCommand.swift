import CLinux
import Glibc
import SystemPackage

/// A command whose system calls a ``SeccompServer`` answers.
///
/// A filter has to be installed by a process itself. A Swift process cannot go on after fork(2), so the program starts itself again:
/// that process installs the filter, sends its listener to the server, and executes the command.
public final class SupervisedCommand {
  /// The word on the command line that makes this program the first process of a command.
  private static let word = "supervised-command"

  /// The first process of the command.
  public let process: pid_t
  let filter: CallFilter
  let listener: FileDescriptor
  private let socket: FileDescriptor
  /// The status of the first process, as waitpid(2) gives it; nil while it runs.
  private var status: Int32?
  /// The children of this process that are not the command's.
  private let others = Set(childProcesses())

  /// The state of signals in the process that has started this program, which the command gets.
  public struct Signals {
    private var mask = sigset_t()
    private var defaults = sigset_t()

    /// The present state. Make this before ``TerminationSignals``, which changes it.
    public init() {
      sigprocmask(SIG_BLOCK, nil, &mask)
      sigemptyset(&defaults)
      for number in [SIGPIPE, SIGXFSZ] {
        var action = sigaction()
        sigaction(number, nil, &action)
        let isIgnored =
          unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self)
          == unsafeBitCast(SIG_IGN, to: Int.self)
        if !isIgnored { sigaddset(&defaults, number) }
      }
    }

    fileprivate func set(_ attributes: inout posix_spawnattr_t) {
      var (mask, defaults) = (mask, defaults)
      posix_spawnattr_setsigmask(&attributes, &mask)
      posix_spawnattr_setsigdefault(&attributes, &defaults)
      posix_spawnattr_setflags(
        &attributes, Int16(POSIX_SPAWN_SETSIGMASK) | Int16(POSIX_SPAWN_SETSIGDEF))
    }
  }

  /// The message of the first process: the result of its filter.
  private struct Report {
    /// 0, or the error of a system call.
    var error: Int32 = 0
    var step = Step.none.rawValue
    /// The address of ``probe`` in the process.
    var probeAddress: UInt64 = 0

    enum Step: Int32 { case none, noNewPrivileges, filter }
  }

  /// A value by which the server finds out whether it may read the memory of the process.
  private static let probe: UInt64 = 0x7669_7274_7761_6c6b

  /// Starts the first process of a command, which waits for ``begin()``.
  ///
  /// - Parameters:
  ///   - words: The command and its arguments.
  ///   - signals: The state of signals for the command.
  /// - Throws: ``NodeError`` if the kernel or a container forbids what is needed.
  public init(_ words: [String], signals: Signals) throws(NodeError) {
    if let error = Self.obstacle { throw Self.refusal(error) }
    // If the caller ignored this signal, the kernel would forget the status of the command.
    signal(SIGCHLD, SIG_DFL)
    do throws(Errno) {
      filter = try CallFilter()
      // The orphans of the command become children of this process. With Yama, it may read the memory of its descendants only.
      guard clinux_prctl(PR_SET_CHILD_SUBREAPER, 1) == 0 else { throw .current }
      let (own, other) = try Self.makeSockets()
      socket = own
      defer { try? other.close() }
      process = try Self.start(words, other, signals)
    } catch {
      throw NodeError(
        .system, "cannot start the command: \(error)", advice: "see the message of the system")
    }
    listener = try Self.receive(from: socket, process, filter)
  }

  deinit { try? socket.close() }

  /// Lets the process execute the command. A ``SeccompServer`` has to answer from now on.
  public func begin() { clinux_wake(socket.rawValue) }

  private static func makeSockets() throws(Errno) -> (FileDescriptor, FileDescriptor) {
    var ends: [Int32] = [-1, -1]
    let kind = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
    guard socketpair(AF_UNIX, kind, 0, &ends) == 0 else { throw .current }
    return (FileDescriptor(rawValue: ends[0]), FileDescriptor(rawValue: ends[1]))
  }

  private static func start(
    _ words: [String], _ socket: FileDescriptor, _ signals: Signals
  ) throws(Errno) -> pid_t {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    // This keeps the descriptor open in the new process.
    posix_spawn_file_actions_adddup2(&actions, socket.rawValue, socket.rawValue)
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    signals.set(&attributes)
    var child = pid_t()
    let result = withArgumentVector([CommandLine.arguments[0], word, "\(socket.rawValue)"] + words)
    {
      posix_spawn(&child, "/proc/self/exe", &actions, &attributes, $0, environ)
    }
    guard result == 0 else { throw Errno(rawValue: result) }
    return child
  }

  /// Gives the process its filter, and takes the listener.
  private static func receive(
    from socket: FileDescriptor, _ process: pid_t, _ filter: CallFilter
  ) throws(NodeError) -> FileDescriptor {
    _ = filter.program.withUnsafeBytes {
      clinux_send(socket.rawValue, $0.baseAddress, $0.count, nil, 0)
    }
    var report = Report()
    var received = [Int32](repeating: -1, count: Int(CLINUX_DESCRIPTORS))
    var count = 0
    let size = clinux_receive(
      socket.rawValue, &report, MemoryLayout<Report>.size, &received, &count)
    guard size == MemoryLayout<Report>.size else {
      throw NodeError(
        .system,
        "the process of the command has ended before the command: status \(waitForEnd(of: process))",
        advice: "see the messages above")
    }
    guard report.error == 0, count == 1 else { throw refusal(report) }
    let listener = FileDescriptor(rawValue: received[0])
    do throws(NodeError) {
      try check(listener, process, report)
    } catch {
      try? listener.close()
      throw error
    }
    return listener
  }

  private static func refusal(_ report: Report) -> NodeError {
    let error = Errno(rawValue: report.error)
    if report.step == Report.Step.filter.rawValue, error == .resourceBusy {
      return NodeError(
        .unsupported,
        "a filter with a listener is there already (seccomp: \(error)): the command is inside of another exec, or the container has such a filter",
        advice: "run it outside of the other one")
    }
    return refusal(error)
  }

  /// The reason why this process can have no filter with a listener; nil if it can.
  private static var obstacle: Errno? {
    clinux_has_notifications() != 0 ? nil : .current
  }

  private static func refusal(_ error: Errno) -> NodeError {
    let kind: NodeError.Kind = error == .notPermitted ? .notPermitted : .unsupported
    return NodeError(
      kind, "the kernel refuses a filter of system calls with a listener (seccomp: \(error))",
      advice:
        "Linux 5.14 or later with CONFIG_SECCOMP_FILTER is needed, and a container's profile has to allow seccomp(2), as the default profiles of Docker and podman do"
    )
  }

  /// Checks that the server can do what it needs: give descriptors, and reach the memory and the descriptors of the process.
  private static func check(
    _ listener: FileDescriptor, _ process: pid_t, _ report: Report
  ) throws(NodeError) {
    // No call has this number. An old kernel does not get so far.
    guard clinux_answer_descriptor(listener.rawValue, 0, listener.rawValue, 0) < 0,
      errno != EINVAL
    else {
      throw NodeError(
        .unsupported, "this kernel cannot give a descriptor as the answer of a system call",
        advice: "Linux 5.14 or later is needed")
    }
    guard CallerProcess(thread: process).integer(at: report.probeAddress, as: UInt64.self) == probe
    else {
      throw NodeError(
        .notPermitted,
        "the memory of the command cannot be read (process_vm_readv: \(Errno.current))",
        advice:
          "a profile of the container, or kernel.yama.ptrace_scope above 1, forbids it: allow process_vm_readv(2) there, or run as root"
      )
    }
    guard CallerProcess.link("/proc/\(process)/cwd") != nil else {
      throw NodeError(
        .unsupported, "the files of the command cannot be seen in /proc: \(Errno.current)",
        advice: "mount /proc without hidepid: mount -t proc proc /proc")
    }
  }
}

// MARK: - The processes of the command

extension SupervisedCommand {
  /// Passes a signal on to the command, as env(1) and timeout(1) do. After the end of its first process, the signal goes to the orphans that
  /// it has left. With SIGCHLD, waits for the processes that have ended.
  public func handle(_ signal: TerminationSignals.Signal) {
    guard signal.number != SIGCHLD else { return reap() }
    // A signal from the terminal has come to the command as well.
    guard signal.isFromProcess else { return }
    if status == nil {
      kill(process, signal.number)
    } else {
      for child in childProcesses() { kill(child, signal.number) }
    }
  }

  /// Waits for the children that have ended. The orphans of the command are children of this process.
  private func reap() {
    var status: Int32 = 0
    while true {
      let child = waitpid(-1, &status, WNOHANG)
      if child == process { self.status = status }
      guard child > 0 || (child < 0 && errno == EINTR) else { return }
    }
  }

  /// Waits for the processes of the command, which are ending, and returns the exit status of the first one as shells have it: 128 and more
  /// for a signal.
  public func waitForExitStatus() -> Int32 {
    // A process gives up its filter a moment before it has ended.
    let pause: UInt32 = 5000  // microseconds
    for _ in 0..<400 {
      reap()
      if others.isSuperset(of: childProcesses()) { break }
      usleep(pause)
    }
    let status = status ?? waitForEnd(of: process)
    return status & 0x7f == 0 ? status >> 8 & 0xff : 128 + status & 0x7f
  }
}

extension SeccompServer {
  /// Answers the calls of the command in `loop`, and passes signals on, until the last process of the command has ended. The loop stops
  /// then.
  ///
  /// - Parameters:
  ///   - command: The command of this server.
  ///   - signals: The signals, with SIGCHLD among them.
  ///   - loop: The loop.
  public func serve(
    _ command: SupervisedCommand, signals: TerminationSignals, in loop: EventLoop,
    onRequest: @escaping () -> Void = {}
  ) throws(Errno) {
    try loop.add(self) { result in
      if result == .end { loop.stop() } else { onRequest() }
    }
    try loop.add(signals.descriptor) { if let signal = signals.take() { command.handle(signal) } }
  }
}

// MARK: - The first process of the command

extension SupervisedCommand {
  /// Whether this process was started as the first process of a command.
  public static var isRequested: Bool { requestedSocket != nil }

  private static var requestedSocket: Int32? {
    let words = CommandLine.arguments
    guard words.count > 3, words[1] == word, let socket = Int32(words[2]) else { return nil }
    var kind: Int32 = 0
    var size = socklen_t(MemoryLayout<Int32>.size)
    guard getsockopt(socket, SOL_SOCKET, SO_TYPE, &kind, &size) == 0,
      kind == Int32(SOCK_SEQPACKET.rawValue)
    else { return nil }
    return socket
  }

  /// Installs the filter, and executes the command.
  ///
  /// - Parameter program: The name of this program for a message.
  public static func run(_ program: String) -> Never {
    guard let socket = requestedSocket else { exit(1) }
    _ = fcntl(socket, F_SETFD, FD_CLOEXEC)
    var filter = [UInt8](repeating: 0, count: 1 << 16)
    let size = recv(socket, &filter, filter.count, 0)
    guard size > 0 else { exit(1) }
    let words = CommandLine.arguments.dropFirst(3)
    withArgumentVector(Array(words)) { vector in
      install(filter, size, socket)
      if let file = vector[0] { execvp(file, vector) }
    }
    let error = errno
    let name = String(
      (words.first ?? "").unicodeScalars.map { $0.value < 0x20 ? "?" : Character($0) })
    _ = try? FileDescriptor.standardError.writeAll(
      "\(program): cannot run \(name): \(Errno(rawValue: error)): give a program after --\n".utf8)
    // As in shells and env(1).
    exit(error == ENOENT ? 127 : 126)
  }

  /// Installs the filter. Until the server answers, this process makes no system call of the filter.
  private static func install(_ filter: [UInt8], _ size: Int, _ socket: Int32) {
    let probe = UnsafeMutablePointer<UInt64>.allocate(capacity: 1)
    probe.initialize(to: Self.probe)
    var report = Report()
    report.probeAddress = UInt64(UInt(bitPattern: probe))
    var isKillable: Int32 = 0
    var listener: Int32 = -1
    if clinux_prctl(PR_SET_NO_NEW_PRIVS, 1) != 0 {
      report.error = errno
      report.step = Report.Step.noNewPrivileges.rawValue
    } else {
      listener = clinux_install_filter(filter, size, &isKillable)
      if listener < 0 {
        report.error = errno
        report.step = Report.Step.filter.rawValue
      }
    }
    _ = clinux_send(
      socket, &report, MemoryLayout<Report>.size, &listener, listener >= 0 ? 1 : 0)
    guard listener >= 0 else { exit(1) }
    close(listener)
    // The server is ready, or has ended.
    var byte: UInt8 = 0
    guard recv(socket, &byte, 1, 0) == 1 else { _exit(1) }
  }
}
