import Stage2Sim

/// What hiding a byte does, seen on the model (``Explainer``).
public struct Explanation: Hashable, Sendable {
  /// What was hidden.
  public let byte: UInt8
  /// The entry of 0x40000000 before the byte was hidden in it, and after.
  public let before, after: Leaf
  /// What the hide itself violates.
  public let warnings: [Stage2Warning]
  /// What each event makes of the byte, each after a hide of its own.
  public let outcomes: [EventOutcome]
  /// The same byte hidden into an entry that maps nothing.
  public let invalidEntry: InvalidEntryOutcome

  /// Those of the bits that the hide changed.
  public var changedBits: [HiddenBit] {
    HiddenBit.allCases.filter {
      $0.isSet(in: before.descriptor) != $0.isSet(in: after.descriptor)
    }
  }

  /// The name of the recording of the real kernel that has such a hide (``invalidEntry``); nil where there is none, as with
  /// ``ExplainedEvent/recording(for:)``.
  public static func invalidEntryRecording(for machine: MachineDescription) -> String? {
    guard machine.configuration.granule == .kib4 else { return nil }
    return "explain-a76-\(machine.configuration.backing.rawValue)-invalid-entry"
  }

  /// Whether nothing is violated, and the guest can use the page without changing the byte or hanging. What the host may
  /// do to the page is not in it.
  public var isHarmless: Bool {
    warnings.isEmpty
      && outcomes.filter { ExplainedEvent.accesses.contains($0.event) }
        .allSatisfy { $0.fate == .kept && !$0.isHung && $0.warnings.isEmpty }
  }
}

/// What an event makes of a hidden byte.
public struct EventOutcome: Hashable, Sendable {
  /// What is left of it.
  public enum Fate: Hashable, Sendable {
    /// The entry is there, with the byte in it.
    case kept
    /// The entry is there, and maps the same memory; some of the byte's bits were changed.
    case changed
    /// The entry was made anew, or is empty.
    case lost
  }

  /// What happened.
  public let event: ExplainedEvent
  /// What is left of the byte then.
  public let fate: Fate
  /// Whether the guest takes faults without end.
  public let isHung: Bool
  /// The first error of the host's steps, such as `EINVAL`: the memory cannot do that.
  public let refusal: String?
  /// What SEEK gives after the event, and after one more load of the guest.
  public let seek, seekAfterLoad: UInt8
  /// What the event violates, or ends in.
  public let warnings: [Stage2Warning]
}

/// What comes of a hide into an entry that maps nothing.
public struct InvalidEntryOutcome: Hashable, Sendable {
  /// The entry before the hide, after it, and after the guest's next load.
  public let before, hidden, mapped: Leaf
  /// What the hide itself violates.
  public let warnings: [Stage2Warning]
  /// Those of the table that the entry stands in, after that load; nil where the table is gone.
  public let references: TableReferences?
}
