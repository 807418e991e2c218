/// KVM's reaction to changes of the VMM's mappings (arch/arm64/kvm/mmu.c, virt/kvm/kvm_main.c).
extension KVM: MMUNotifier {
  /// `kvm_mmu_notifier_invalidate_range_start`, `kvm_unmap_gfn_range`; `__kvm_handle_hva_range` finds the slots.
  mutating func invalidateRangeStart(_ range: Range<HostVirtualAddress>) {
    stage2.events.enter(.invalidateRangeStart)
    defer { stage2.events.leave() }
    stage2.events.emit(.tracepoint(.unmapRange(range)))
    let countsAll = stage2.kernel.countsAllInvalidations
    if countsAll { invalidationsInProgress += 1 }
    for slot in slots {
      guard let part = slot.guestRange(of: range) else { continue }
      if !countsAll { invalidationsInProgress += 1 }
      unmap(part)
    }
  }

  /// `kvm_mmu_notifier_invalidate_range_end`
  mutating func invalidateRangeEnd(_ range: Range<HostVirtualAddress>) {
    let count =
      stage2.kernel.countsAllInvalidations
      ? 1 : slots.count { $0.guestRange(of: range) != nil }
    invalidationsInProgress -= count
    invalidationSequence += count
  }

  /// `kvm_mmu_notifier_change_pte`, `kvm_set_spte_gfn`: maps the new page for reading, if there is a table for the page.
  mutating func changePTE(_ address: HostVirtualAddress, frame: PhysicalAddress) {
    let reaction = stage2.kernel.changePTE
    guard reaction != .none else { return }
    stage2.events.enter(.changePTE)
    defer { stage2.events.leave() }
    stage2.events.emit(.tracepoint(.setPTE(address: address)))
    if reaction == .maps { invalidationSequence += 1 }
    guard reaction == .maps || invalidationsInProgress > 0 else { return }
    let size = stage2.granule.pageSize
    for slot in slots {
      guard let part = slot.guestRange(of: address..<address + size) else { continue }
      // The kernel ignores the result, too: the next fault repairs a failure.
      try? stage2.map(
        address: part.lowerBound, size: size, physical: frame, protection: [.read],
        canAllocate: false)
    }
  }

  /// `kvm_mmu_notifier_clear_young`, `kvm_age_gfn`. No TLB is invalidated.
  mutating func clearYoung(_ range: Range<HostVirtualAddress>) {
    stage2.events.enter(.clearYoung)
    defer { stage2.events.leave() }
    stage2.events.emit(.tracepoint(.age(range)))
    for slot in slots {
      guard let part = slot.guestRange(of: range) else { continue }
      if stage2.kernel.agesRanges {
        _ = stage2.testYoung(address: part.lowerBound, size: part.size, makesOld: true)
      } else {
        stage2.makeOld(address: part.lowerBound)
      }
    }
  }
}

extension KVM {
  /// `unmap_stage2_range`, `__unmap_stage2_range`
  mutating func unmap(_ range: Range<IntermediatePhysicalAddress>) {
    applyInSteps(range) { table, address, size throws(Stage2Error) in
      try table.unmap(address: address, size: size)
    }
  }

  /// `stage2_wp_range`
  mutating func writeProtect(_ range: Range<IntermediatePhysicalAddress>) {
    applyInSteps(range) { table, address, size throws(Stage2Error) in
      try table.writeProtect(address: address, size: size)
    }
  }

  /// `kvm_flush_remote_tlbs`. Since 6.6, `kvm_flush_remote_tlbs_memslot` does the same without
  /// ``KernelVersion/usesTLBRange``.
  func flushTLBs() { stage2.events.emit(.invalidationOfAll) }

  /// `stage2_apply_range`: several walks, so that the kernel can schedule between them.
  private mutating func applyInSteps(
    _ range: Range<IntermediatePhysicalAddress>,
    _ operation: (inout Stage2PageTable, IntermediatePhysicalAddress, UInt64) throws(Stage2Error) ->
      Void
  ) {
    stage2.events.enter(.applyRange)
    defer { stage2.events.leave() }
    let step = stage2.kernel.walkRange(stage2.granule, startLevel: stage2.startLevel)
    var start = range.lowerBound
    while start < range.upperBound {
      let end = min(start.aligned(to: step) + step, range.upperBound)
      do throws(Stage2Error) {
        try operation(&stage2, start, end - start)
      } catch {
        return
      }
      start = end
    }
  }
}
