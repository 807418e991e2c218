/// Where a vCPU goes after an abort was handled: what KVM's handlers return as 1 and 0.
enum AbortOutcome: Hashable {
  /// Back into the guest.
  case resume
  /// To the VMM.
  case exit
  /// Back into the guest, at its own exception handler.
  case inject(GuestException)
}

/// An exception that the guest takes to its own EL1, for something the guest did wrong.
public struct GuestException: Hashable, Sendable {
  public enum Kind: Hashable, Sendable {
    /// `kvm_inject_dabt`
    case dataAbort
    /// `kvm_inject_pabt`
    case instructionAbort
    /// `kvm_inject_size_fault`
    case addressSize
    /// An unaligned load or store. The CPU gives it to the guest, KVM never hears of it: stage 1 is off, so all
    /// memory is Device memory to the guest (Arm ARM B2.8, "Alignment support").
    case alignment
  }

  public let kind: Kind
  public let address: UInt64
}

extension VirtualMachine {
  /// `kvm_handle_guest_abort` (arch/arm64/kvm/mmu.c): everything it knows, it knows from ESR_EL2, FAR_EL2 and
  /// HPFAR_EL2.
  mutating func handleGuestAbort() throws(KernelError) -> AbortOutcome {
    let fault = vcpu.fault
    observer?.observe(.abort(fault))
    let address = fault.pageAddress
    guard let status = fault.syndrome.faultStatus else { throw .badAddress }

    if status == .translation {
      if address >> UInt64(configuration.cpu.physicalAddressBits) != 0 {
        return .inject(GuestException(kind: .addressSize, address: fault.far))
      }
      if address >> UInt64(stage2.ipaBits) != 0 {
        let kind: GuestException.Kind =
          fault.syndrome.isInstructionAbort ? .instructionAbort : .dataAbort
        return .inject(GuestException(kind: kind, address: fault.ipa))
      }
    }
    guard status != .addressSize else { throw .badAddress }

    guard let slot = slot(for: address), !(fault.syndrome.isWrite && slot.isReadOnly) else {
      if fault.syndrome.isInstructionAbort {
        return .inject(GuestException(kind: .instructionAbort, address: fault.far))
      }
      return try ioMemAbort(address: fault.ipa)
    }
    if status == .accessFlag {
      stage2.makeYoung(address: address)
    } else {
      try userMemAbort(fault, slot: slot, status: status)
    }
    return .resume
  }

  /// `user_mem_abort`: gets the page from the host and maps it, or relaxes what is mapped.
  private mutating func userMemAbort(
    _ fault: FaultInfo, slot: MemorySlot, status: FaultStatus
  ) throws(KernelError) {
    let isWrite = fault.syndrome.isWrite
    let isExecute = fault.syndrome.isInstructionAbort
    guard status != .permission || isWrite || isExecute else { throw .badAddress }

    var address = fault.pageAddress
    let virtual = slot.userspaceAddress(of: address)
    let touch = host.touch(virtual, isWrite: isWrite)
    if touch.didCopyOnWrite {
      // `mmu_invalidate_retry`: the entry went away under the fault, so the guest tries again.
      notifyCopyOnWrite(touch.mapping, ipa: address)
      return
    }

    let faultGranule = stage2.granule.size(level: fault.syndrome.faultLevel)
    var size = stage2.granule.pageSize
    var physical = touch.mapping.frame + virtual & (touch.mapping.size - 1)
    if status == .permission && faultGranule > size {
      // The size of the leaf whose permissions are in the way. The address stays that of the page.
      size = faultGranule
    } else if touch.mapping.size > size,
      slot.supportsBlock(of: touch.mapping.size, at: address)
    {
      // `transparent_hugepage_adjust`
      size = touch.mapping.size
      address &= ~(size - 1)
      physical = touch.mapping.frame
    }

    var protection: Protection = [.read]
    if touch.mapping.isWritable && !slot.isReadOnly { protection.insert(.write) }
    if isExecute { protection.insert(.execute) }

    do {
      if status == .permission && size == faultGranule {
        try stage2.relaxPermissions(address: address, protection: protection)
      } else {
        try stage2.map(address: address, size: size, physical: physical, protection: protection)
      }
    } catch  where error.code == .tryAgain {
      // Somebody mapped it already: the guest goes on, or faults once more.
    } catch {
      throw error.code
    }
  }

  /// What the host's copy-on-write tells KVM: `kvm_unmap_gfn_range`, then `kvm_set_spte_gfn`, which maps the new page
  /// for reading only, and only where a table for it is left.
  mutating func notifyCopyOnWrite(_ mapping: HostMapping, ipa: UInt64) {
    let page = ipa & ~(mapping.size - 1)
    // The kernel does not look at the results either: the next fault repairs what failed.
    try? stage2.unmap(address: page, size: mapping.size)
    try? stage2.map(
      address: page, size: mapping.size, physical: mapping.frame, protection: [.read],
      canAllocate: false)
  }
}
