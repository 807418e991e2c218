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
  /// Whether the process may see which changes of its shared memory are sealed.
  private var seesSeals = false

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

  /// The filter of a server that, besides, exchanges messages and descriptors of memory by sockets that are open.
  static let messagingServer = SystemCallFilter(
    calls: server.calls + ["recvmsg", "recvfrom", "sendmsg", "sendto", "lseek", "_llseek"],
    allowsThreads: true, seesSeals: true)

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
    for command in [F_GETFL, F_GETFD, F_SETFD] + (seesSeals ? [CLINUX_F_GET_SEALS] : []) {
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

// MARK: - Programs that a helper starts

extension SystemCallFilter {
  /// Forbids this process, which executes a compiler or a similar tool next, to reach other processes, the network, or rare parts of the
  /// kernel. All other calls are allowed, because tools make many.
  static func loadForTool() throws(Errno) {
    let denied = [
      "socket", "socketpair", "connect", "bind", "ptrace", "process_vm_readv", "process_vm_writev",
      "process_madvise", "pidfd_open", "pidfd_getfd", "pidfd_send_signal", "kill", "tkill",
      "rt_sigqueueinfo", "rt_tgsigqueueinfo", "mount", "umount2", "move_mount", "open_tree",
      "fsopen", "fsmount", "fspick", "pivot_root", "chroot", "unshare", "setns", "bpf",
      "perf_event_open", "keyctl", "add_key", "request_key", "kexec_load", "kexec_file_load",
      "init_module", "finit_module", "delete_module", "io_uring_setup", "userfaultfd", "acct",
      "quotactl", "reboot", "swapon", "swapoff", "name_to_handle_at", "open_by_handle_at",
      "shmget", "shmat", "msgget", "semget", "mq_open", "setpriority", "sched_setscheduler",
      "sched_setattr", "inotify_init", "inotify_init1", "fanotify_init",
    ]
    try load(default: CSECCOMP_ALLOW) { (filter) throws(Errno) in
      for name in denied { try filter.add(CSECCOMP_NOT_PERMITTED, name) }
      // A filter cannot see the flags of clone3, which are in memory. Without clone3, the C library uses clone.
      try filter.add(CSECCOMP_NO_SUCH_CALL, "clone3")
      for flag in Self.namespaceFlags {
        try filter.add(
          CSECCOMP_NOT_PERMITTED, "clone", [argument(0, UInt64(flag), is: UInt64(flag))])
      }
    }
  }

  /// Allows this process, which executes a stranger's code next, only to start the program, to use open descriptors and to confine itself
  /// more.
  static func loadForForeignCode(loadsLibraries: Bool) throws(Errno) {
    var allowed =
      common + [
        // The start of a program, and its memory.
        "execve", "arch_prctl", "set_tid_address", "prlimit64", "getrlimit", "mmap", "mprotect",
        // Messages by open sockets, and the watch over time.
        "readv", "writev", "recvmsg", "recvfrom", "sendmsg", "sendto", "setitimer",
        // More confinement, and the end.
        "seccomp", "prctl", "exit", "getppid",
      ]
    if loadsLibraries {
      allowed += [
        "access", "faccessat", "faccessat2", "open", "openat", "readlink", "readlinkat", "fstat",
        "fstat64", "stat", "lstat", "newfstatat", "fstatat64", "statx", "lseek", "uname",
        // AddressSanitizer.
        "sysinfo", "sched_getaffinity", "mincore", "pipe", "pipe2", "setrlimit",
      ]
    }
    try load(default: CSECCOMP_NOT_PERMITTED) { (filter) throws(Errno) in
      for name in allowed { try filter.add(CSECCOMP_ALLOW, name) }
      let all = UInt64(UInt32.max)
      for command in [F_GETFL, F_GETFD, F_SETFD] {
        try filter.add(CSECCOMP_ALLOW, "fcntl", [argument(1, all, is: UInt64(command))])
      }
      // The process keeps its number when it executes the program.
      try filter.add(CSECCOMP_ALLOW, "tgkill", [argument(0, all, is: UInt64(getpid()))])
    }
  }

  private static let namespaceFlags = [
    CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS,
    CLONE_NEWCGROUP,
  ]

  /// Whether the bits under `mask` of an argument are `value`.
  private static func argument(
    _ number: UInt32, _ mask: UInt64, is value: UInt64
  ) -> scmp_arg_cmp {
    scmp_arg_cmp(arg: number, op: SCMP_CMP_MASKED_EQ, datum_a: mask, datum_b: value)
  }

  /// A filter that is being made.
  private struct Draft {
    let filter: scmp_filter_ctx

    func add(_ action: UInt32, _ name: String, _ conditions: [scmp_arg_cmp] = []) throws(Errno) {
      let number = seccomp_syscall_resolve_name(name)
      // This architecture or this libseccomp does not know the call.
      guard number != __NR_SCMP_ERROR else { return }
      let result = seccomp_rule_add_array(
        filter, action, number, UInt32(conditions.count), conditions)
      // -EDOM: this architecture has the call only as a part of another one.
      guard result == 0 || result == -EDOM else { throw Errno(rawValue: -result) }
    }
  }

  private static func load(
    default action: UInt32, _ fill: (Draft) throws(Errno) -> Void
  ) throws(Errno) {
    guard clinux_prctl(PR_GET_SECCOMP, 0) >= 0 || errno != EINVAL else { return }
    guard let filter = seccomp_init(action) else { throw .noMemory }
    defer { seccomp_release(filter) }
    try fill(Draft(filter: filter))
    let result = seccomp_load(filter)
    guard result == 0 else { throw Errno(rawValue: -result) }
  }
}
