import Scenarios
import Stage2Sim
import VirtWalkerDevice

/// A user's own code in the system behind a node: a kernel module in the guest, a hook in the host's KVM, or both.
///
/// The code of a boot runs in processes of its own, which end with the boot.
public final class UserCode {
  /// A kernel module.
  public struct Module: Sendable {
    /// The name of its source, for messages.
    public var name: String
    /// The parameters of `insmod`: `name=value`, with spaces between.
    public var parameters: String

    /// A module.
    public init(name: String, parameters: String = "") {
      self.name = name
      self.parameters = parameters
    }
  }

  /// A hook.
  public struct Hook: Sendable {
    /// The name of its source, for messages.
    public var name: String
    /// The registers by which the hook hides a byte; nil for a hook of another device. By default, those of the original system.
    public var registers: HidingRegisters?

    /// A hook.
    public init(name: String, registers: HidingRegisters? = HideSeek().registers) {
      self.name = name
      self.registers = registers
    }
  }

  /// A function that is called for each mistake that is found while the code runs. The logs of the two kernels have the same lines.
  public var onFinding: ((CodeFinding) -> Void)?
  /// A function that asks for ``VirtWalkerDevice/ModelEngine/wakeUp()`` after some milliseconds, as a call of the module waits for so
  /// long. Without it, the call waits in the daemon.
  public var wakeUpLater: ((_ milliseconds: Int) -> Void)?

  /// Whether the hook answers accesses to registers, and not only hypercalls. It is known after the first boot.
  public private(set) var hookHasAbort = false

  private let launcher: any CodeLauncher
  private let module: Module?
  private let hook: Hook?
  private weak var engine: ModelEngine?

  /// The code that a launcher starts.
  ///
  /// - Parameters:
  ///   - launcher: The launcher.
  ///   - module: The module; nil for the driver of the original system.
  ///   - hook: The hook; nil for that of the original system.
  public init(_ launcher: any CodeLauncher, module: Module? = nil, hook: Hook? = nil) {
    self.launcher = launcher
    self.module = module
    self.hook = hook
  }

  /// Boots a machine with the code.
  ///
  /// - Parameters:
  ///   - machine: The machine.
  ///   - eventCapacity: The number of events that the engine keeps, a power of two.
  ///   - hasDriver: Whether the guest has a driver. Without one, the guest has run nothing yet, as at the start of a scenario.
  ///   - observed: The tables of the machine, if they are to be observed.
  /// - Throws: ``CodeFailure``, or an error of the engine.
  public func makeEngine(
    _ machine: MachineDescription, eventCapacity: Int = 1 << 14, hasDriver: Bool = true,
    observed: ObservedTables? = nil
  ) throws -> ModelEngine {
    // The engine keeps the object, and not the other way round.
    let tables: TableSource? =
      hook == nil ? nil : { [launcher] size in SharedTableBlock(size: size, launcher) }
    let parts = ModelEngine.Parts(
      tables: observed.map { $0.source(over: tables) } ?? tables,
      makeHooks: { try self.makeHooks(&$0) },
      loadDriver: hasDriver ? { try self.loadDriver(&$0) } : nil)
    let engine = try ModelEngine(machine, parts, eventCapacity: eventCapacity)
    self.engine = engine
    return engine
  }

  private func makeHooks(_ machine: inout VirtualMachine) throws -> [any MMIOHook] {
    guard let hook else { return [HideSeek()] }
    let code = try CodeHook(
      try start(.hook), name: hook.name, registers: hook.registers, in: &machine)
    hookHasAbort = code.hasAbort
    // A hook for hypercalls alone leaves HIDE and SEEK as they are.
    guard code.hasAbort else { return [HideSeek(), code] }
    guard let registers = hook.registers else { return [code] }
    return [CodeHidingHook(hook: code, registers: registers)]
  }

  private func loadDriver(_ machine: inout VirtualMachine) throws -> any GuestFileOperations {
    guard let module else { return try VirtWalkerDriver(loadedIn: &machine) }
    return try CodeDriver(
      try start(.module), name: module.name, parameters: module.parameters, in: &machine,
      wakeUpLater: wakeUpLater.map { _ in { [unowned self] in wakeUpLater?($0) } })
  }

  private func start(_ kind: CodeKind) throws(CodeFailure) -> CodeProcess {
    let process = try CodeProcess(kind, launcher)
    process.onFinding = { [unowned self] in onFinding?($0) }
    process.channel.mayGoOn = { [unowned self] in engine?.mayGoOn?() ?? true }
    return process
  }
}
