import CLinux
import Glibc
import SystemPackage

/// The confinement of a process to the rights that a server needs to answer requests.
///
/// A server needs root to make its node, and only its open descriptors after that. It calls ``enter(as:advice:)`` between the two. A
/// ``Keeper`` keeps the rights to remove the node.
public enum Sandbox {
  /// The user as which a server runs.
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

  /// The kernel's features that confine the process. In addition, the process has no capabilities and cannot get any.
  public struct Confinement: Hashable, Sendable {
    /// Whether the kernel has seccomp.
    public let seccomp: Bool
    /// The version of Landlock's interface; nil if the kernel has no Landlock.
    public let landlock: Int?
  }

  /// Gives up root, all capabilities, and all system calls except those that a server makes with its open descriptors: capabilities(7),
  /// seccomp(2), landlock(7). The process cannot get these rights back.
  ///
  /// From now on, the process cannot open a file, start a program, make a connection or make memory executable. This is so for the
  /// calling thread and for threads that it starts later. Call it while the process has one thread.
  ///
  /// - Parameters:
  ///   - user: The user that the process becomes; nil to stay the same user, without capabilities.
  ///   - advice: The next step for the program's user if the process cannot become `user`.
  ///   - messages: Whether the process may exchange messages and descriptors by its open sockets.
  /// - Throws: ``NodeError``. The process may have lost some of its rights then, and should end.
  @discardableResult
  public static func enter(
    as user: User?, advice: String = "run as another user", messages: Bool = false
  ) throws(NodeError) -> Confinement {
    // The bounding set is first, because a change of it needs a capability.
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
      seccomp = try (messages ? SystemCallFilter.messagingServer : .server).load()
    } catch {
      throw refused("load a seccomp filter", error)
    }
    return Confinement(seccomp: seccomp, landlock: landlock)
  }

  /// Gives up root, all capabilities and access to files and to the network except by open descriptors, but no system calls: for a program
  /// whose libraries make system calls of their own. The process cannot get these rights back. Call it while the process has one thread.
  ///
  /// - Throws: ``NodeError``, as ``enter(as:advice:messages:)``.
  package static func enterUnfiltered() throws(NodeError) {
    dropBoundingSet()
    try dropCapabilities()
    guard clinux_prctl(PR_SET_NO_NEW_PRIVS, 1) == 0 else {
      throw refused("set no_new_privs", .current)
    }
    _ = try denyFiles()
  }

  /// Becomes a user for a program that is executed next.
  package static func becomeForProgram(_ user: User, advice: String) throws(NodeError) {
    // The bounding set is first, because a change of it needs a capability.
    dropBoundingSet()
    try become(user, advice)
  }

  /// Takes all rights from a ``Keeper`` that it does not need to clean up. If the kernel refuses a part of this, the keeper goes on.
  static func enterKeeper(capabilities: [Int32]) {
    dropBoundingSet()
    keepCapabilities(capabilities)
    _ = clinux_prctl(PR_SET_NO_NEW_PRIVS, 1)
    _ = try? SystemCallFilter.keeper.load()
  }

  /// Forbids the process to make any file larger, so that it cannot fill a file system. If the log goes to a regular file, there is no such
  /// limit.
  private static func limitFiles() {
    let logs = [STDOUT_FILENO, STDERR_FILENO].contains {
      let attributes = try? FileDescriptor(rawValue: $0).attributes()
      return (attributes?.st_mode ?? 0) & S_IFMT == S_IFREG
    }
    guard !logs else { return }
    var limit = rlimit(rlim_cur: 0, rlim_max: 0)
    setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit)
  }

  /// Gives up all capabilities of this process except `kept`.
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

  /// Makes sure that no program that this process starts has a capability. The process cannot start a program anyway; this is a second
  /// protection.
  private static func dropBoundingSet() {
    var capability: UInt = 0
    while clinux_prctl(PR_CAPBSET_READ, capability) >= 0 {
      // If the process may not drop a capability, it has none, and no_new_privs keeps this so.
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

  /// Sets the capabilities of this process to the ones that `change` makes of the present ones.
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
      advice: "the container or the systemd unit of the process may forbid this: allow it there")
  }
}

// MARK: - Landlock

extension Sandbox {
  /// Denies access to files, to the network, and to other processes by signals, even if the process could make a system call for these.
  ///
  /// If a set of rules handles a kind of access and has no rule for it, Landlock denies the access everywhere:
  /// Documentation/userspace-api/landlock.rst of the kernel.
  static func denyFiles(except allowed: [AllowedPath] = []) throws(NodeError) -> Int? {
    let version = clinux_landlock_version()
    // Landlock is not built in, or not enabled (lsm= on the kernel's command line).
    guard version > 0 else { return nil }
    // The number of kinds of access that each version knows.
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
    for path in allowed { path.allow(in: descriptor, of: rules.file_system) }
    guard clinux_landlock_restrict_self(descriptor) == 0 else {
      throw refused("confine itself by Landlock", .current)
    }
    return Int(version)
  }
}

extension Sandbox {
  /// A file, or a directory with all that it contains, that Landlock allows.
  package struct AllowedPath {
    private let path: String
    private let isWritable: Bool

    /// - Parameters:
    ///   - path: The path. Nothing is allowed if there is no such file.
    ///   - writable: Whether files can be made, changed and removed there. Otherwise, they can be read and executed.
    package init(_ path: String, writable: Bool = false) {
      self.path = path
      isWritable = writable
    }

    fileprivate func allow(in rules: Int32, of handled: UInt64) {
      let file = open(path, CLINUX_O_PATH | O_CLOEXEC)
      guard file >= 0 else { return }
      defer { close(file) }
      var attributes = stat()
      guard fstat(file, &attributes) == 0 else { return }
      // The kinds of access are those of landlock(7): 0 is to execute, 2 to read a file, and 3 to read a directory; 1, 14 and 15 are
      // to write, to truncate and to control a file; 4 to 13 are to make, remove and rename files.
      var access: UInt64 = isWritable ? 0xffff : 0b1101
      if attributes.st_mode & S_IFMT != S_IFDIR { access &= 0b1100_0000_0000_0111 }
      _ = clinux_landlock_allow(rules, file, access & handled)
    }
  }
}

// MARK: - Helpers of a server

extension Sandbox {
  /// Makes this process one of `user`'s, with no capabilities but `kept`, and without a way to get others. If the process may not become
  /// another user, it keeps its user, as a server does.
  ///
  /// - Parameters:
  ///   - user: The user; nil to stay the same user.
  ///   - kept: The capabilities that the process keeps if it is root's.
  package static func enterHelper(as user: User?, keeping kept: [Int32] = []) {
    guard geteuid() == 0 else {
      _ = clinux_prctl(PR_SET_NO_NEW_PRIVS, 1)
      return
    }
    dropBoundingSet()
    if let user {
      _ = clinux_prctl(PR_SET_KEEPCAPS, 1)
      try? become(user, "")
    }
    setCapabilities(kept)
    _ = clinux_prctl(PR_SET_NO_NEW_PRIVS, 1)
  }

  /// Gives up all capabilities.
  package static func dropAllCapabilities() { keepCapabilities([]) }

  /// Makes `wanted` the effective capabilities, as far as they are permitted, and gives up all others.
  private static func setCapabilities(_ wanted: [Int32]) {
    withCapabilities { words in
      for index in words.indices {
        let mask = wanted.filter { $0 / 32 == index }.reduce(UInt32(0)) { $0 | 1 << ($1 % 32) }
        words[index].permitted &= mask
        words[index].effective = words[index].permitted
        words[index].inheritable = 0
      }
    }
  }

  /// The confinement of a program that a helper starts.
  package struct ProgramRules {
    /// The kind of a program.
    package enum Kind {
      /// A compiler or another tool, which may start programs: system calls that reach other processes or the network fail.
      case tool
      /// A program with a stranger's code: it may only start, load libraries if it has some, and use its open descriptors.
      case foreignCode(loadsLibraries: Bool)
    }

    private let kind: Kind
    private let paths: [AllowedPath]

    package init(_ kind: Kind, _ paths: [AllowedPath]) {
      self.kind = kind
      self.paths = paths
    }

    /// Confines this process, which executes the program next.
    package func enter() throws(NodeError) {
      _ = clinux_prctl(PR_SET_NO_NEW_PRIVS, 1)
      _ = try denyFiles(except: paths)
      do throws(Errno) {
        switch kind {
        case .tool: try SystemCallFilter.loadForTool()
        case .foreignCode(let loadsLibraries):
          try SystemCallFilter.loadForForeignCode(loadsLibraries: loadsLibraries)
        }
      } catch {
        throw refused("load a seccomp filter", error)
      }
    }
  }

  /// Whether this kernel has Landlock.
  package static var hasLandlock: Bool { clinux_landlock_version() > 0 }
}
