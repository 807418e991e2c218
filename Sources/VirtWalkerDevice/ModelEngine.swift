import CharacterDeviceServer
import Glibc
import Scenarios
import Stage2Sim

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
  @exclusivity(unchecked) var driver: (any GuestDriver)?

  private let hooks: [any MMIOHook]
  private let driverType: (any GuestDriver.Type)?
  private var checkpoint: Checkpoint?

  /// The number of times that the machine was made anew.
  private(set) var boots = 0
  /// The number of calls that programs have made.
  var calls: UInt64 = 0
  /// The calls that wait in the driver, in the order in which programs made them.
  var waiting = WaitQueue<WaitingCall>()
  /// The files of programs that wait for an event of `poll(2)`.
  let pollers = PollWaiters()
  /// The file of reads and writes without a node.
  @exclusivity(unchecked) var ownFile = GuestFile(flags: O_RDWR | O_NONBLOCK)

  public var mayGoOn: (() -> Bool)?

  /// Boots a machine, and loads a driver into its guest.
  ///
  /// - Parameters:
  ///   - machine: The machine.
  ///   - hooks: The hooks in `io_mem_abort`, in the order in which the kernel asks the hooks.
  ///   - driver: The driver. Without one, the guest has run nothing yet, as at the start of a scenario.
  ///   - eventCapacity: The number of events that ``events`` keeps, a power of two.
  /// - Throws: ``UnplayableMachine`` if there is no such machine, or the error of `insmod`.
  public init(
    _ machine: MachineDescription, hooks: [any MMIOHook] = [HideSeek()],
    driver: (any GuestDriver.Type)? = nil, eventCapacity: Int = 1 << 14
  ) throws {
    self.machine = machine
    self.hooks = hooks
    driverType = driver
    events = EventStream(capacity: eventCapacity)
    (virtualMachine, recorder, self.driver) = try Self.boot(machine, hooks, driver, events)
    checkpoint = Checkpoint { [unowned self] in mayGoOn?() ?? true }
    virtualMachine.checkpoint = checkpoint
  }

  private static func boot(
    _ description: MachineDescription, _ hooks: [any MMIOHook],
    _ driverType: (any GuestDriver.Type)?, _ events: EventStream
  ) throws -> (VirtualMachine, ModelRecorder, (any GuestDriver)?) {
    var machine: VirtualMachine
    let recorder: ModelRecorder
    do throws(KernelError) {
      machine =
        driverType == nil
        ? try VirtualMachine(description.configuration)
        : try VirtualMachine.booted(description.configuration)
      recorder = try ModelRecorder(of: &machine, code: description.code)
    } catch {
      throw UnplayableMachine(machine: description, error: error)
    }
    for hook in hooks { machine.add(hook) }
    machine.events = events
    let driver = try driverType?.init(loadedIn: &machine)
    return (machine, recorder, driver)
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
    do {
      (virtualMachine, recorder, driver) = try Self.boot(machine, hooks, driverType, events)
    } catch {
      return completion(.failure(EngineFailure("the machine does not boot: \(error)")))
    }
    virtualMachine.checkpoint = checkpoint
    guestStop = nil
    boots += 1
    ownFile.boot = nil
    wakeUp()
    completion(.success(()))
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

/// The model has no such machine.
public struct UnplayableMachine: Error, Hashable, Sendable, CustomStringConvertible {
  let machine: MachineDescription
  let error: KernelError

  public var description: String { "there is no such machine (\(error)): \(machine)" }
}
