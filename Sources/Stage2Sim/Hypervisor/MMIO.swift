extension VirtualMachine {
  /// `io_mem_abort` (arch/arm64/kvm/mmio.c): an abort outside every memory slot, or a store to a read-only one.
  @inline(__always)
  mutating func ioMemAbort(address: IntermediatePhysicalAddress) throws(KernelError) -> AbortOutcome
  {
    if replacement != nil, let outcome = try askReplacement(address: address) { return outcome }
    let syndrome = vcpu.fault.syndrome
    guard syndrome.isValid else {
      kvm.printk(LogMessage(.kvm, kvm.stage2.kernel.noSyndromeMessage))
      throw .notImplemented
    }
    let length = syndrome.accessSize
    let mask = UInt64.max >> UInt64(64 - 8 * length)
    let access = MMIOAccess(
      isWrite: syndrome.isWrite, address: address, length: length,
      data: syndrome.isWrite ? vcpu[syndrome.register] & mask : 0, register: syndrome.register)

    for index in hooks.indices {
      let result = try hooks[index].ioMemAbort(access, vcpu: &vcpu, kvm: &kvm)
      if result != .notHandled { return Self.outcome(of: result) }
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

  @inline(__always)
  private static func outcome(of result: MMIOHookResult) -> AbortOutcome {
    switch result {
    case .handled: .resume
    case .crash: .crash
    case .exit, .notHandled: .exit
    }
  }

  /// Calls the hook that replaces `io_mem_abort`.
  ///
  /// - Returns: Nil if the hook leaves the access to the function of the kernel.
  @inline(never)
  private mutating func askReplacement(
    address: IntermediatePhysicalAddress
  ) throws(KernelError) -> AbortOutcome? {
    let syndrome = vcpu.fault.syndrome
    let isWrite = syndrome.isWrite
    let length = syndrome.isValid ? syndrome.accessSize : 0
    let register = syndrome.isValid ? syndrome.register : 0
    let access = MMIOAccess(
      isWrite: isWrite, address: address, length: length,
      data: isWrite && length > 0 ? vcpu[register] & .max >> UInt64(64 - 8 * length) : 0,
      register: register)
    do throws(KernelError) {
      let result = try replacement?.ioMemAbort(access, vcpu: &vcpu, kvm: &kvm) ?? .notHandled
      guard result != .notHandled else { return nil }
      let outcome = Self.outcome(of: result)
      // KVM_RUN moves the program counter before it returns.
      if case .exit = outcome { vcpu.adjustPC() }
      return outcome
    } catch {
      vcpu.adjustPC()
      throw error
    }
  }

  /// `kvm_handle_mmio_return`, which reads by `kvm_mmio_read_buf`: an access that went to the VMM is over, and the guest
  /// goes on after it.
  @inline(__always)
  mutating func handleMMIOReturn() {
    guard let mmio = vcpu.pendingMMIO else { return }
    vcpu.pendingMMIO = nil
    if !mmio.isWrite {
      setRegister(ofLoad: vcpu.fault.syndrome, at: mmio.address, to: mmio.data)
    }
    vcpu.incrementPC()
  }

  /// Puts the value of a read into the register of the load that `syndrome` describes, with zeros above.
  ///
  /// A load that extends the sign gets zeros, too: the kernel extends it, and then cuts the result to the access's size
  /// (`vcpu_data_host_to_guest`).
  private mutating func setRegister(
    ofLoad syndrome: ExceptionSyndrome, at address: IntermediatePhysicalAddress, to value: UInt64
  ) {
    let length = syndrome.accessSize
    let value = value & .max >> UInt64(64 - 8 * length)
    if kvm.stage2.events.isConnected { trace(.read, length, address, value) }
    vcpu[syndrome.register] = value
  }

  private func trace(
    _ stage: Tracepoint.MMIOStage, _ length: Int, _ address: IntermediatePhysicalAddress,
    _ value: UInt64
  ) {
    kvm.stage2.events.emit(
      .tracepoint(.mmio(stage, length: length, address: address, value: value)))
  }
}
