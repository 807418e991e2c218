import CLinux
import CharacterDeviceServer
import Glibc
import SystemPackage

/// The process of a daemon, as its record describes it.
///
/// A pid alone is reused. Together with the time of the start, the boot and the pid namespace, it names one process for
/// ever. ``find()`` compares these, the program and the user with the process that has the pid now.
struct ServerProcess: Equatable {
  let pid: pid_t
  /// Clock ticks between the boot and the start: field 22 of proc_pid_stat(5).
  let start: UInt64
  /// The boot_id of the kernel: random(4).
  let boot: String
  /// The inode number of the pid namespace: pid_namespaces(7).
  let namespace: UInt64
  /// Device and inode of the program's file.
  let program: String
  /// The user that the daemon becomes when it serves.
  let user: uid_t

  /// Describes this process.
  init(servingAs user: uid_t) throws(Errno) {
    pid = getpid()
    guard let start = Self.start(of: pid), let namespace = Self.namespace(of: "self"),
      let program = Self.program(of: pid)
    else { throw .noSuchFileOrDirectory }
    self.start = start
    boot = Self.boot
    self.namespace = namespace
    self.program = program
    self.user = user
  }

  /// Reads the fields of a record; nil if a field is missing, or if the process cannot be a daemon's.
  init?(_ field: (String) -> String?) {
    guard let pid = field("pid").flatMap({ pid_t($0) }), pid > 0,
      let start = field("start").flatMap({ UInt64($0) }), let boot = field("boot"),
      let namespace = field("pid_namespace").flatMap({ UInt64($0) }),
      let program = field("program"), let user = field("user").flatMap({ uid_t($0) })
    else { return nil }
    self.pid = pid
    self.start = start
    self.boot = boot
    self.namespace = namespace
    self.program = program
    self.user = user
  }

  var fields: KeyValuePairs<String, String> {
    [
      "pid": "\(pid)", "start": "\(start)", "boot": boot, "pid_namespace": "\(namespace)",
      "program": program, "user": "\(user)",
    ]
  }

  /// The fate of the process.
  enum State {
    case running(Handle)
    case ended
    /// The process is in another pid namespace, and this namespace cannot identify it.
    case elsewhere
    /// A process has the pid, but the system does not let the caller see whether it is the daemon.
    case hidden
  }

  /// Looks for the process.
  func find() -> State {
    guard boot == Self.boot else { return .ended }
    guard namespace == Self.namespace(of: "self") else { return .elsewhere }
    // The descriptor is opened before the comparison, so that the compared process is the process of the descriptor.
    let descriptor = clinux_pidfd_open(pid)
    guard descriptor >= 0 else { return errno == ESRCH ? .ended : .hidden }
    let handle = Handle(OwnedDescriptor(FileDescriptor(rawValue: descriptor)))
    guard let start = Self.start(of: pid) else { return handle.hasEnded ? .ended : .hidden }
    guard start == self.start, Self.program(of: pid) ?? program == program,
      Self.user(of: pid).map({ $0 == user || $0 == geteuid() || $0 == 0 }) ?? false,
      !handle.hasEnded
    else { return .ended }
    return .running(handle)
  }

  /// A descriptor of one process, even if its pid is reused: pidfd_open(2).
  struct Handle {
    private let descriptor: OwnedDescriptor

    fileprivate init(_ descriptor: OwnedDescriptor) { self.descriptor = descriptor }

    func send(_ signal: Int32) throws(Errno) {
      guard clinux_pidfd_send_signal(descriptor.descriptor.rawValue, signal) == 0 else {
        throw .current
      }
    }

    var hasEnded: Bool { waitForEnd(milliseconds: 0) }

    /// - Returns: Whether the process has ended.
    func waitForEnd(milliseconds: Int32) -> Bool {
      var entry = pollfd(fd: descriptor.descriptor.rawValue, events: Int16(POLLIN), revents: 0)
      return poll(&entry, 1, milliseconds) == 1
    }
  }

  // MARK: - Facts from /proc

  private static var boot: String {
    String(ProcFile.text(of: "/proc/sys/kernel/random/boot_id").prefix { !$0.isWhitespace })
  }

  private static func start(of pid: pid_t) -> UInt64? {
    ProcFile.stat(of: pid, field: 22).flatMap { UInt64($0) }
  }

  private static func namespace(of process: String) -> UInt64? {
    var attributes = stat()
    return stat("/proc/\(process)/ns/pid", &attributes) == 0 ? UInt64(attributes.st_ino) : nil
  }

  /// The identity of the program's file; nil if the caller may not see it, such as root without CAP_SYS_PTRACE in a
  /// container.
  private static func program(of pid: pid_t) -> String? {
    var attributes = stat()
    guard stat("/proc/\(pid)/exe", &attributes) == 0 else { return nil }
    return "\(attributes.st_dev):\(attributes.st_ino)"
  }

  private static func user(of pid: pid_t) -> uid_t? {
    let lines = ProcFile.text(of: "/proc/\(pid)/status").split(separator: "\n")
    return lines.first { $0.hasPrefix("Uid:") }?.split(separator: "\t").dropFirst().first
      .flatMap { uid_t($0) }
  }
}
