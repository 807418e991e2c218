import CharacterDeviceServer
import Glibc
import Scenarios
import Stage2Sim
import SystemPackage

/// The engine whose machine is the model: a machine, its hooks, and the driver in its guest.
///
/// Each step is performed at once. At a node, a program's call is answered at once, unless the driver lets the call wait.
public final class ModelEngine {
  public let machine: MachineDescription
  public let events: EventStream
  // Swift does not check the variables of a call for exclusive access: the checks were a tenth of the instructions of a call.
  @exclusivity(unchecked) public internal(set) var guestStop: GuestStopped?

  /// The present state of the machine. A change between two operations changes the guest's machine.
  @exclusivity(unchecked) public var virtualMachine: VirtualMachine
  private var recorder: ModelRecorder
  @exclusivity(unchecked) var driver: (any GuestFileOperations)?

  /// The hooks of the present boot.
  private var hooks: [any MMIOHook] = []
  private let parts: Parts
  private var checkpoint: Checkpoint?

  /// The number of times that the machine was made anew.
  @exclusivity(unchecked) private(set) var boots = 0
  /// The number of calls that programs have made.
  @exclusivity(unchecked) var calls: UInt64 = 0
  /// The calls that wait in the driver, in the order in which programs made them.
  var waiting = WaitQueue<WaitingCall>()
  /// The files of programs that wait for an event of `poll(2)`.
  let pollers = PollWaiters()
  /// The file of reads and writes without a node.
  @exclusivity(unchecked) var ownFile = GuestFile(flags: O_RDWR | O_NONBLOCK)

  public var mayGoOn: (() -> Bool)?

  /// The parts of a system that are made anew for each boot of the machine.
  public struct Parts {
    /// The origin of the memory of the stage-2 tables; nil for memory of this process alone.
    public var tables: TableSource?
    /// Makes the hooks in `io_mem_abort`, in the order in which the kernel asks the hooks.
    public var makeHooks: (inout VirtualMachine) throws -> [any MMIOHook]
    /// Loads the driver into the guest: `insmod`. Nil if there is no driver: the guest has run nothing yet, as at the start of a scenario.
    public var loadDriver: ((inout VirtualMachine) throws -> any GuestFileOperations)?

    /// Parts. An error of a function is an error of the boot.
    public init(
      tables: TableSource? = nil,
      makeHooks: @escaping (inout VirtualMachine) throws -> [any MMIOHook] = { _ in [HideSeek()] },
      loadDriver: ((inout VirtualMachine) throws -> any GuestFileOperations)? = nil
    ) {
      self.tables = tables
      self.makeHooks = makeHooks
      self.loadDriver = loadDriver
    }
  }

  /// Boots a machine, and loads a driver into its guest.
  ///
  /// - Parameters:
  ///   - machine: The machine.
  ///   - hooks: The hooks in `io_mem_abort`, in the order in which the kernel asks the hooks.
  ///   - driver: The driver. Without one, the guest has run nothing yet, as at the start of a scenario.
  ///   - eventCapacity: The number of events that ``events`` keeps, a power of two.
  /// - Throws: ``UnplayableMachine`` if there is no such machine, or the error of `insmod`.
  public convenience init(
    _ machine: MachineDescription, hooks: [any MMIOHook] = [HideSeek()],
    driver: (any GuestDriver.Type)? = nil, eventCapacity: Int = 1 << 14
  ) throws {
    let loadDriver = driver.map { driver in
      { (machine: inout VirtualMachine) in
        try driver.init(loadedIn: &machine) as any GuestFileOperations
      }
    }
    try self.init(
      machine, Parts(makeHooks: { _ in hooks }, loadDriver: loadDriver),
      eventCapacity: eventCapacity)
  }

  /// Boots a machine whose hooks and driver are made anew for each boot.
  ///
  /// - Parameters:
  ///   - machine: The machine.
  ///   - parts: The functions that make the hooks and the driver.
  ///   - eventCapacity: The number of events that ``events`` keeps, a power of two.
  /// - Throws: ``UnplayableMachine`` if there is no such machine, or the error of a function.
  public init(
    _ machine: MachineDescription, _ parts: Parts, eventCapacity: Int = 1 << 14
  ) throws {
    self.machine = machine
    self.parts = parts
    events = EventStream(capacity: eventCapacity)
    (virtualMachine, recorder, hooks) = try Self.boot(machine, parts, events)
    driver = try parts.loadDriver?(&virtualMachine)
    checkpoint = Checkpoint { [unowned self] in mayGoOn?() ?? true }
    virtualMachine.checkpoint = checkpoint
  }

  deinit { end() }

  /// Unloads the driver. The engine is of no use afterwards. Without this call, the driver is unloaded when the last reference to the
  /// engine is gone.
  public func end() {
    driver?.unload(from: &virtualMachine)
    driver = NoDriver()
  }

  private static func boot(
    _ description: MachineDescription, _ parts: Parts, _ events: EventStream
  ) throws -> (VirtualMachine, ModelRecorder, [any MMIOHook]) {
    var machine: VirtualMachine
    let recorder: ModelRecorder
    do throws(KernelError) {
      machine =
        parts.loadDriver == nil
        ? try VirtualMachine(description.configuration, tables: parts.tables)
        : try VirtualMachine.booted(description.configuration, tables: parts.tables)
      recorder = try ModelRecorder(of: &machine, code: description.code)
    } catch {
      throw UnplayableMachine(machine: description, error: error)
    }
    machine.events = events
    let hooks = try parts.makeHooks(&machine)
    for hook in hooks { machine.add(hook) }
    return (machine, recorder, hooks)
  }
}

// MARK: - The machine

extension ModelEngine: Engine {
  public var view: any MachineView { self }

  public var hidingRegisters: HidingRegisters? {
    hooks.lazy.compactMap { ($0 as? any HidingHook)?.registers }.first
  }

  public func perform(
    _ step: Step, completion: @escaping (Result<[Observation], EngineFailure>) -> Void
  ) {
    checkpoint?.begin()
    completion(.success(recorder.perform(step, on: &virtualMachine)))
  }

  public func reset(completion: @escaping (Result<Void, EngineFailure>) -> Void) {
    let hadDriver = driver != nil
    driver?.unload(from: &virtualMachine)
    // If the boot fails, each call of a program fails.
    driver = hadDriver ? NoDriver() : nil
    boots += 1
    ownFile.boot = nil
    guestStop = nil
    var result: Result<Void, EngineFailure> = .success(())
    do {
      (virtualMachine, recorder, hooks) = try Self.boot(machine, parts, events)
      virtualMachine.checkpoint = checkpoint
      driver = try parts.loadDriver?(&virtualMachine)
    } catch {
      result = .failure(EngineFailure("the machine does not boot: \(error)"))
    }
    wakeUp()
    completion(result)
  }

  public func waitForAnswer() { preconditionFailure("each answer of the model comes at once") }
}

extension ModelEngine: MachineView {
  public var startLevel: Int { virtualMachine.stage2.startLevel }

  public var tablePages: Int { virtualMachine.stage2.memory.pagesInUse }

  public func path(to address: IntermediatePhysicalAddress) -> [TableVisit] {
    look { $0.stage2.path(to: address) }
  }

  public func leaf(for address: IntermediatePhysicalAddress) -> Leaf? {
    look { try? $0.leaf(for: address) }
  }

  public func references(for address: IntermediatePhysicalAddress, level: Int) -> TableReferences? {
    look { $0.stage2.references(for: address, level: level) }
  }

  public func forEachLeaf(_ body: (_ address: IntermediatePhysicalAddress, Leaf) -> Void) {
    look { $0.stage2.forEachLeaf(body) }
  }

  /// Calls `body` with a reference to the machine. Without this, Swift copies the property of the object, and a machine is large.
  @inline(__always)
  private func look<Result>(_ body: (inout VirtualMachine) -> Result) -> Result {
    body(&virtualMachine)
  }
}

/// The place of a driver that is not loaded: its load has failed, or the engine has ended. Each call of a program fails with `EIO`.
private struct NoDriver: GuestFileOperations {
  mutating func open(
    _ file: inout GuestFile, on machine: inout VirtualMachine
  ) throws(GuestDriverError) { throw .errno(.ioError) }

  mutating func read(
    into buffer: inout OutputSpan<UInt8>, _ file: inout GuestFile,
    on machine: inout VirtualMachine
  ) throws(GuestDriverError) { throw .errno(.ioError) }

  mutating func write(
    _ bytes: Span<UInt8>, _ file: inout GuestFile, on machine: inout VirtualMachine
  ) throws(GuestDriverError) -> Int { throw .errno(.ioError) }
}

/// The model has no such machine.
public struct UnplayableMachine: Error, Hashable, Sendable, CustomStringConvertible {
  let machine: MachineDescription
  let error: KernelError

  public var description: String { "there is no such machine (\(error)): \(machine)" }
}
