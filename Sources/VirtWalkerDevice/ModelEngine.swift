import CharacterDeviceServer
import Scenarios
import Stage2Sim
import SystemPackage

/// The engine whose machine is the model: a guest driver, the machine that it is loaded in, and the hooks of the machine.
///
/// Each answer comes at once.
public final class ModelEngine {
  public let machine: MachineDescription
  public let events: EventStream
  public private(set) var guestStop: GuestStopped?

  /// The machine as it is now. A change between two operations happens to the guest.
  public var virtualMachine: VirtualMachine
  private var recorder: ModelRecorder
  private var driver: (any GuestDriver)?

  private let hooks: [any MMIOHook]
  private let driverType: (any GuestDriver.Type)?
  private var checkpoint: Checkpoint?
  public var mayGoOn: (() -> Bool)?

  /// Boots a machine and loads a driver into its guest.
  ///
  /// - Parameters:
  ///   - machine: The machine.
  ///   - hooks: The hooks in `io_mem_abort`, in the order in which they are asked.
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

  /// Looks at the machine by reference: a property of an object is copied to be looked at, and a machine is large.
  @inline(__always)
  private func look<Result>(_ body: (inout VirtualMachine) -> Result) -> Result {
    body(&virtualMachine)
  }
}

// MARK: - The node

extension ModelEngine: SimpleDevice {
  public func open() throws(Errno) {
    guard driver != nil else { throw .noSuchAddressOrDevice }
    do throws(GuestDriverError) {
      try driver?.open(on: &virtualMachine)
    } catch {
      throw errno(error)
    }
  }

  public func release(_ file: OpenFile<Void>) { driver?.release(on: &virtualMachine) }

  public func read(into buffer: inout OutputSpan<UInt8>) throws(Errno) {
    do throws(GuestDriverError) {
      try driver?.read(into: &buffer, on: &virtualMachine)
      guestStop = nil
    } catch {
      throw errno(error)
    }
  }

  public func write(_ bytes: Span<UInt8>) throws(Errno) -> Int {
    do throws(GuestDriverError) {
      let count = try driver?.write(bytes, on: &virtualMachine) ?? 0
      guestStop = nil
      return count
    } catch {
      throw errno(error)
    }
  }

  public var givesTheSameAgain: Bool { driver?.givesTheSameAgain ?? false }

  /// The error that a program gets: `EIO` if the guest does not run any more.
  private func errno(_ error: GuestDriverError) -> Errno {
    switch error {
    case .errno(let errno): return errno
    case .stopped(let reason):
      guestStop = reason
      virtualMachine.reportGuestStopped()
      return .ioError
    }
  }
}

/// The model has no such machine.
public struct UnplayableMachine: Error, Hashable, Sendable, CustomStringConvertible {
  let machine: MachineDescription
  let error: KernelError

  public var description: String { "there is no such machine (\(error)): \(machine)" }
}
