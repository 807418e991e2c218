import Stage2Sim

/// The effects of hiding a byte, as ``Explainer`` has observed them on an engine.
public struct Explanation: Hashable, Sendable {
  /// The hidden byte.
  public let byte: UInt8
  /// The entry of 0x40000000 before the hide and after it.
  public let before, after: Leaf
  /// The rules that the hide itself violates.
  public let warnings: [Stage2Warning]
  /// The effect of each event on the byte. Each event comes after a hide of its own.
  public let outcomes: [EventOutcome]
  /// The effects of hiding the same byte into an entry that maps nothing.
  public let invalidEntry: InvalidEntryOutcome

  /// The bits that the hide has changed.
  public var changedBits: [HiddenBit] {
    HiddenBit.allCases.filter {
      $0.isSet(in: before.descriptor) != $0.isSet(in: after.descriptor)
    }
  }

  /// The name of the recording of the real kernel that has a hide into an entry that maps nothing (``invalidEntry``); nil if
  /// there is no such recording, as for ``ExplainedEvent/recording(for:)``.
  public static func invalidEntryRecording(for machine: MachineDescription) -> String? {
    guard machine.configuration.granule == .kib4 else { return nil }
    return "explain-a76-\(machine.configuration.backing.rawValue)-invalid-entry"
  }

  /// Whether the hide violates no rule, and the guest can use the page without a hang or a change of the byte. Events of the
  /// host have no influence on this property.
  public var isHarmless: Bool {
    warnings.isEmpty
      && outcomes.filter { ExplainedEvent.accesses.contains($0.event) }
        .allSatisfy { $0.fate == .kept && !$0.isHung && $0.warnings.isEmpty }
  }
}

/// The effect of an event on a hidden byte.
public struct EventOutcome: Hashable, Sendable {
  /// The state of the byte after an event.
  public enum Fate: Hashable, Sendable {
    /// The entry still holds the byte.
    case kept
    /// The entry maps the same memory, and some bits of the byte have changed.
    case changed
    /// The entry is a new one, or it is empty.
    case lost
  }

  /// The event.
  public let event: ExplainedEvent
  /// The state of the byte after the event.
  public let fate: Fate
  /// Whether the guest takes the same fault again and again.
  public let isHung: Bool
  /// The first error of the host's steps, such as `EINVAL`, if the memory does not support the event.
  public let refusal: String?
  /// The value of SEEK after the event, and after one more load of the guest.
  public let seek, seekAfterLoad: UInt8
  /// The rules that the event violates, and a hang of the guest.
  public let warnings: [Stage2Warning]
}

/// The effects of a hide into an entry that maps nothing.
public struct InvalidEntryOutcome: Hashable, Sendable {
  /// The entry before the hide, after it, and after the guest's next load.
  public let before, hidden, mapped: Leaf
  /// The rules that the hide itself violates.
  public let warnings: [Stage2Warning]
  /// The references of the entry's table after that load; nil if the table is gone.
  public let references: TableReferences?
}
