/// A function of KVM whose calls a ``MachineObserver`` can follow. The raw value is its name in the kernel, and KernelNames tells the
/// function of the model.
public enum KernelFunction: String, CaseIterable, Sendable {
  /// Handles an abort of the guest at stage 2.
  case handleGuestAbort = "kvm_handle_guest_abort"
  /// Makes an entry young whose access flag is clear.
  case handleAccessFault = "handle_access_fault"
  /// Maps the page of an abort, or relaxes the permissions of its mapping.
  case userMemAbort = "user_mem_abort"
  /// Gets a page of the VMM's memory.
  case getUserPage = "hva_to_pfn"
  /// Handles an access to an address without memory.
  case ioMemAbort = "io_mem_abort"
  /// Ends an access that the VMM, or a device in the kernel, has performed.
  case handleMMIOReturn = "kvm_handle_mmio_return"
  /// Unmaps a range whose mappings in the VMM are about to change.
  case invalidateRangeStart = "kvm_mmu_notifier_invalidate_range_start"
  /// Maps the page that has taken the place of another one.
  case changePTE = "kvm_mmu_notifier_change_pte"
  /// Makes the entries of a range old.
  case clearYoung = "kvm_mmu_notifier_clear_young"
  /// Performs an operation on a range in several walks.
  case applyRange = "stage2_apply_range"
  /// Takes the dirty log of a slot, and write-protects its pages.
  case getDirtyLog = "kvm_get_dirty_log_protect"
  /// Clears a part of the dirty log, and write-protects its pages.
  case clearDirtyLog = "kvm_clear_dirty_log_protect"
  /// Maps a range.
  case map = "kvm_pgtable_stage2_map"
  /// Unmaps a range.
  case unmap = "kvm_pgtable_stage2_unmap"
  /// Adds permissions to a leaf.
  case relaxPermissions = "kvm_pgtable_stage2_relax_perms"
  /// Takes the write permission from a range.
  case writeProtect = "kvm_pgtable_stage2_wrprotect"
  /// Sets the access flag of a leaf.
  case makeYoung = "kvm_pgtable_stage2_mkyoung"
  /// Clears the access flag of a leaf.
  case makeOld = "kvm_pgtable_stage2_mkold"
  /// Tells whether a leaf of a range is young, and makes it old.
  case testYoung = "kvm_pgtable_stage2_test_clear_young"
}

/// The beginning or the end of a call of one of KVM's functions. Calls are inside of each other.
public enum KernelCall: Hashable, Sendable {
  /// The function is called.
  case enter(KernelFunction)
  /// The function that was called last, of those that have not ended, ends.
  case leave
}
