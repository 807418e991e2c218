/// Something that nothing in the kernel checks, and that goes wrong later, or on hardware.
public enum Stage2Warning: Hashable, Sendable {
  /// An entry that the CPU may hold in a TLB was changed in a way that needs break-before-make: made invalid, and
  /// invalidated in the TLBs, in between (Arm ARM D8.14.1). The CPU may take either entry, or both at once.
  case breakBeforeMake(EntryChange)
  /// What an entry allows was changed, and no TLB was told: the CPU may go on by the old entry (Arm ARM D8.14).
  case staleTLB(EntryChange)
  /// An entry that holds a reference on its table appeared without one: the table's count is one lower than what stands
  /// in it (`stage2_pte_is_counted`).
  case missingReference(EntryChange)
  /// An entry that held a reference on its table went without giving it back.
  case leakedReference(EntryChange)
  /// The guest takes this fault for ever: KVM believes each time that it has repaired the entry.
  case livelock(FaultInfo)
}

/// An entry, before and after a write.
public struct EntryChange: Hashable, Sendable {
  /// Where it stands.
  public let entry: EntryReference
  /// What stood there.
  public let old: Stage2Descriptor
  /// What stands there now.
  public let new: Stage2Descriptor
}

extension Stage2Warning: CustomStringConvertible {
  public var description: String {
    switch self {
    case .breakBeforeMake(let change):
      "break-before-make violated: live entry \(change.old) became \(change.new)"
    case .staleTLB(let change):
      "stale TLB entries possible: \(change.old) became \(change.new) with no invalidation"
    case .missingReference(let change):
      "reference count too low: \(change.old) became \(change.new), which counts, with no reference taken"
    case .leakedReference(let change):
      "reference count too high: \(change.old) became \(change.new) with its reference kept"
    case .livelock(let fault):
      "the guest hangs: fault \(fault.syndrome) at \(fault.ipa) comes again and again"
    }
  }
}

extension EventSink {
  /// Tells what is wrong with a write to an entry that no function of KVM made.
  func warn(of change: EntryChange, granule: Granule, hasXNX: Bool) {
    let old = change.old
    let new = change.new
    let changed = old.rawValue ^ new.rawValue
    if old.isCounted != new.isCounted {
      emit(
        .warning(new.isCounted ? .missingReference(change) : .leakedReference(change)))
    }
    guard old.isValid, changed != 0 else { return }
    let replacing =
      Stage2Descriptor.tableOrPage | Stage2Descriptor.memoryAttributes
      | Stage2Descriptor.shareability | Stage2Descriptor.contiguous | granule.addressMask
    if new.isValid, changed & replacing != 0 {
      emit(.warning(.breakBeforeMake(change)))
    }
    let permissions =
      Stage2Descriptor.read | Stage2Descriptor.write | Stage2Descriptor.executeNever
      | (hasXNX ? Stage2Descriptor.executeNever0 : 0)
    if !new.isValid || changed & permissions != 0 {
      emit(.warning(.staleTLB(change)))
    }
  }
}
