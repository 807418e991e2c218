import ArgumentParser
import CLinux
import CharacterDeviceServer
import Glibc
import KernelLab
import Scenarios
import Stage2Sim
import SystemPackage
import UserCode

struct Compare: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "compare",
    abstract:
      "Run a test or a scenario on the model and on the real kernel, and show the differences.",
    discussion: """
      A scenario is a text with a line for the machine and a line for each step of its guest or its host (docs/scenario.md). A recording is one, \
      too. Each step is performed by the model and, in an emulated host, by the real KVM with the hook. The command prints a line \
      for each step with equal observations, and otherwise the observations of both side by side. The model has the version of Linux of the \
      machine's line (kernel=), or of --kernel, and so has the real kernel, if --linux names no other one.

      A test is a command, behind --. The command is run twice: while serve answers at the node with the model, and with --engine kernel. The command finds the node in \
      $VIRT_WALKER_NODE, which is /dev/virt_walker unless --name or --path selects another one. Compared are what the command \
      prints, its exit status, and the lines of both kernels' logs while it runs, without their times. One word is a line for sh -c.

      Exit status: 0 no difference; 1 a difference; 64 wrong usage; 65 a text is not a scenario, or the code does not compile; 66 a file \
      cannot be read; 69 the lab's kernel cannot have the machine; another one if serve does not start: see virt-walkerd help serve.
      """)

  @OptionGroup var node: NodeOptions
  @Option(
    help: ArgumentHelp(
      "The version of Linux on the host of the model. (default: that of the scenario, or 6.1)",
      valueName: "version"))
  var kernel: KernelVersion?
  @OptionGroup(title: "Machine") var host: HostOptions
  @OptionGroup(title: "Machine") var realKernel: KernelOptions
  @OptionGroup(title: "Your own code") var ownModule: ModuleOptions
  @OptionGroup(title: "Your own code") var ownHook: HookOptions

  @Argument(
    help: ArgumentHelp("A scenario or a recording; - is standard input.", valueName: "file"))
  var file: String?

  // An option of the command is none of this program.
  @Argument(
    parsing: .postTerminator,
    help: ArgumentHelp("The command, behind --.", valueName: "command"))
  var command: [String] = []

  func validate() throws {
    guard !command.isEmpty || file != nil else {
      throw ValidationError("give a scenario, or a command behind the options: -- sh test.sh")
    }
    guard command.isEmpty || file == nil else {
      throw ValidationError("'\(file!)' and a command behind --: compare takes one of them")
    }
    guard file != "" else { throw ValidationError("an empty name is not a file") }
    guard file == nil || ownModule.module == nil else {
      throw ValidationError("--module is not for a scenario, whose guest has no module")
    }
    guard !ownModule.watchSource else {
      throw ValidationError("--watch-source is not for compare, which runs the command once")
    }
  }

  func run() throws {
    try reportingFailures {
      if let file { return try compareScenario(file) }
      let name = node.name ?? "virt_walker"
      let path = try node.path.map { try $0.inResolvedDirectory(advice: "choose another --path") }
      let node = path ?? FilePath("/dev").appending(name)
      var outcomes: [TestOutcome] = []
      for engine in [EngineKind.model, .kernel] {
        try tell("\(engine.rawValue): starting")
        let place = path == nil ? ["--name", name] : ["--path", node.string]
        let test = TestRun(node: node, options: place + options(for: engine))
        outcomes.append(try test.outcome(of: command))
      }
      let text = outcomes[1].differences(from: outcomes[0], width: outputWidth())
      try write(text.isEmpty ? "no difference\n" : text)
      if !text.isEmpty { throw ExitCode.failure }
    }
  }

  private func compareScenario(_ file: String) throws {
    let text = try ScenarioText(file, kernel)
    try ScenarioComparison.check(text)
    // The end of the emulator must not end this process.
    signal(SIGPIPE, SIG_IGN)
    var ownHook = ownHook
    let version = text.machine.configuration.kernel
    if ownHook.linux == nil, version != .standard { ownHook.linux = version.rawValue }
    let hook = try HookRunner(ownHook)
    let images = try realKernel.hostImages(
      ownHook, ownModule, as: UserOptions.usual, progress: { try? tell($0) })
    try withExtendedLifetime(images.claim) {
      guard try ScenarioComparison(text, images.host, hook).run() else { throw ExitCode.failure }
    }
  }

  private func tell(_ text: String) throws {
    _ = try FileDescriptor.standardError.writeAll("virt-walkerd: \(text)\n".utf8)
  }

  /// The options of serve for an engine.
  private func options(for engine: EngineKind) -> [String] {
    var options = ["--engine", engine.rawValue, "--cpu", host.cpu.rawValue]
    options += ["--backing", host.backing.rawValue, "--ipa", "\(host.ipa)"]
    func add(_ option: String, _ value: String?) {
      if let value { options += [option, value] }
    }
    if engine == .kernel {
      add("--config", realKernel.config)
      add("--cache", realKernel.cache.cache)
      add("--images", realKernel.images)
      add("--emulator", realKernel.emulator)
    }
    if engine == .model { add("--kernel", kernel?.rawValue) }
    // Images have their code already.
    guard engine == .model || realKernel.images == nil else { return options }
    add("--module", ownModule.module)
    add("--module-parameters", ownModule.moduleParameters)
    add("--hook", ownHook.hook)
    add("--hook-function", ownHook.hookFunction)
    add("--linux", ownModule.module != nil || ownHook.isGiven ? ownHook.linux : nil)
    for patch in ownHook.patches { add("--patch", patch) }
    return options
  }
}

/// A run of the test on one engine.
private struct TestRun {
  let node: FilePath
  /// The options of serve.
  let options: [String]

  private static let logs = ["guest/dmesg", "host/dmesg"]

  /// The usual place of the tree; nil if there is none.
  private var tree: FilePath? { Instance.usualTree(of: node) }

  /// Starts the daemon, runs the command, and ends the daemon.
  func outcome(of command: [String]) throws -> TestOutcome {
    let daemon = try TestDaemon(options)
    defer { daemon.end() }
    let before = Self.logs.map { lines(of: $0).count }
    setenv("VIRT_WALKER_NODE", node.string, 1)
    let isLine = command.count == 1
    let program = try Program(
      isLine ? "/bin/sh" : command[0], isLine ? ["-c", command[0]] : Array(command.dropFirst()))
    let status = program.finish()
    let logs = zip(Self.logs, before).map { Array(lines(of: $0).dropFirst($1)) }
    return TestOutcome(
      output: program.lines, status: status, guestLog: logs[0], hostLog: logs[1])
  }

  /// The lines of a log without their times.
  private func lines(of log: String) -> [String] {
    guard let tree, let file = try? FileDescriptor.open(tree.appending(log), .readOnly) else {
      return []
    }
    let bytes = (try? file.closeAfter { try readAll(file) }) ?? []
    return bytes.split(separator: UInt8(ascii: "\n")).map { line in
      let text = String(decoding: line, as: UTF8.self).printable
      guard text.hasPrefix("["), let end = text.firstIndex(of: "]") else { return text }
      return String(text[text.index(after: end)...].drop { $0 == " " })
    }
  }
}

/// All that a test has shown on one engine.
private struct TestOutcome {
  let output: [String]
  let status: Int32
  let guestLog: [String]
  let hostLog: [String]

  /// The differences as text; empty if there is none.
  func differences(from model: TestOutcome, width: Int?) -> String {
    let parts: [(String, [String], [String])] = [
      ("output", output, model.output),
      ("exit status", ["\(status)"], ["\(model.status)"]),
      ("guest/dmesg", guestLog, model.guestLog),
      ("host/dmesg", hostLog, model.hostLog),
    ]
    return parts.compactMap { title, kernel, model in
      SideBySide(differencesOfKernel: kernel, fromModel: model).map { difference in
        "\(title):\n" + difference.lines(width: width).map { "\($0)\n" }.joined()
      }
    }.joined()
  }
}

/// A daemon that ends with this process, also if this process is killed.
private struct TestDaemon {
  private let process: pid_t
  private let output: FileDescriptor

  /// Starts serve, and waits until the node answers.
  init(_ options: [String]) throws {
    let pipe = try FileDescriptor.pipe()
    _ = fcntl(pipe.readEnd.rawValue, F_SETFD, FD_CLOEXEC)
    var path = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
    let directory =
      getcwd(&path, path.count) == nil ? "/" : FilePath(platformString: path).string
    process = try ChildProgram(
      path: "/proc/self/exe", arguments: ["serve", "--end-with-parent"] + options,
      environment: Self.environment, directory: directory,
      descriptors: [nil, pipe.writeEnd, .standardError], rules: nil
    ).start()
    try pipe.writeEnd.close()
    output = pipe.readEnd
    // The line "... is ready", or the end.
    var byte: UInt8 = 0
    let count = try withUnsafeMutableBytes(of: &byte) { try output.read(into: $0) }
    guard count == 1 else {
      let status = waitForEnd(of: process)
      throw status & 0x7f == 0 ? ExitCode(status >> 8 & 0xff) : ExitCode.systemError
    }
  }

  func end() {
    kill(process, SIGTERM)
    _ = waitForEnd(of: process)
    try? output.close()
  }

  private static var environment: [String] {
    var variables: [String] = []
    var next = environ
    while let variable = next.pointee {
      variables.append(String(cString: variable))
      next += 1
    }
    return variables
  }
}

/// A child process, whose output is read.
private final class Program {
  private let process: pid_t
  private let output: FileDescriptor
  private var bytes: [UInt8] = []

  init(_ path: String, _ arguments: [String]) throws {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    let pipe = try FileDescriptor.pipe()
    for end in [pipe.readEnd, pipe.writeEnd] { _ = fcntl(end.rawValue, F_SETFD, FD_CLOEXEC) }
    for standard in [STDOUT_FILENO, STDERR_FILENO] {
      posix_spawn_file_actions_adddup2(&actions, pipe.writeEnd.rawValue, standard)
    }
    var child = pid_t()
    let result = withArgumentVector([path] + arguments) {
      posix_spawnp(&child, path, &actions, nil, $0, environ)
    }
    try pipe.writeEnd.close()
    output = pipe.readEnd
    process = child
    guard result == 0 else {
      throw Failure(
        "cannot start \(path): \(Errno(rawValue: result)): give a program, or one word for sh -c",
        status: .noInput)
    }
  }

  /// Reads the output, and waits for the end of the process.
  ///
  /// - Returns: The exit status as a shell has it.
  func finish() -> Int32 {
    bytes = (try? output.closeAfter { try readAll(output) }) ?? []
    let status = waitForEnd(of: process)
    return status & 0x7f == 0 ? status >> 8 & 0xff : 128 + status & 0x7f
  }

  var lines: [String] {
    bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).map {
      String(decoding: $0, as: UTF8.self).printable
    }
  }
}

/// The most bytes that are compared.
private let mostOutput = 16 << 20

private func readAll(_ file: FileDescriptor) throws -> [UInt8] {
  var bytes: [UInt8] = []
  var part = [UInt8](repeating: 0, count: 64 << 10)
  while true {
    let count = try part.withUnsafeMutableBytes { try file.read(into: $0) }
    guard count > 0 else { return bytes }
    bytes += part[..<min(count, max(0, mostOutput - bytes.count))]
  }
}
