import CharacterDeviceServer
import Inspection
import Logging
import Scenarios
import Stage2Sim
import SystemPackage
import UserCode
import VirtWalkerDevice

/// The user's own code behind the nodes of a daemon.
final class OwnCode {
  /// The part that compiles and starts the code.
  let builder: CodeBuilderClient
  fileprivate let log = Logger(label: "code")

  /// Compiles the code, and logs the compiler's warnings.
  init(_ sources: CodeSources, user: Sandbox.User?) throws(CodeFailure) {
    builder = try CodeBuilderClient(sources, user: user)
    logMessages(builder.messages, at: .warning)
    if !builder.hasLandlock {
      log.warning(
        "this kernel has no Landlock: an #include of the code can read each file that the user of the daemon can read"
      )
    }
  }

  /// Takes the events of the builder.
  ///
  /// - Parameter bootAnew: A function that boots the machine of each node anew, with the new code.
  func watch(in loop: EventLoop, bootAnew: @escaping () throws -> Void) throws(Errno) {
    try loop.add(builder.eventDescriptor) { [self] in
      // A node may be in the middle of a call. The event is still there afterwards.
      guard !loop.isServingOthers else { return }
      switch builder.nextEvent() {
      case .built(let messages):
        logMessages(messages, at: .warning)
        do {
          try bootAnew()
          log.notice("the files have changed: the new code runs")
        } catch {
          log.error(
            "the files have changed, and the new code does not start: correct it, and it is tried again"
          )
        }
      case .failed(let reason):
        logMessages(reason, at: .error)
        log.error("the files have changed, and do not compile: the old code goes on")
      case .notice(let text): log.error("\(text): restart the daemon")
      case .end:
        loop.remove(builder.eventDescriptor)
        log.error(
          "the process that compiles and starts the code was killed, and the code with it: restart the daemon"
        )
      }
    }
  }

  /// Ends all processes of the code.
  func finish() { builder.finish() }

  private func logMessages(_ text: String, at level: Logger.Level) {
    for line in text.split(separator: "\n") { log.log(level: level, "\(line)") }
  }
}

/// The user's own code behind one node.
final class InstanceCode {
  let engine: ModelEngine
  private let timer: DelayTimer
  private let summary: String
  private let mistakes = Mistakes()

  /// The last mistakes of the code.
  private final class Mistakes {
    var count = 0
    var last: CodeFinding?
  }

  /// Boots a machine with the code. Each mistake of the code is logged at once.
  init(
    _ code: OwnCode, _ options: Serve, _ machine: MachineDescription, eventCapacity: Int,
    at node: FilePath
  ) throws {
    let sources = options.code
    let own = UserCode(
      code.builder,
      module: sources?.module.map {
        .init(name: $0, parameters: options.ownModule.moduleParameters ?? "")
      },
      hook: (sources?.hook ?? sources?.patch).map { .init(name: $0) })
    summary = sources?.description ?? ""
    timer = try DelayTimer()
    own.wakeUpLater = { [timer] in timer.start(atMost: $0) }
    let prefix = options.count == nil ? "" : "\(node): "
    own.onFinding = { [log = code.log, mistakes] finding in
      mistakes.count += 1
      mistakes.last = finding
      for line in "\(finding)".split(separator: "\n") { log.error("\(prefix)\(line)") }
    }
    engine = try own.makeEngine(machine, eventCapacity: eventCapacity)
  }

  /// Lets calls go on that sleep in the module.
  func watch(_ device: InspectedDevice, in loop: EventLoop) throws(Errno) {
    try loop.add(timer.descriptor) { [self] in
      // The node may be in the middle of a call. The timer stays readable until then.
      guard !loop.isServingOthers else { return }
      timer.finish()
      device.goOn { engine.wakeUp() }
    }
  }

  /// Unloads the module.
  func end() { engine.end() }

  /// The file `code` of the tree.
  var report: String {
    let lines =
      ["code: \(summary)", "mistakes: \(mistakes.count)"]
      + (mistakes.last.map { ["last: \($0)"] } ?? [])
    return lines.map { "\($0.printable)\n" }.joined()
  }
}

/// The user's own hook in the machines of `replay` and `explain`.
final class HookRunner {
  private let builder: CodeBuilderClient
  private let name: String

  /// Compiles the hook; nil if the options name none. The compiler's warnings go to standard error.
  init?(_ options: HookOptions) throws {
    guard options.isGiven else { return nil }
    builder = try CodeBuilderClient(options.sources, user: UserOptions.usual)
    name = options.hook ?? options.patch ?? ""
    if !builder.messages.isEmpty { Self.print(builder.messages) }
  }

  deinit { builder.finish() }

  /// Makes a machine with the hook. Each mistake of the hook goes to standard error.
  ///
  /// - Parameters:
  ///   - machine: The machine.
  ///   - observed: The tables of the machine, if they are to be observed.
  func makeEngine(
    _ machine: MachineDescription, observed: ObservedTables? = nil
  ) throws -> ModelEngine {
    let code = UserCode(builder, hook: .init(name: name))
    // The engine keeps the function, and so the builder.
    code.onFinding = { [self] in report($0) }
    return try code.makeEngine(machine, hasDriver: false, observed: observed)
  }

  private func report(_ finding: CodeFinding) { Self.print("\(finding)") }

  private static func print(_ text: String) {
    _ = try? FileDescriptor.standardError.writeAll(
      "\(text.printable(allowing: ["\n", "\t"]))\n".utf8)
  }
}

extension HookRunner? {
  /// Makes a machine with the user's hook, or with the built-in one.
  func makeEngine(_ machine: MachineDescription) throws -> any Engine {
    try self?.makeEngine(machine) ?? ModelEngine(machine)
  }

  /// Makes a machine with the user's hook, or with the built-in one, whose tables are observed.
  func makeTracer(_ machine: MachineDescription) throws -> StepTracer {
    guard let self else { return try StepTracer(machine) }
    return try StepTracer { try self.makeEngine(machine, observed: $0) }
  }
}
