import CLinux
import CSeccomp
import Glibc
import SystemPackage

/// Takes from this process what a server does not need to answer requests.
///
/// A server needs root to make its node, and nothing but its open descriptors from then on. ``enter(as:)`` comes between the
/// two; ``Keeper`` has kept what it takes to remove the node.
public enum Sandbox {
  /// Whom a server runs as.
  public struct User: Hashable, Sendable {
    public let name: String
    public let id: UInt32
    public let group: UInt32

    public init(name: String, id: UInt32, group: UInt32) {
      self.name = name
      self.id = id
      self.group = group
    }
  }

  /// What the kernel confines the process by, besides that it has no capabilities and cannot get any.
  public struct Confinement: Hashable, Sendable {
    /// False where the kernel was built without.
    public let seccomp: Bool
    /// The version of Landlock's interface; nil where the kernel has no Landlock.
    public let landlock: Int?
  }

  /// Gives up root and all capabilities for good, and all system calls but those that a server makes with what is open:
  /// capabilities(7), seccomp(2), landlock(7).
  ///
  /// No file can be opened any more, no program started, no connection made, no memory made executable. It holds for this
  /// thread and those that it starts: call it while there is one.
  ///
  /// - Parameter user: Whom to become; nil to stay who one is, without capabilities.
  /// - Throws: ``NodeError``. The process may have lost some of its rights then, and should end.
  @discardableResult
  public static func enter(as user: User?) throws(NodeError) -> Confinement {
    // The bounding set first: it is a capability that allows to change it.
    dropBoundingSet()
    if let user { try become(user) }
    try dropCapabilities()
    guard clinux_prctl(PR_SET_NO_NEW_PRIVS, 1) == 0 else {
      throw refused("set no_new_privs", .current)
    }
    let landlock = try denyFiles()
    return Confinement(seccomp: try allowSystemCalls(), landlock: landlock)
  }

  /// Keeps those of the capabilities of this process that are among `kept`.
  static func keepCapabilities(_ kept: [Int32]) {
    withCapabilities { words in
      for index in words.indices {
        let mask = kept.filter { $0 / 32 == index }.reduce(UInt32(0)) { $0 | 1 << ($1 % 32) }
        words[index].effective &= mask
        words[index].permitted &= mask
        words[index].inheritable = 0
      }
    }
  }

  private static func become(_ user: User) throws(NodeError) {
    guard setgroups(0, nil) == 0, setgid(user.group) == 0, setuid(user.id) == 0 else {
      throw NodeError(
        .notPermitted, "cannot become the user \(user.name): \(Errno.current)",
        advice: "run with --user root, which has no capabilities then, either")
    }
  }

  /// No program that this process starts can have any capability. It is not allowed to start one; this is for the day that
  /// something else fails.
  private static func dropBoundingSet() {
    var capability: UInt = 0
    while clinux_prctl(PR_CAPBSET_READ, capability) >= 0 {
      // Who may not has none, and no_new_privs keeps it so.
      _ = clinux_prctl(PR_CAPBSET_DROP, capability)
      capability += 1
    }
  }

  private static func dropCapabilities() throws(NodeError) {
    keepCapabilities([])
    var isFree = true
    withCapabilities { words in
      isFree = words.allSatisfy { $0.effective == 0 && $0.permitted == 0 && $0.inheritable == 0 }
    }
    guard isFree else { throw refused("give up its capabilities", .current) }
  }

  /// Lets `change` work on the capabilities of this process, and sets them.
  private static func withCapabilities(
    _ change: (inout [__user_cap_data_struct]) -> Void
  ) {
    var words = [__user_cap_data_struct](repeating: __user_cap_data_struct(), count: 2)
    guard clinux_get_capabilities(&words) == 0 else { return }
    change(&words)
    _ = clinux_set_capabilities(words)
  }

  private static func refused(_ action: String, _ errno: Errno) -> NodeError {
    NodeError(
      .system, "the process cannot \(action): \(errno)",
      advice: "see what it runs in (a container, a systemd unit) forbids it, and allow it there")
  }
}

// MARK: - Landlock

extension Sandbox {
  /// Files, network and other processes' signals are out of reach, even if a system call for them could be made.
  ///
  /// Documentation/userspace-api/landlock.rst of the kernel: a set of rules that handles an access and has no rule for it
  /// denies it everywhere.
  static func denyFiles() throws(NodeError) -> Int? {
    let version = clinux_landlock_version()
    // Not built in, or not switched on (lsm= on the kernel's command line).
    guard version > 0 else { return nil }
    // As many kinds of access as this version knows.
    let fileAccesses: [Int32: UInt64] = [1: 13, 2: 14, 3: 15, 4: 15]
    var rules = clinux_landlock_rules()
    rules.file_system = 1 << (fileAccesses[version] ?? 16) - 1
    var size = 8
    if version >= 4 {
      rules.network = 0b11  // bind and connect by TCP
      size = 16
    }
    if version >= 6 {
      rules.scopes = 0b11  // abstract sockets and signals of others
      size = 24
    }
    let descriptor = clinux_landlock_create(&rules, size)
    guard descriptor >= 0 else { throw refused("set up Landlock", .current) }
    defer { close(descriptor) }
    guard clinux_landlock_restrict_self(descriptor) == 0 else {
      throw refused("confine itself by Landlock", .current)
    }
    return Int(version)
  }
}

// MARK: - seccomp

extension Sandbox {
  /// What a server calls while it serves, and what its C library, its memory allocator and threads may call for it.
  private static let systemCalls = [
    // Requests and answers, log, trace.
    "read", "pread64", "readv", "write", "writev", "close",
    // To wait.
    "poll", "ppoll", "epoll_wait", "epoll_pwait", "epoll_ctl", "eventfd2", "sched_yield", "fcntl",
    "nanosleep", "clock_nanosleep", "restart_syscall", "timerfd_settime", "wait4",
    // Time, where it is not read without a system call.
    "clock_gettime", "gettimeofday", "time",
    // Memory.
    "brk", "munmap", "mremap", "madvise",
    // Threads.
    "futex", "set_robust_list", "rseq", "gettid", "getpid", "sched_getaffinity", "exit",
    // Signals.
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack",
    // The end.
    "dup2", "dup3", "exit_group",
    // The Swift runtime's, for the hash functions of its collections.
    "getrandom",
    // Who am I.
    "geteuid", "getuid", "getegid", "getgid",
  ]

  /// - Returns: Whether the kernel has seccomp.
  private static func allowSystemCalls() throws(NodeError) -> Bool {
    guard clinux_prctl(PR_GET_SECCOMP, 0) >= 0 || errno != EINVAL else { return false }
    guard let filter = seccomp_init(CSECCOMP_NOT_PERMITTED) else {
      throw refused("make a seccomp filter", .noMemory)
    }
    defer { seccomp_release(filter) }
    var result: Int32 = 0
    func add(_ action: UInt32, _ name: String, _ conditions: [scmp_arg_cmp] = []) {
      guard result == 0 else { return }
      let number = seccomp_syscall_resolve_name(name)
      // A call that this architecture or this libseccomp does not know.
      guard number != __NR_SCMP_ERROR else { return }
      result = seccomp_rule_add_array(
        filter, action, number, UInt32(conditions.count), conditions)
    }
    for name in systemCalls { add(CSECCOMP_ALLOW, name) }
    // Memory, but not to execute from.
    for name in ["mmap", "mprotect"] {
      add(
        CSECCOMP_ALLOW, name,
        [scmp_arg_cmp(arg: 2, op: SCMP_CMP_MASKED_EQ, datum_a: UInt64(PROT_EXEC), datum_b: 0)])
    }
    // Threads, but no processes. The flags of clone3 lie in memory, where no filter sees them: without it, the C library
    // takes clone.
    let thread = UInt64(CLONE_THREAD)
    add(
      CSECCOMP_ALLOW, "clone",
      [scmp_arg_cmp(arg: 0, op: SCMP_CMP_MASKED_EQ, datum_a: thread, datum_b: thread)])
    add(CSECCOMP_NO_SUCH_CALL, "clone3")
    // Signals to its own threads.
    add(
      CSECCOMP_ALLOW, "tgkill",
      [scmp_arg_cmp(arg: 0, op: SCMP_CMP_EQ, datum_a: UInt64(getpid()), datum_b: 0)])
    if result == 0 { result = seccomp_load(filter) }
    guard result == 0 else {
      throw refused("load a seccomp filter", Errno(rawValue: -result))
    }
    return true
  }
}
