/// A violation of a rule that the kernel does not check. Its damage comes later, or on hardware.
public enum Stage2Warning: Hashable, Sendable {
  /// An entry that the CPU may hold in a TLB was changed in a way that needs break-before-make: made invalid, and
  /// invalidated in the TLBs, in between (Arm ARM D8.14.1). The CPU may take either entry, or both at once.
  case breakBeforeMake(EntryChange)
  /// The permissions of an entry were changed without a TLB invalidation. The CPU may go on with the old entry (Arm ARM D8.14).
  case staleTLB(EntryChange)
  /// An entry that counts (`stage2_pte_is_counted`) was written without a reference on its table. The table's count is one
  /// lower than the number of its entries.
  case missingReference(EntryChange)
  /// An entry that counts was cleared without a release of its reference.
  case leakedReference(EntryChange)
  /// The guest takes this fault for ever: KVM believes each time that it has repaired the entry.
  case livelock(FaultInfo)
}

/// An entry, before and after a write.
public struct EntryChange: Hashable, Sendable {
  /// The place of the entry.
  public let entry: EntryReference
  /// The entry before the write.
  public let old: Stage2Descriptor
  /// The entry after the write.
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
  /// Reports the rules that a write to an entry violates. KVM's own functions do not call it.
  func warn(of change: EntryChange, granule: Granule, hasXNX: Bool, kernel: KernelVersion) {
    let old = change.old
    let new = change.new
    let changed = old.rawValue ^ new.rawValue
    if kernel.isCounted(old) != kernel.isCounted(new) {
      emit(
        .warning(
          kernel.isCounted(new) ? .missingReference(change) : .leakedReference(change)))
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
