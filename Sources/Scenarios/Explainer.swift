import Stage2Sim

/// Says what hiding a byte does on a machine, by doing it on the model.
///
/// The machine is as `VirtualMachine.booted` makes it: the guest has run from 0x40000000 and from the next 2 MiB.
public struct Explainer {
  /// What the byte is hidden on.
  public let machine: MachineDescription
  private let booted: Player

  /// What makes a machine that is booted.
  static let boot = [
    "host write 0x40000000 0xf900013f", "guest fetch 0x40000000",
    "host write 0x40200000 0xf900013f", "guest fetch 0x40200000",
  ].map(Step.init(constant:))

  /// A machine with the memory of `VirtualMachine.Configuration`'s defaults, or, of hugetlb, with one huge page where that is
  /// more.
  ///
  /// - Throws: Where the model has no such machine.
  public init(
    cpu: CPUModel, backing: Backing, granule: Granule = .kib4, ipaBits: Int = 40
  ) throws(UnplayableMachine) {
    var machine = MachineDescription()
    machine.cpu = cpu
    machine.backing = backing
    machine.granule = granule
    machine.ipaBits = ipaBits
    machine.memory = VirtualMachine.Configuration().memorySize
    if backing == .hugetlb { machine.memory = max(machine.memory, granule.blockSize) }
    self.machine = machine
    var player = try Player(machine)
    player.play(all: Self.boot)
    booted = player
  }

  /// What hiding `byte` does.
  ///
  /// - Parameters:
  ///   - byte: What goes into bits [58:51].
  ///   - events: What is tried after it, each on a machine of its own; nil for all (``ExplainedEvent/all(on:)``).
  public func explain(_ byte: UInt8, events: [ExplainedEvent]? = nil) -> Explanation {
    var player = booted
    let before = player.targetLeaf
    let warnings = player.warnings(hiding: byte)
    return Explanation(
      byte: byte, before: before, after: player.targetLeaf, warnings: warnings,
      outcomes: (events ?? ExplainedEvent.all(on: machine)).map { outcome(of: $0, hiding: byte) },
      invalidEntry: invalidEntryOutcome(hiding: byte))
  }

  private func outcome(of event: ExplainedEvent, hiding byte: UInt8) -> EventOutcome {
    var player = booted
    let prepared = player.play(all: event.preparation)
    player.play(.hiding(byte))
    let seen = player.play(all: event.steps, while: player.targetLeaf.mapping)
    let seek = player.seek()
    let fate: EventOutcome.Fate =
      !seen.isSameMapping ? .lost : seek == byte ? .kept : .changed
    player.play(.load)
    return EventOutcome(
      event: event, fate: fate, isHung: seen.isHung, refusal: prepared.refusal ?? seen.refusal,
      seek: seek, seekAfterLoad: player.seek(), warnings: seen.warnings)
  }

  /// The page is taken away while its neighbour is in use, a byte hidden, and the page used again.
  private func invalidEntryOutcome(hiding byte: UInt8) -> InvalidEntryOutcome {
    var player = booted
    player.play(all: invalidation)
    let before = player.targetLeaf
    let warnings = player.warnings(hiding: byte)
    let hidden = player.targetLeaf
    player.play(.load)
    // The load may have put tables below it.
    let references = player.machine.stage2.references(for: HideSeek.target, level: before.level)
    return InvalidEntryOutcome(
      before: before, hidden: hidden, mapped: player.targetLeaf, warnings: warnings,
      references: references)
  }

  /// Takes the page away.
  var invalidation: [Step] {
    // hugetlb takes whole huge pages only.
    let size = machine.backing == .hugetlb ? machine.granule.blockSize : machine.granule.pageSize
    return [
      "guest ldr w0,[\(address(HideSeek.target + machine.granule.pageSize))]",
      "host madvise dontneed 0x40000000 \(hex(size))",
    ].map(Step.init(constant:))
  }
}

extension Player {
  /// What steps showed, all together.
  fileprivate struct Observations {
    var isHung = false
    var refusal: String?
    var warnings: [Stage2Warning] = []
    var isSameMapping = true
  }

  /// - Parameter mapping: What the target's entry should go on to map.
  @discardableResult
  fileprivate mutating func play(
    all steps: [Step], while mapping: Mapping? = nil
  ) -> Observations {
    var seen = Observations()
    for step in steps {
      let lines = play(step)
      seen.isHung = seen.isHung || lines.contains { $0.hasPrefix("run hung") }
      let errors = lines.filter { $0.hasPrefix("result E") }.map { String($0.dropFirst(7)) }
      seen.refusal = seen.refusal ?? errors.first
      seen.warnings += warnings
      seen.isSameMapping = seen.isSameMapping && targetLeaf.mapping == mapping
    }
    return seen
  }

  /// Hides a byte as the guest does.
  fileprivate mutating func warnings(hiding byte: UInt8) -> [Stage2Warning] {
    play(.hiding(byte))
    return warnings
  }

  /// Those of the last step.
  var warnings: [Stage2Warning] {
    events.compactMap { if case .warning(let warning) = $0 { warning } else { nil } }
  }

  fileprivate mutating func seek() -> UInt8 {
    play(.seek)
    return UInt8(truncatingIfNeeded: machine.vcpu[0])
  }

  fileprivate var targetLeaf: Leaf {
    do {
      return try machine.leaf(for: HideSeek.target)
    } catch {
      preconditionFailure("every IPA range has 0x40000000: \(error)")
    }
  }
}

/// What an entry maps, apart from how: as long as it is the same, a byte that is hidden in it is not lost.
package struct Mapping: Equatable {
  let isValid: Bool
  let level: Int
  let outputAddress: UInt64
}

extension Leaf {
  package var mapping: Mapping {
    // No granule has address bits below those of 4 KiB.
    Mapping(
      isValid: descriptor.isValid, level: level,
      outputAddress: descriptor.outputAddress(.kib4))
  }
}

extension Step {
  fileprivate static func hiding(_ byte: UInt8) -> Step {
    Step(constant: "guest strb w0,[\(address(HideSeek.hideAddress))] x0=\(hex(UInt64(byte)))")
  }

  fileprivate static let seek = Step(
    constant: "guest ldrb w0,[\(address(HideSeek.seekAddress))]")
  fileprivate static let load = Step(
    constant: "guest ldr w0,[\(address(HideSeek.target))]")
}
