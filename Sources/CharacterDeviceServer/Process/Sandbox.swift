import CLinux
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
  /// - Parameters:
  ///   - user: The user to become; nil to stay the same user, without capabilities.
  ///   - advice: The next step for the program's user if the process cannot become `user`.
  /// - Throws: ``NodeError``. The process may have lost some of its rights then, and should end.
  @discardableResult
  public static func enter(
    as user: User?, advice: String = "run as another user"
  ) throws(NodeError) -> Confinement {
    // The bounding set first: it is a capability that allows to change it.
    dropBoundingSet()
    if let user { try become(user, advice) }
    try dropCapabilities()
    guard clinux_prctl(PR_SET_NO_NEW_PRIVS, 1) == 0 else {
      throw refused("set no_new_privs", .current)
    }
    limitFiles()
    let landlock = try denyFiles()
    let seccomp: Bool
    do throws(Errno) {
      seccomp = try SystemCallFilter.server.load()
    } catch {
      throw refused("load a seccomp filter", error)
    }
    return Confinement(seccomp: seccomp, landlock: landlock)
  }

  /// Takes from a ``Keeper`` what it does not need to clean up. A kernel that refuses a part of it does not stop it from that.
  static func enterKeeper(capabilities: [Int32]) {
    dropBoundingSet()
    keepCapabilities(capabilities)
    _ = clinux_prctl(PR_SET_NO_NEW_PRIVS, 1)
    _ = try? SystemCallFilter.keeper.load()
  }

  /// No file grows, unless the log goes to a regular file: a file system that others need is not filled.
  private static func limitFiles() {
    let logs = [STDOUT_FILENO, STDERR_FILENO].contains {
      let attributes = try? FileDescriptor(rawValue: $0).attributes()
      return (attributes?.st_mode ?? 0) & S_IFMT == S_IFREG
    }
    guard !logs else { return }
    var limit = rlimit(rlim_cur: 0, rlim_max: 0)
    setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit)
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

  private static func become(_ user: User, _ advice: String) throws(NodeError) {
    guard setgroups(0, nil) == 0, setgid(user.group) == 0, setuid(user.id) == 0 else {
      throw NodeError(
        .notPermitted, "cannot become the user \(user.name): \(Errno.current)",
        advice: advice)
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
