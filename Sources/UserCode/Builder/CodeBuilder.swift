import CLinux
import CharacterDeviceServer
import Glibc
import SystemPackage

/// The process that compiles a user's code and starts it, outside of the daemon's sandbox.
///
/// It consists of two processes. The guardian is the daemon's child: it reads the user's files, and watches them. Its child is the worker,
/// which does all that the daemon asks for. The worker ends with the daemon. The guardian ends all processes that the worker leaves, and
/// removes the build directory, even if the worker was killed. Both are the user as whom the daemon serves, and have no capabilities; only
/// the guardian of a daemon of root's may read all files.
public enum CodeBuilder {
  /// The word on the command line that makes the daemon's program a code builder.
  public static let command = "code-builder"

  /// The descriptors with which the process starts: the requests of the daemon, and the events for the daemon.
  static let requests: Int32 = 3
  static let events: Int32 = 4

  /// The time between two looks at the user's files, in milliseconds.
  private static let pause: Int32 = 100

  /// Whether this process was started as a code builder.
  public static var isRequested: Bool {
    guard CommandLine.arguments.dropFirst() == [command] else { return false }
    var kind: Int32 = 0
    var size = socklen_t(MemoryLayout<Int32>.size)
    return getsockopt(requests, SOL_SOCKET, SO_TYPE, &kind, &size) == 0
      && kind == Int32(SOCK_SEQPACKET.rawValue)
  }

  /// Does the work of a code builder until the daemon ends.
  public static func run() -> Never {
    // A signal from a terminal, or to the daemon's process group, does not end the builder.
    setsid()
    var signals = sigset_t()
    sigfillset(&signals)
    sigprocmask(SIG_SETMASK, &signals, nil)
    signal(SIGPIPE, SIG_IGN)
    clinux_set_name("walkerd-sources")
    let null = open("/dev/null", O_RDWR | O_CLOEXEC)
    if null >= 0 { for standard in STDIN_FILENO...STDERR_FILENO { dup2(null, standard) } }
    closeDescriptors(but: [requests, events])
    for descriptor in [requests, events] { _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC) }

    let daemon = FileDescriptor(rawValue: requests)
    guard let message = try? SocketMessage(from: daemon, within: 60),
      let configuration = BuilderConfiguration(message)
    else { _exit(1) }
    do throws(CodeFailure) {
      try run(configuration, daemon)
    } catch {
      try? SocketMessage(["failed", error.description]).send(to: daemon)
      _exit(1)
    }
    _exit(0)
  }

  private static func run(
    _ configuration: BuilderConfiguration, _ daemon: FileDescriptor
  ) throws(CodeFailure) {
    _ = clinux_prctl(PR_SET_CHILD_SUBREAPER, 1)
    // The compiler and the user's code have no network, if the system lets root take it away.
    if geteuid() == 0 { _ = clinux_leave_network() }
    Sandbox.enterHelper(as: configuration.user, keeping: [CAP_DAC_READ_SEARCH])

    let support = try SupportFiles(
      at: .find(), isSanitized: configuration.sources.isSanitized)
    let reader = SourceReader(
      sources: configuration.sources, workingDirectory: configuration.workingDirectory)
    var seen = reader.read()
    let snapshot: SourceSnapshot
    switch seen {
    case .success(let read): snapshot = read
    case .failure(let failure): throw failure
    }
    if !configuration.sources.isWatched { Sandbox.dropAllCapabilities() }
    let directory = try BuildDirectory(in: configuration.temporaryDirectories)
    guard let (own, workers) = try? SocketMessage.makeSockets(SOCK_STREAM) else {
      directory.remove()
      throw CodeFailure("cannot make a socket: \(Errno.current): close other programs")
    }
    let worker = clinux_fork()
    if worker == 0 {
      try? own.close()
      Sandbox.dropAllCapabilities()
      clinux_set_name("walkerd-builder")
      BuilderWorker(
        configuration, directory, daemon: daemon, events: FileDescriptor(rawValue: events),
        guardian: workers
      ).run(support, snapshot)
    }
    for descriptor in [FileDescriptor(rawValue: events), workers] { try? descriptor.close() }
    guard worker > 0 else {
      directory.remove()
      throw CodeFailure("cannot start the code builder: \(Errno.current): end other processes")
    }
    watch(configuration, reader, &seen, worker: own, daemon: daemon)
    endChildren()
    directory.remove()
  }

  /// Sends the user's files to the worker when they have changed, until the worker or the daemon ends.
  private static func watch(
    _ configuration: BuilderConfiguration, _ reader: SourceReader,
    _ seen: inout Result<SourceSnapshot, CodeFailure>, worker: FileDescriptor,
    daemon: FileDescriptor
  ) {
    while true {
      // The worker sends nothing. The daemon's end is seen here, too, because the worker can be busy with a compilation.
      var entries = [
        pollfd(fd: worker.rawValue, events: Int16(POLLIN), revents: 0),
        pollfd(fd: daemon.rawValue, events: 0, revents: 0),
      ]
      let count = poll(&entries, 2, configuration.sources.isWatched ? pause : -1)
      if count > 0 { return }
      guard count == 0 else { continue }
      let present = reader.read()
      guard present != seen else { continue }
      // A program that writes a file has written all of it when two looks see the same.
      usleep(30_000)
      guard reader.read() == present else { continue }
      seen = present
      let bytes = SnapshotBytes.encode(present)
      let length = withUnsafeBytes(of: UInt32(bytes.count).littleEndian) { Array($0) }
      guard (try? worker.writeAll(length + bytes)) != nil else { return }
    }
  }

  /// Ends all children: the worker, and processes that it has left.
  package static func endChildren() {
    while true {
      for child in childProcesses() { kill(child, SIGKILL) }
      var status: Int32 = 0
      let ended = waitpid(-1, &status, 0)
      if ended < 0 && errno == ECHILD { return }
    }
  }

}

extension Result where Success == SourceSnapshot, Failure == CodeFailure {
  static func != (left: Self, right: Self) -> Bool { !(left == right) }
}

/// The first message of the daemon.
struct BuilderConfiguration {
  var user: Sandbox.User?
  var workingDirectory: String
  var temporaryDirectories: [String]
  var sources: CodeSources

  init(_ sources: CodeSources, user: Sandbox.User?) {
    self.sources = sources
    self.user = user
    var path = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
    workingDirectory =
      getcwd(&path, path.count) == nil ? "/" : FilePath(platformString: path).string
    temporaryDirectories = Self.temporaryDirectories
  }

  /// The directories for temporary files, the best first.
  static var temporaryDirectories: [String] {
    let own = getenv("TMPDIR").map { String(cString: $0) }
    return [own, "/tmp", "/var/tmp"].compactMap(\.self).filter { $0.hasPrefix("/") }
  }

  var message: SocketMessage {
    SocketMessage(
      [
        "configure", user?.name ?? "", "\(user?.id ?? 0)", "\(user?.group ?? 0)",
        workingDirectory, "\(temporaryDirectories.count)",
      ] + temporaryDirectories + sources.fields)
  }

  init?(_ message: SocketMessage) {
    let fields = message.fields
    guard fields.count > 6, fields[0] == "configure", let id = UInt32(fields[2]),
      let group = UInt32(fields[3]), let count = Int(fields[5]), (0..<8).contains(count),
      fields.count >= 6 + count, let sources = CodeSources(fields: fields[(6 + count)...])
    else { return nil }
    user = fields[1].isEmpty ? nil : Sandbox.User(name: fields[1], id: id, group: group)
    workingDirectory = fields[4]
    temporaryDirectories = Array(fields[6..<6 + count])
    self.sources = sources
  }
}
