import Stage2Sim

/// Explains the effects of hiding a byte on a machine. The explainer hides bytes on an engine and looks at the entry.
///
/// The guest has booted: it has run from 0x40000000 and from the next 2 MiB.
public struct Explainer {
  private let engine: any Engine

  /// The page whose entry holds the byte.
  private static let target = MachineDescription.memoryBase

  /// An explainer on an engine that has ``Engine/hidingRegisters``. It resets the machine of the engine again and again.
  public init(on engine: any Engine) { self.engine = engine }

  /// The machine on which `explain` hides bytes: the machine of `serve` with the same options, but with one huge page at least
  /// if its memory is hugetlb.
  public static func machine(
    cpu: CPUModel, backing: Backing, granule: Granule = .kib4, ipaBits: Int = 40,
    kernel: KernelVersion = .standard
  ) -> MachineDescription {
    var configuration = VirtualMachine.Configuration(
      cpu: cpu, granule: granule, ipaBits: ipaBits, backing: backing, kernel: kernel)
    if backing == .hugetlb {
      configuration.memorySize = max(configuration.memorySize, granule.blockSize)
    }
    return MachineDescription(configuration)
  }

  /// The machine of the engine.
  public var machine: MachineDescription { engine.machine }

  /// The steps by which a guest has booted.
  package static let boot = [
    "host write 0x40000000 0xf900013f", "guest fetch 0x40000000",
    "host write 0x40200000 0xf900013f", "guest fetch 0x40200000",
  ].map(Step.init(constant:))

  /// Explains the effects of hiding a byte.
  ///
  /// - Parameters:
  ///   - byte: The byte, which goes into bits [58:51].
  ///   - events: The events to try after a hide, each on a machine of its own; nil for all events
  ///     (``ExplainedEvent/all(on:)``).
  public func explain(
    _ byte: UInt8, events: [ExplainedEvent]? = nil
  ) throws(EngineFailure) -> Explanation {
    try reboot()
    let before = try targetLeaf
    let warnings = try hide(byte)
    let after = try targetLeaf
    var outcomes: [EventOutcome] = []
    for event in events ?? ExplainedEvent.all(on: machine) {
      outcomes.append(try outcome(of: event, hiding: byte))
    }
    return Explanation(
      byte: byte, before: before, after: after, warnings: warnings, outcomes: outcomes,
      invalidEntry: try invalidEntryOutcome(hiding: byte))
  }

  /// The steps that show the effect of an event on a hidden byte, on a machine at its start.
  ///
  /// - Parameters:
  ///   - event: The event after the hide.
  ///   - byte: The byte.
  public func steps(of event: ExplainedEvent, hiding byte: UInt8) throws(EngineFailure) -> [Step] {
    let (hide, seek) = try (hideStep(byte), seekStep)
    return Self.boot + event.preparation + [hide] + event.steps + [seek, Self.load, seek]
  }

  private func outcome(
    of event: ExplainedEvent, hiding byte: UInt8
  ) throws(EngineFailure) -> EventOutcome {
    try reboot()
    let prepared = try perform(event.preparation)
    _ = try hide(byte)
    let seen = try perform(event.steps, while: try targetLeaf.mapping)
    let sought = try seek()
    let fate: EventOutcome.Fate =
      !seen.isSameMapping ? .lost : sought == byte ? .kept : .changed
    try engine.perform(Self.load)
    return EventOutcome(
      event: event, fate: fate, isHung: seen.isHung, refusal: prepared.refusal ?? seen.refusal,
      seek: sought, seekAfterLoad: try seek(), warnings: seen.warnings)
  }

  /// Takes the page away while its neighbour is in use, hides a byte, and makes the guest use the page again.
  private func invalidEntryOutcome(
    hiding byte: UInt8
  ) throws(EngineFailure) -> InvalidEntryOutcome {
    try reboot()
    try perform(Self.invalidation(on: machine))
    let before = try targetLeaf
    let warnings = try hide(byte)
    let hidden = try targetLeaf
    try engine.perform(Self.load)
    // The load may have put tables below the entry.
    let references = engine.view.references(for: Self.target, level: before.level)
    return InvalidEntryOutcome(
      before: before, hidden: hidden, mapped: try targetLeaf, warnings: warnings,
      references: references)
  }

  /// The steps that take the page at 0x40000000 away while its neighbour is in use.
  package static func invalidation(on machine: MachineDescription) -> [Step] {
    let configuration = machine.configuration
    let granule = configuration.granule
    // hugetlb takes whole huge pages only.
    let size = configuration.backing == .hugetlb ? granule.blockSize : granule.pageSize
    return [
      "guest ldr w0,[\(address(target + granule.pageSize))]",
      "host madvise dontneed 0x40000000 \(hex(size))",
    ].map(Step.init(constant:))
  }

  // MARK: - Steps

  /// The observations of several steps together.
  private struct Seen {
    var isHung = false
    var refusal: String?
    var warnings: [Stage2Warning] = []
    var isSameMapping = true
  }

  private func reboot() throws(EngineFailure) {
    try engine.reset()
    try perform(Self.boot)
  }

  /// - Parameter mapping: The mapping that the target's entry should keep.
  @discardableResult
  private func perform(
    _ steps: [Step], while mapping: Mapping? = nil
  ) throws(EngineFailure) -> Seen {
    var seen = Seen()
    for step in steps {
      let (observations, warnings) = try performWatched(step)
      for observation in observations {
        switch observation {
        case .run(let run) where run.end == .hung: seen.isHung = true
        case .result(let error?): seen.refusal = seen.refusal ?? "\(error)"
        default: break
        }
      }
      seen.warnings += warnings
      seen.isSameMapping =
        seen.isSameMapping && engine.view.leaf(for: Self.target)?.mapping == mapping
    }
    return seen
  }

  private func performWatched(
    _ step: Step
  ) throws(EngineFailure) -> ([Observation], [Stage2Warning]) {
    let first = engine.events.end
    let observations = try engine.perform(step)
    var warnings: [Stage2Warning] = []
    engine.events.ring.forEach(from: first) { entry in
      if case .warning(let warning) = entry.event { warnings.append(warning) }
    }
    return (observations, warnings)
  }

  /// Hides a byte as the guest does.
  private func hide(_ byte: UInt8) throws(EngineFailure) -> [Stage2Warning] {
    try performWatched(hideStep(byte)).1
  }

  private func hideStep(_ byte: UInt8) throws(EngineFailure) -> Step {
    let register = address(try registers.hide)
    return Step(constant: "guest strb w0,[\(register)] x0=\(hex(UInt64(byte)))")
  }

  private var seekStep: Step {
    get throws(EngineFailure) {
      Step(constant: "guest ldrb w0,[\(address(try registers.seek))]")
    }
  }

  private func seek() throws(EngineFailure) -> UInt8 {
    let observations = try engine.perform(seekStep)
    for case .run(let run) in observations { return UInt8(truncatingIfNeeded: run.x0) }
    throw EngineFailure("a step of the guest has no run: this is a defect of the engine")
  }

  private var registers: HidingRegisters {
    get throws(EngineFailure) {
      guard let registers = engine.hidingRegisters else {
        throw EngineFailure("the engine has no hook that hides bytes: there is nothing to explain")
      }
      return registers
    }
  }

  private static let load = Step(constant: "guest ldr w0,[\(address(target))]")

  private var targetLeaf: Leaf {
    get throws(EngineFailure) {
      // Every IPA range has the address, but a hook can write any entry.
      guard let leaf = engine.view.leaf(for: Self.target) else {
        throw EngineFailure(
          "no entry decides over \(address(Self.target)): an entry on the way points to a page that is no table. Correct the hook, which has written that entry"
        )
      }
      return leaf
    }
  }
}

/// The memory that an entry maps. A hidden byte is not lost as long as the mapping is the same.
package struct Mapping: Equatable {
  let isValid: Bool
  let level: Int
  let outputAddress: PhysicalAddress
}

extension Leaf {
  package var mapping: Mapping {
    // No granule has address bits below those of 4 KiB.
    Mapping(
      isValid: descriptor.isValid, level: level,
      outputAddress: descriptor.outputAddress(.kib4))
  }
}
