import ArgumentParser
import CharacterDeviceServer
import Glibc
import Inspection
import Logging
import SystemPackage
import UserCode

/// Runs a command for which the node exists, without root, FUSE or a mount.
struct Exec: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "exec",
    abstract: "Run a command for which the node exists, without root, FUSE, CUSE or a mount.",
    usage: "virt-walkerd exec [<options of serve>] -- <command>...",
    discussion: """
      The node is a character device for the command and for all processes that the command starts, and for no other process. \
      Their system calls for the node are taken by seccomp(2), and go to the machine of this process. No rights are needed, \
      but Linux 5.14 or later. Programs with the setuid bit run without its rights.

      The options of the machine, of your own code, of the node and of the log are those of serve. The options for servers \
      in the background, and those of FUSE and CUSE, are refused.

      The commands tree, walk, control and watch show and control the machine, within the command and from another terminal of the same \
      user. With --tree DIR, the tree is a directory, if this machine has FUSE, also for page.

      The command and its processes see the node at /dev/NAME, or at the FILE of --path. virt-walkerd waits for the last of these \
      processes.

      Exit status: that of the command; 128 and the number of the signal that has ended the command; 127 if the command \
      does not exist, and 126 if it is no program; 64, 65, 69, 71 and 77 as for serve.
      """)

  @OptionGroup(visibility: .hidden) var options: Serve

  @Argument(
    parsing: .postTerminator,
    help: ArgumentHelp("The command and its arguments, after --.", valueName: "command"))
  var command: [String] = []

  func validate() throws {
    guard !command.isEmpty else {
      throw ValidationError(
        "no command: give it after --, for example: virt-walkerd exec -- head -c1 /dev/virt_walker")
    }
    if let (option, reason) = refusedOption {
      throw ValidationError("\(option) is not an option of exec: \(reason)")
    }
  }

  /// An option of serve that has no meaning here, and the reason.
  private var refusedOption: (option: String, reason: String)? {
    if options.detach { return ("--detach", "the command runs in the foreground") }
    if options.backend != .auto {
      return ("--backend", "the node is served by system calls of the command, not by FUSE or CUSE")
    }
    if options.count != nil { return ("--count", "there is one node for the command") }
    if options.pidFile != nil {
      return ("--pid-file", "a signal to virt-walkerd goes to the command")
    }
    if options.poll != .automatic {
      return ("--poll", "the kernel wakes virt-walkerd for each call of the command")
    }
    if options.realKernel.engine == .kernel {
      return (
        "--engine kernel", "the real kernel needs a daemon: virt-walkerd serve --engine kernel"
      )
    }
    if options.runAs.given != nil {
      return ("--user", "virt-walkerd needs the rights of the command, and has no others")
    }
    return nil
  }

  func run() throws {
    var status: Int32 = 0
    try reportingFailures { status = try SupervisedRun(options, command).run() }
    throw ExitCode(status)
  }
}

/// The life of a command with its node.
private struct SupervisedRun {
  private let options: Serve
  private let words: [String]
  private let log: Logger

  init(_ options: Serve, _ words: [String]) throws {
    self.options = options
    self.words = words
    try reserveStandardDescriptors()
    let level = options.logLevel
    LoggingSystem.bootstrap { StandardErrorLog(label: $0, logLevel: level) }
    let log = Logger(label: "virt-walkerd")
    LibFuse.setLog { log.error("\($0)") }
    self.log = log
  }

  /// - Returns: The exit status.
  func run() throws -> Int32 {
    let given = SupervisedCommand.Signals()
    let signals = try TerminationSignals(and: [SIGCHLD])
    let code = try options.code.map { try OwnCode($0, user: options.runAs.user) }
    defer { code?.finish() }
    let node = try options.node.node
    let (device, own) = try Instance.boot(options, node, code, nil)
    defer { own?.end() }
    device.onGuestStop = { [log] in
      log.error(
        "\(node): the guest has stopped: \($0). Each read and write of the node fails with EIO")
    }
    let loop = try EventLoop()
    let tree = try CommandTree(of: device, node, options, log)
    defer { tree.end() }
    let command = try SupervisedCommand(words, signals: given)
    // The command has its standard error by now.
    if let logFile = options.logFile { try redirectStandardError(to: logFile) }
    let server = try SeccompServer(
      path: node,
      access: NodeAccess(
        mode: options.access.mode, owner: options.access.owner, group: options.access.group),
      command: command, device: device, besides: tree.directory)
    defer { server.close() }
    try server.serve(command, signals: signals, in: loop) { tree.noteNews() }
    try tree.serve(in: loop)
    device.onRead = { loop.handleRequests(of: server) }
    try own?.watch(device, in: loop)
    if let code { try code.watch(in: loop) { try device.bootAnew() } }
    command.begin()
    try loop.run()
    return command.waitForExitStatus()
  }
}

/// Makes sure that no file of this process gets the number of a standard descriptor that is closed. The command finds it closed.
private func reserveStandardDescriptors() throws {
  var descriptor: Int32
  repeat {
    descriptor = open("/dev/null", O_RDWR | O_CLOEXEC)
    guard descriptor >= 0 else {
      throw Failure(
        .current, doing: "open", at: "/dev/null", advice: "look at its mode: ls -l /dev/null")
    }
  } while descriptor <= STDERR_FILENO
  close(descriptor)
}
