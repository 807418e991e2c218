import ArgumentParser
import CharacterDeviceServer
import Glibc
import Logging
import Stage2Sim
import SystemPackage
import UserCode
import VirtWalkerDevice

/// The kind of server that makes the node.
enum Backend: String, ExpressibleByArgument, CaseIterable {
  case auto, cuse, fuse
}

struct Serve: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "serve",
    abstract: "Serve the node until a signal comes (the default).",
    discussion: """
      The node answers when the line "... is ready" is on standard output, when --detach has returned 0, or when \
      systemd has received READY=1. SIGTERM, SIGINT and SIGHUP remove the node. Under nohup, SIGHUP is ignored.
      """)

  @OptionGroup var node: NodeOptions

  @Option(
    help: """
      auto: a character device by CUSE if this machine supports CUSE, otherwise a file by FUSE.
      """)
  var backend = Backend.auto

  @OptionGroup(title: "Node") var access: AccessOptions

  @OptionGroup var runAs: UserOptions

  @Option(
    help: ArgumentHelp(
      "Serve this number of nodes, each with its own machine and tree. Their names have numbers from 0: virt_walker0, virt_walker1. With --tree DIR, the trees are DIR/virt_walker0 and so on. (values: 1 to \(Serve.mostNodes); default: one node without a number)",
      valueName: "n"))
  var count: Int?

  @OptionGroup(title: "Inspection") var inspection: TreeOptions

  @Option(
    help: ArgumentHelp(
      "The way of waiting for the next request of a busy client. auto: try sleeping, sleeping while idle CPUs are kept awake (as root), and polling for \(PollPolicy.longest) microseconds, and keep the fastest way. never: sleep at once. A number: poll for this number of microseconds, up to \(Serve.longestPoll). (default: auto)",
      valueName: "time"),
    transform: Serve.parsePolling)
  var poll = PollPolicy.automatic

  @OptionGroup(title: "Machine") var realKernel: KernelOptions

  @Option(
    help: ArgumentHelp(
      "The version of Linux on the host of the model. The real kernel takes --linux.",
      valueName: "version"))
  var kernel = KernelVersion.standard

  @OptionGroup(title: "Machine") var host: HostOptions

  @OptionGroup(title: "Machine") var memory: MemoryOptions

  @OptionGroup(title: "Your own code") var ownModule: ModuleOptions

  @OptionGroup(title: "Your own code") var ownHook: HookOptions

  @Option(
    help: ArgumentHelp(
      "The least important messages that are logged. At info, the log has the lines of the guest's and the host's kernel. (values: \(Logger.Level.allCases.map(\.rawValue).joined(separator: ", ")); default: \(Logger.Level.notice))",
      valueName: "level"),
    transform: Serve.parseLevel)
  var logLevel = Logger.Level.notice

  @Option(
    help: ArgumentHelp("Append the log to this file. (default: standard error)", valueName: "file"),
    transform: Serve.parseFile)
  var logFile: FilePath?

  @Flag(help: "Go to the background once the node answers.")
  var detach = false

  @Option(
    help: ArgumentHelp(
      "Write the daemon's pid to this file while it runs. (default: no file)", valueName: "file"),
    transform: Serve.parseFile)
  var pidFile: FilePath?

  @Option(help: .hidden)
  var readyDescriptor: Int32?

  @Flag(help: .hidden)
  var endWithParent = false

  /// The limit follows from PTHREAD_KEYS_MAX: a process has 1024 keys for thread-specific data, and libfuse takes one
  /// for each node and each tree.
  private static let mostNodes = 500

  /// The machine behind the node.
  var machine: VirtualMachine.Configuration {
    .init(
      cpu: host.cpu, granule: host.granule, ipaBits: host.ipa, backing: host.backing,
      memorySize: memory.memory, kernel: kernel)
  }

  func validate() throws {
    try memory.check(on: host)
    if let count, !(1...Self.mostNodes).contains(count) {
      throw ValidationError("--count \(count): one daemon serves 1 to \(Self.mostNodes) nodes")
    }
    if node.path != nil && backend == .cuse {
      throw ValidationError(
        "CUSE makes nodes in /dev only: give --name, or --backend fuse with --path")
    }
    if realKernel.engine == .kernel { return try realKernel.check(self) }
    try realKernel.checkModel()
    let hasCode = ownModule.module != nil || ownHook.isGiven
    try ownHook.requireCode(hasCode, by: "--module or --hook")
    if ownModule.watchSource && !hasCode {
      throw ValidationError("--watch-source needs files to watch: give --module or --hook")
    }
  }

  /// The user's own code; nil if there is none.
  var code: CodeSources? {
    guard realKernel.engine == .model else { return nil }
    var sources = ownHook.sources
    sources.module = ownModule.module
    sources.isWatched = ownModule.watchSource
    return sources.isEmpty ? nil : sources
  }

  func run() throws {
    try reportingFailures {
      closeInheritedDescriptors()
      try allowOpenFiles(forNodes: count ?? 1, hasCode: code != nil)
      if detach {
        try Detached.run(log: logFile)
      } else {
        try Daemon(self).run()
      }
    }
  }

  /// Closes the caller's files, locks and sockets: the server answers to untrusted clients, and it would keep these
  /// files open.
  private func closeInheritedDescriptors() {
    var kept = readyDescriptor.map { [$0] } ?? []
    // sd_listen_fds(3)
    if let process = getenv("LISTEN_PID"), pid_t(String(cString: process)) == getpid(),
      let count = getenv("LISTEN_FDS").flatMap({ Int32(String(cString: $0)) }), (0...64) ~= count
    {
      kept += 3..<3 + count
    }
    closeDescriptors(but: kept)
  }

  /// The longest time to poll, in microseconds: a client that is still busy makes its next request earlier.
  private static let longestPoll = 10_000

  private static func parsePolling(_ text: String) throws -> PollPolicy {
    switch text {
    case "auto": return .automatic
    case "never": return .never
    default:
      guard let time = Int(text), (1...longestPoll).contains(time), text.first != "+" else {
        throw ValidationError(
          "'\(text)' is not a time to poll: give auto, never or 1 to \(longestPoll)")
      }
      return .always(microseconds: time)
    }
  }

  private static func parseLevel(_ text: String) throws -> Logger.Level {
    guard let level = Logger.Level(rawValue: text) else {
      throw ValidationError("there is no log level '\(text)'")
    }
    return level
  }

  private static func parseFile(_ text: String) throws -> FilePath {
    guard !text.isEmpty else { throw ValidationError("an empty name is not a file") }
    return FilePath(text)
  }
}

/// Makes sure that the process can open enough files for all nodes. The limit that a shell sets is often 1024.
private func allowOpenFiles(forNodes count: Int, hasCode: Bool) throws {
  // Each node needs five: its connection, its tree's, its lock and two directories. A user's code needs a socket and memory for each of two
  // processes, the tables' memory, and a timer. The other 32 are for standard streams, signals, timer and short-lived files.
  let needed = rlim_t((hasCode ? 11 : 5) * count + 32)
  var limit = rlimit()
  getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  guard needed <= limit.rlim_max else {
    throw Failure(
      "\(needed) open files are needed for \(count) nodes, but this process may have only \(limit.rlim_max): ulimit -Hn \(needed) as root, LimitNOFILE= in a systemd unit, or a smaller --count",
      status: .unavailable)
  }
  limit.rlim_cur = max(limit.rlim_cur, needed)
  setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
}
