extension VirtualMachine {
  /// `io_mem_abort` (arch/arm64/kvm/mmio.c): an abort outside every memory slot, or a store to a read-only one.
  @inline(__always)
  mutating func ioMemAbort(address: IntermediatePhysicalAddress) throws(KernelError) -> AbortOutcome
  {
    kvm.stage2.events.enter(.ioMemAbort)
    defer { kvm.stage2.events.leave() }
    let syndrome = vcpu.fault.syndrome
    guard syndrome.isValid else { return try abortWithoutSyndrome(address: address) }
    let length = syndrome.accessSize
    let mask = UInt64.max >> UInt64(64 - 8 * length)
    let access = MMIOAccess(
      isWrite: syndrome.isWrite, address: address, length: length,
      data: syndrome.isWrite ? vcpu[syndrome.register] & mask : 0, register: syndrome.register)

    for index in hooks.indices {
      let result = try hooks[index].ioMemAbort(access, vcpu: &vcpu, kvm: &kvm)
      if result == .handled { return .resume }
      if result != .notHandled { return end(by: result) }
    }

    if kvm.stage2.events.isConnected {
      trace(access.isWrite ? .write : .unsatisfiedRead, length, address, access.data)
    }
    switch try bus.access(access, from: &vcpu, kvm: &kvm) {
    case .value(let value):
      if !access.isWrite { setRegister(ofLoad: syndrome, at: address, to: value) }
      vcpu.incrementPC()
      return .resume
    case .done:
      vcpu.incrementPC()
      return .resume
    case .declined:
      vcpu.pendingMMIO = MMIOExit(
        isWrite: access.isWrite, address: address, length: length, data: access.data)
      return .exit
    }
  }

  /// An abort whose syndrome does not describe the access: only a hook that replaces the function can handle it.
  @inline(never)
  private mutating func abortWithoutSyndrome(
    address: IntermediatePhysicalAddress
  ) throws(KernelError) -> AbortOutcome {
    if let hook = hooks.first, hook.replacesIOMemAbort {
      let access = MMIOAccess(
        isWrite: vcpu.fault.syndrome.isWrite, address: address, length: 0, data: 0, register: 0)
      let result = try hooks[0].ioMemAbort(access, vcpu: &vcpu, kvm: &kvm)
      if result == .handled { return .resume }
      if result != .notHandled { return end(by: result) }
    }
    if let message = kvm.stage2.kernel.noSyndromeMessage { kvm.printk(LogMessage(.kvm, message)) }
    throw .notImplemented
  }

  /// A hook has ended KVM_RUN, which moves the program counter before it returns.
  @inline(never)
  private mutating func end(by result: MMIOHookResult) -> AbortOutcome {
    guard result == .exit else { return .crash }
    vcpu.adjustPC()
    return .exit
  }

  /// `kvm_handle_mmio_return`, which reads by `kvm_mmio_read_buf`: an access that went to the VMM is over, and the guest
  /// goes on after it.
  @inline(__always)
  mutating func handleMMIOReturn() {
    guard let mmio = vcpu.pendingMMIO else { return }
    kvm.stage2.events.enter(.handleMMIOReturn)
    defer { kvm.stage2.events.leave() }
    vcpu.pendingMMIO = nil
    if !mmio.isWrite {
      setRegister(ofLoad: vcpu.fault.syndrome, at: mmio.address, to: mmio.data)
    }
    vcpu.incrementPC()
  }

  /// Puts the value of a read into the register of the load that `syndrome` describes, with zeros above.
  ///
  /// A load that extends the sign gets zeros, too, before ``KernelVersion/extendsSignOfMMIO``: the kernel extends it, and then cuts
  /// the result to the access's size (`vcpu_data_host_to_guest`).
  private mutating func setRegister(
    ofLoad syndrome: ExceptionSyndrome, at address: IntermediatePhysicalAddress, to value: UInt64
  ) {
    let length = syndrome.accessSize
    let value = value & .max >> UInt64(64 - 8 * length)
    if kvm.stage2.events.isConnected { trace(.read, length, address, value) }
    vcpu[syndrome.register] =
      syndrome.isSignExtending && configuration.kernel.extendsSignOfMMIO
      ? extend(value, bytes: length, isSigned: true, is64Bit: syndrome.is64Bit) : value
  }

  private func trace(
    _ stage: Tracepoint.MMIOStage, _ length: Int, _ address: IntermediatePhysicalAddress,
    _ value: UInt64
  ) {
    kvm.stage2.events.emit(
      .tracepoint(.mmio(stage, length: length, address: address, value: value)))
  }
}
