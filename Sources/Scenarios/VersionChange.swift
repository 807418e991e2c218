import Stage2Sim

/// A change of Linux that gives an event another effect on a hidden byte.
public enum VersionChange: String, CaseIterable, Sendable {
  /// Unmapping clears the whole entry.
  case clearedEntries =
    "after 5.10: stage2_unmap_walker() clears an entry as a whole (kvm_clear_pte); in 5.10, the entry loses bit 0 only (kvm_set_invalid_pte)"
  /// Memory can be populated by advice.
  case populate = "5.14: madvise(2) knows MADV_POPULATE_READ and MADV_POPULATE_WRITE"
  /// A process knows whether it has a page alone.
  case exclusivePages =
    "5.19: an anonymous page knows that one process alone has it (PG_anon_exclusive), so do_wp_page() copies less"
  /// Huge pages can be made by advice.
  case collapse = "6.1: madvise(2) knows MADV_COLLAPSE"

  /// A page that the host has replaced is not mapped for the guest at once.
  case noChangePTE =
    "6.10: the MMU notifier change_pte() is gone, so KVM maps a page that KSM or a copy has replaced at the guest's next access"

  /// Memory that the guest may execute has no bit of XN.
  case bothBitsOfXN =
    "after 6.12: kvm_pgtable_stage2_relax_perms() clears both bits of XN, [54:53], for memory that the guest may execute; earlier versions clear bit 54 only"

  /// The version, the function and the change, in one line.
  public var text: String { rawValue }

  /// The changes that make the outcomes of one event on several versions differ.
  ///
  /// - Parameter outcomes: The outcomes of the same event after a hide of the same byte.
  public static func explaining(_ outcomes: [EventOutcome]) -> [VersionChange] {
    guard let first = outcomes.first else { return [] }
    var changes: [VersionChange] = []
    if outcomes.contains(where: { $0.refusal != first.refusal }) {
      if first.event.name == "populate-write" { changes.append(.populate) }
      if first.event.name == "collapse" { changes.append(.collapse) }
    } else if outcomes.contains(where: { $0.seek != first.seek }) {
      if first.event.name == "merge" {
        changes.append(.noChangePTE)
      } else if first.event.name.hasPrefix("execute") {
        changes.append(.bothBitsOfXN)
      } else {
        let isLost = outcomes.allSatisfy { $0.fate == .lost }
        changes.append(isLost ? .clearedEntries : .exclusivePages)
      }
    }
    return changes
  }
}
