import CLinux
import CharacterDeviceServer
import Glibc
import SystemPackage

/// A program that the builder starts: the compiler, another tool, or a user's code.
package struct ChildProgram {
  package var path: String
  /// The arguments after the name of the program.
  package var arguments: [String] = []
  package var environment: [String] = []
  package var directory = "/"
  /// The descriptors of the program from 0 on; nil for /dev/null.
  package var descriptors: [FileDescriptor?] = [nil, nil, nil]
  package var limits: [(resource: __rlimit_resource, value: UInt)] = []
  /// The user as whom the program runs; nil for the user of this process.
  package var user: Sandbox.User?
  package var rules: Sandbox.ProgramRules?

  /// - Parameter rules: The confinement; nil for a program that this project trusts.
  package init(
    path: String, arguments: [String] = [], environment: [String] = [], directory: String = "/",
    descriptors: [FileDescriptor?] = [nil, nil, nil],
    limits: [(resource: __rlimit_resource, value: UInt)] = [],
    user: Sandbox.User? = nil, rules: Sandbox.ProgramRules?
  ) {
    self.path = path
    self.arguments = arguments
    self.environment = environment
    self.directory = directory
    self.descriptors = descriptors
    self.limits = limits
    self.user = user
    self.rules = rules
  }

  /// Starts the program in a process group of its own. The process ends with this one.
  ///
  /// - Returns: The process. Its status is 127 if the system has refused to start the program.
  package func start() throws(Errno) -> pid_t {
    let parent = getpid()
    return try withVectors { (arguments, environment) throws(Errno) in
      let child = clinux_fork()
      guard child >= 0 else { throw .current }
      guard child == 0 else {
        // Both processes set the group: it is there before one of the two goes on.
        setpgid(child, child)
        return child
      }
      setpgid(0, 0)
      run(arguments, environment, parent)
    }
  }

  private typealias Vector = [UnsafeMutablePointer<CChar>?]

  private func withVectors(
    _ body: (Vector, Vector) throws(Errno) -> pid_t
  ) throws(Errno) -> pid_t {
    do {
      return try withArgumentVector([path] + arguments) { arguments in
        try withArgumentVector(environment) { try body(arguments, $0) }
      }
    } catch {
      throw error as? Errno ?? .ioError
    }
  }

  private func run(_ arguments: Vector, _ environment: Vector, _ parent: pid_t) -> Never {
    // A change of the user clears the signal at the parent's end.
    if let user { Sandbox.enterHelper(as: user) }
    _ = clinux_prctl(PR_SET_PDEATHSIG, UInt(SIGKILL))
    guard getppid() == parent else { _exit(127) }
    var signals = sigset_t()
    sigemptyset(&signals)
    sigprocmask(SIG_SETMASK, &signals, nil)
    for number in [SIGPIPE, SIGXFSZ, SIGHUP] { signal(number, SIG_DFL) }
    umask(0o077)
    guard placeDescriptors(), chdir(directory) == 0 else { _exit(127) }
    if let rules { guard (try? rules.enter()) != nil else { _exit(127) } }
    // The limits come last: the rules take memory, and a daemon with AddressSanitizer has more addresses than the program may have.
    for limit in limits {
      var value = rlimit(rlim_cur: limit.value, rlim_max: limit.value)
      setrlimit(__rlimit_resource_t(limit.resource.rawValue), &value)
    }
    execve(path, arguments, environment)
    _exit(127)
  }

  /// Gives the descriptors the numbers from 0 on, and closes all others.
  private func placeDescriptors() -> Bool {
    let null = open("/dev/null", O_RDWR | O_CLOEXEC)
    // The copies have high numbers, so that none of them is overwritten below.
    let copies = descriptors.map {
      fcntl($0?.rawValue ?? null, F_DUPFD_CLOEXEC, Int32(descriptors.count) + 3)
    }
    for (number, copy) in copies.enumerated() {
      guard copy >= 0, dup2(copy, Int32(number)) >= 0 else { return false }
    }
    closeDescriptors(but: Array(0..<Int32(descriptors.count)))
    return true
  }
}

// MARK: - Tools

/// The result of a tool.
package struct ToolResult {
  /// The status as waitpid(2) gives it.
  var status: Int32 = -1
  /// The beginning of what the tool has printed.
  package var output = ""
  var hasTimedOut = false

  package var succeeded: Bool { status == 0 && !hasTimedOut }
}

extension ChildProgram {
  /// The most bytes that are kept of the output of a tool.
  private static let largestOutput = 64 << 10
  /// The longest time of a tool, in seconds.
  package static let timeLimit: UInt64 = 60

  /// Runs tools, as many at the same time as there are processors, and waits for their end.
  static func run(
    _ tools: [ChildProgram], atOnce: Int, seconds: UInt64 = timeLimit
  ) -> [ToolResult] {
    var results = [ToolResult](repeating: ToolResult(), count: tools.count)
    var running: [Running] = []
    var next = 0
    while next < tools.count || !running.isEmpty {
      while next < tools.count, running.count < atOnce {
        if let started = try? Running(tools[next], index: next, seconds: seconds) {
          running.append(started)
        }
        next += 1
      }
      var entries = running.map { pollfd(fd: $0.output, events: Int16(POLLIN), revents: 0) }
      guard !entries.isEmpty else { continue }
      _ = poll(&entries, nfds_t(entries.count), 1000)
      for (index, entry) in entries.enumerated().reversed() {
        let isOpen = entry.revents == 0 || running[index].read(most: largestOutput)
        let isLate = clinux_monotonic_nanoseconds() > running[index].deadline
        guard !isOpen || isLate else { continue }
        results[running[index].index] = running[index].finish(isLate: isLate)
        running.remove(at: index)
      }
    }
    return results
  }

  /// Runs the tool, and waits for its end.
  package func run(seconds: UInt64 = timeLimit) -> ToolResult {
    Self.run([self], atOnce: 1, seconds: seconds)[0]
  }

  private struct Running {
    let index: Int
    let process: pid_t
    let output: Int32
    let deadline: UInt64
    private var bytes: [UInt8] = []

    init(_ tool: ChildProgram, index: Int, seconds: UInt64) throws {
      deadline = clinux_monotonic_nanoseconds() + seconds * 1_000_000_000
      self.index = index
      var ends: [Int32] = [-1, -1]
      guard pipe(&ends) == 0 else { throw Errno.current }
      for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
      output = ends[0]
      var tool = tool
      tool.descriptors = [
        nil, FileDescriptor(rawValue: ends[1]), FileDescriptor(rawValue: ends[1]),
      ]
      defer { close(ends[1]) }
      do throws(Errno) {
        process = try tool.start()
      } catch {
        close(ends[0])
        throw error
      }
    }

    /// Reads output. Returns whether there can be more.
    mutating func read(most: Int) -> Bool {
      var buffer = [UInt8](repeating: 0, count: 8192)
      let count = Glibc.read(output, &buffer, buffer.count)
      guard count > 0 else { return count < 0 && errno == EINTR }
      bytes += buffer.prefix(min(count, max(0, most - bytes.count)))
      return true
    }

    func finish(isLate: Bool) -> ToolResult {
      if isLate { kill(-process, SIGKILL) }
      close(output)
      // As long as the process is not reaped, no other group gets its number.
      var info = siginfo_t()
      while waitid(P_PID, id_t(process), &info, Int32(WEXITED | WNOWAIT)) != 0 && errno == EINTR {}
      kill(-process, SIGKILL)
      return ToolResult(
        status: waitForEnd(of: process), output: String(decoding: bytes, as: UTF8.self),
        hasTimedOut: isLate)
    }
  }
}
