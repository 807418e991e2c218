import CLinux
import CSeccomp
import Glibc
import SystemPackage

/// The system calls that a process may make from now on; all others fail with `EPERM`: seccomp(2).
struct SystemCallFilter {
  /// The calls that are allowed with any arguments.
  ///
  /// The kernel keeps the result of the filter for such a call, and does not run the filter again (Linux 5.11).
  private let calls: [String]
  /// Whether the process may start threads, and signal them.
  private let allowsThreads: Bool

  /// The filter of a process that answers requests with its open descriptors.
  static let server = SystemCallFilter(
    calls: common + [
      // Requests and answers, log, trace.
      "readv", "writev",
      // Waiting.
      "epoll_wait", "epoll_pwait", "epoll_ctl", "eventfd2", "timerfd_settime", "wait4",
      // Threads.
      "sched_getaffinity", "exit",
      // The end.
      "dup2", "dup3",
    ], allowsThreads: true)

  /// The filter of a ``Keeper`` of root's, which waits for the server's end, unmounts and removes files.
  static let keeper = SystemCallFilter(
    calls: common + [
      "sendto",
      // A look at the files before they are removed.
      "openat", "newfstatat", "fstat", "fstat64", "fstatat64", "statx", "fstatfs", "fstatfs64",
      // The removal.
      "umount2", "unlinkat",
    ], allowsThreads: false)

  private static let common = [
    "read", "pread64", "write", "close",
    // Waiting.
    "poll", "ppoll", "sched_yield", "nanosleep", "clock_nanosleep", "restart_syscall",
    // Time, on machines that do not read it without a system call.
    "clock_gettime", "gettimeofday", "time",
    // Memory.
    "brk", "munmap", "mremap", "madvise",
    // Locks of the C library.
    "futex", "set_robust_list", "rseq", "gettid", "getpid",
    // Signals.
    "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack",
    // The end.
    "exit_group",
    // The hash functions of the Swift runtime's collections.
    "getrandom",
    // The caller's own identity.
    "geteuid", "getuid", "getegid", "getgid",
  ]

  /// The flags of clone(2) that make a namespace, in which a thread could be root.
  private static let namespaces = UInt64(
    CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS
      | CLONE_NEWCGROUP)

  /// Filters this thread and the threads that it starts. The filter cannot be removed.
  ///
  /// - Returns: Whether the kernel has seccomp.
  func load() throws(Errno) -> Bool {
    guard clinux_prctl(PR_GET_SECCOMP, 0) >= 0 || errno != EINVAL else { return false }
    guard let filter = seccomp_init(CSECCOMP_NOT_PERMITTED) else { throw .noMemory }
    defer { seccomp_release(filter) }
    var result: Int32 = 0
    func add(_ action: UInt32, _ name: String, _ conditions: [scmp_arg_cmp] = []) {
      guard result == 0 else { return }
      let number = seccomp_syscall_resolve_name(name)
      // This architecture or this libseccomp does not know the call.
      guard number != __NR_SCMP_ERROR else { return }
      result = seccomp_rule_add_array(
        filter, action, number, UInt32(conditions.count), conditions)
    }
    for name in calls { add(CSECCOMP_ALLOW, name) }
    /// Whether an argument's bits under `mask` are `value`.
    func argument(_ number: UInt32, _ mask: UInt64, is value: UInt64) -> scmp_arg_cmp {
      scmp_arg_cmp(arg: number, op: SCMP_CMP_MASKED_EQ, datum_a: mask, datum_b: value)
    }
    // Memory that is not executable.
    for name in ["mmap", "mprotect"] {
      add(CSECCOMP_ALLOW, name, [argument(2, UInt64(PROT_EXEC), is: 0)])
    }
    // The flags of a descriptor. Commands that send a signal (O_ASYNC, F_SETOWN, F_SETSIG, F_SETLEASE, F_NOTIFY), or that take or release
    // a lock, are not allowed.
    let all = UInt64(UInt32.max)
    for command in [F_GETFL, F_GETFD, F_SETFD] {
      add(CSECCOMP_ALLOW, "fcntl", [argument(1, all, is: UInt64(command))])
    }
    add(
      CSECCOMP_ALLOW, "fcntl",
      [argument(1, all, is: UInt64(F_SETFL)), argument(2, UInt64(CLINUX_O_ASYNC), is: 0)])
    if allowsThreads {
      // Threads, but no processes. A filter cannot see the flags of clone3, which are in memory. Without clone3, the C library uses
      // clone.
      let thread = UInt64(CLONE_THREAD)
      add(CSECCOMP_ALLOW, "clone", [argument(0, thread | Self.namespaces, is: thread)])
      add(CSECCOMP_NO_SUCH_CALL, "clone3")
      // Signals to the process's own threads.
      add(CSECCOMP_ALLOW, "tgkill", [argument(0, all, is: UInt64(getpid()))])
    }
    // The filter compares the calls of each request first.
    for name in ["writev", "read"] where result == 0 && calls.contains(name) {
      result = seccomp_syscall_priority(filter, seccomp_syscall_resolve_name(name), 255)
    }
    if result == 0 { result = seccomp_load(filter) }
    guard result == 0 else { throw Errno(rawValue: -result) }
    return true
  }
}
