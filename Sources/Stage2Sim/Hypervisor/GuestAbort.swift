/// The way of a vCPU after an abort was handled. KVM's handlers return 1 and 0.
enum AbortOutcome {
  /// Back into the guest.
  case resume
  /// Out to the VMM.
  case exit
  /// Back into the guest, at its own exception handler.
  case inject(GuestException)
  /// Nowhere: the host's kernel has crashed.
  case crash
}

extension VirtualMachine {
  /// `kvm_handle_guest_abort` (arch/arm64/kvm/mmu.c): its input is ESR_EL2, FAR_EL2 and HPFAR_EL2.
  @inline(__always)
  mutating func handleGuestAbort() throws(KernelError) -> AbortOutcome {
    let fault = vcpu.fault
    kvm.stage2.events.emit(.abort(fault))
    kvm.stage2.events.enter(.handleGuestAbort)
    defer { kvm.stage2.events.leave() }
    let address = fault.pageAddress
    let isInstruction = fault.syndrome.isInstructionAbort
    guard let status = fault.syndrome.faultStatus else { throw .badAddress }

    let kernel = configuration.kernel
    if status == .translation, kernel.checksAddressSpace {
      if !address.fits(bits: kernel.ipaLimit(on: configuration.cpu)) {
        return .inject(
          .injectedAddressSize(
            at: GuestVirtualAddress(flat: fault.ipa), isInstruction: isInstruction, by: kernel))
      }
      if !address.fits(bits: kvm.stage2.ipaBits) {
        return .inject(
          .injectedAbort(
            at: GuestVirtualAddress(flat: fault.ipa), isInstruction: isInstruction, by: kernel))
      }
    }
    kvm.stage2.events.emit(.tracepoint(.guestFault(fault, pc: vcpu.pc)))
    guard status != .addressSize else { throw .badAddress }

    guard let slot = kvm.slots.index(for: address),
      !(fault.syndrome.isWrite && kvm.slots[slot].isReadOnly)
    else {
      if isInstruction {
        return .inject(.injectedAbort(at: fault.far, isInstruction: true, by: kernel))
      }
      return try ioMemAbort(address: fault.ipa)
    }
    if status == .accessFlag {
      handleAccessFault(address)
    } else {
      try userMemAbort(fault, slot: kvm.slots[slot], status: status)
    }
    return .resume
  }

  /// `handle_access_fault`
  private mutating func handleAccessFault(_ address: IntermediatePhysicalAddress) {
    kvm.stage2.events.enter(.handleAccessFault)
    defer { kvm.stage2.events.leave() }
    kvm.stage2.events.emit(.tracepoint(.accessFault(ipa: address)))
    let old = kvm.stage2.makeYoung(address: address)
    if old.isValid, configuration.kernel.marksAccessedAtAccessFault {
      host.physical.markAccessed(old.outputAddress(kvm.stage2.granule))
    }
  }

  /// `user_mem_abort`: gets the page from the host and maps it, or relaxes the permissions of its mapping.
  private mutating func userMemAbort(
    _ fault: FaultInfo, slot: MemorySlot, status: FaultStatus
  ) throws(KernelError) {
    kvm.stage2.events.enter(.userMemAbort)
    defer { kvm.stage2.events.leave() }
    let isWrite = fault.syndrome.isWrite
    let isExecute = fault.syndrome.isInstructionAbort
    let kernel = configuration.kernel
    guard
      status != .permission || isWrite || isExecute || !kernel.refusesPermissionFaultOfLoad
    else { throw .badAddress }

    let granule = kvm.stage2.granule
    let faultGranule = granule.size(level: fault.syndrome.faultLevel)
    var address = fault.pageAddress
    guard
      let area = host.area(
        at: slot.userspaceAddress(of: address.aligned(to: granule.pageSize)))
    else { throw .badAddress }

    var size = granule.pageSize
    var forcesPages = slot.isLogging
    if !forcesPages, area.flags.contains(.hugetlb) {
      if slot.supportsBlock(of: granule.blockSize, at: address) {
        size = granule.blockSize
        address = address.aligned(to: size)
      } else {
        forcesPages = true
      }
    }

    let frameAddress = address.aligned(to: granule.pageSize)
    let virtual = slot.userspaceAddress(of: frameAddress)
    let sequence = kvm.invalidationSequence
    var page: HostMemory.UserPage
    do {
      kvm.stage2.events.enter(.getUserPage)
      defer { kvm.stage2.events.leave() }
      page = try host.getUserPage(virtual, isWrite: isWrite, notifier: &kvm)
    }
    // `kvm_set_pfn_accessed`, at the end of the kernel's function.
    var isAccessed = kernel.marksAccessedAtFailure
    defer { if isAccessed { host.physical.markAccessed(page.frame) } }
    if slot.isReadOnly || slot.isLogging && !isWrite { page.isWritable = false }
    // `mmu_invalidate_retry`: mappings changed under the fault, so the guest tries again.
    guard sequence == kvm.invalidationSequence else { return }

    var physical = page.frame
    if size == granule.pageSize && !forcesPages {
      if status == .permission && faultGranule > size && kernel.keepsSizeAtPermissionFault {
        // The size of the leaf whose permissions are in the way. The address stays that of the page.
        size = faultGranule
      } else if slot.supportsBlock(of: granule.blockSize, at: address), page.isHuge {
        // `transparent_hugepage_adjust`
        size = granule.blockSize
        address = address.aligned(to: size)
        physical = physical.aligned(to: size)
      }
    }

    var protection: Protection = [.read]
    if page.isWritable { protection.insert(.write) }
    if isExecute { protection.insert(.execute) }

    func markDirty() {
      host.setDirty(page.frame)
      kvm.markDirty(frameAddress, in: slot)
    }
    if page.isWritable, kernel.marksDirtyBeforeMapping { markDirty() }
    do throws(Stage2Error) {
      if status == .permission && size == faultGranule {
        try kvm.stage2.relaxPermissions(address: address, protection: protection)
      } else {
        try kvm.stage2.map(
          address: address, size: size, physical: physical, protection: protection)
      }
    } catch {
      // The page is mapped already: the guest goes on, or faults once more.
      if error.code == .tryAgain { return }
      throw error.code
    }
    isAccessed = true
    if page.isWritable, !kernel.marksDirtyBeforeMapping { markDirty() }
  }
}

extension HostMemory {
  /// A page that KVM may map.
  struct UserPage {
    /// Physical address of the page.
    let frame: PhysicalAddress
    var isWritable: Bool
    /// The page is mapped with a huge page (`get_user_mapping_size`).
    let isHuge: Bool
  }

  /// `hva_to_pfn`: the page at `address`, faulted in if necessary.
  ///
  /// - Returns: The page. It is writable after a read, too, if the VMM's tables allow that as they are.
  /// - Throws: `EFAULT`
  mutating func getUserPage(
    _ address: HostVirtualAddress, isWrite: Bool, notifier: inout some MMUNotifier
  ) throws(KernelError) -> UserPage {
    // `hva_to_pfn_fast`, else `hva_to_pfn_slow`
    if !isAccessible(address, for: .write) {
      try access(address, for: isWrite ? .write : .read, notifier: &notifier)
      markAccessed(address)
    }
    if isAccessible(address, for: .write) { setReferenced(address) }
    guard let (entry, isHuge) = process.mapping(of: address, granule: granule),
      let physical = physicalAddress(of: address)
    else { throw .badAddress }
    return UserPage(
      frame: physical.aligned(to: pageSize), isWritable: entry.isWritable, isHuge: isHuge)
  }

  /// `mark_page_accessed` for the page that is mapped at `address`.
  mutating func markAccessed(_ address: HostVirtualAddress) {
    if let frame = physicalAddress(of: address) { physical.markAccessed(frame) }
  }

  private mutating func setReferenced(_ address: HostVirtualAddress) {
    if let frame = physicalAddress(of: address) { physical.setReferenced(frame) }
  }

  /// `kvm_set_pfn_dirty`
  mutating func setDirty(_ frame: PhysicalAddress) {
    if let head = physical.folio(of: frame) { physical[folio: head].isDirty = true }
  }
}
