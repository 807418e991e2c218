/// The end of a run of the guest.
public enum RunResult: Hashable, Sendable {
  /// The instruction is done, whatever it took; the guest could go on.
  case retired
  /// KVM_RUN returned 0 with KVM_EXIT_MMIO: no code in the kernel took the access.
  case mmio(MMIOExit)
  /// KVM_RUN returned -1. The guest stays at the instruction.
  case failed(KernelError)
  /// The guest took an exception to its own EL1.
  case guestException(GuestException)
  /// The guest takes faults again and again and gets no further. This is the last fault. On the real system, the vCPU
  /// spins until a signal comes.
  case livelock(FaultInfo)
  /// The guest came to an instruction that the model does not run.
  case notModelled(UInt32)
  /// A kernel has crashed in code of a user. Its log has the reason.
  case crashed(CrashedKernel)
  /// A real kernel does not run any more: it has crashed, or hangs. Its log has the reason.
  case lost
}

/// The kernel that has crashed.
public enum CrashedKernel: Hashable, Sendable {
  /// The guest's kernel, in a driver.
  case guest
  /// The host's kernel, in a hook.
  case host
}

extension VirtualMachine {
  /// Runs one instruction: KVM_RUN, from entering the guest until it has gone past the instruction or cannot.
  ///
  /// The instruction is fetched through stage 2 like any other, and every fault on the way goes through `handleGuestAbort`. An
  /// access that the VMM still owes an answer is completed first.
  ///
  /// - Parameters:
  ///   - instruction: The instruction, in place of the word in memory.
  ///   - address: The address of the instruction; nil for the program counter of the vCPU.
  @discardableResult
  public mutating func run(
    _ instruction: GuestInstruction, at address: GuestVirtualAddress? = nil
  ) -> RunResult {
    enterGuest(at: address)
    var watch = LivelockWatch()
    while true {
      if let result = step(instruction, watch: &watch) { return result }
    }
  }

  /// Runs the instructions that stand in the guest's memory: KVM_RUN, until the guest leaves for the VMM or can go no
  /// further.
  ///
  /// - Parameter address: The address of the first instruction; nil for the program counter of the vCPU.
  /// - Returns: Never ``RunResult/retired`` or ``RunResult/guestException(_:)``: the guest goes on, at its exception
  ///   vectors if it has to.
  @discardableResult
  public mutating func run(at address: GuestVirtualAddress? = nil) -> RunResult {
    enterGuest(at: address)
    var watch = LivelockWatch()
    while true {
      let start = vcpu.pc
      switch step(nil, watch: &watch) {
      case nil: break
      case .retired:
        watch.seesProgress()
        if vcpu.pc <= start, watch.seesReturn() {
          interrupt()
          return .livelock(vcpu.fault)
        }
      case .guestException(let exception):
        vcpu.take(exception)
        if watch.seesReturn() {
          interrupt()
          return .livelock(vcpu.fault)
        }
      case let result?: return result
      }
    }
  }

  /// Ends an access that the VMM was asked to do: KVM_RUN with `immediate_exit`.
  ///
  /// - Parameter data: The data of a read.
  public mutating func completeMMIO(data: UInt64 = 0) {
    vcpu.pendingMMIO?.data = data
    handleMMIOReturn()
    vcpu.adjustPC()
    returnToVMM(.restart)
  }

  /// Sets a register of the guest, 0 to 30.
  public mutating func setRegister(_ register: Int, to value: UInt64) { vcpu[register] = value }

  /// Sets VBAR_EL1 of the guest.
  public mutating func setVectorBase(_ address: GuestVirtualAddress) { vcpu.vectorBase = address }

  /// The beginning of `kvm_arch_vcpu_ioctl_run`. A vCPU that is in the guest already stays there.
  @inline(__always)
  private mutating func enterGuest(at address: GuestVirtualAddress?) {
    handleMMIOReturn()
    if let address {
      vcpu.adjustPC()
      vcpu.pc = address
    }
    if !vcpu.isInGuest { enterGuest() }
  }

  @inline(__always)
  private mutating func enterGuest() {
    vcpu.isInGuest = true
    kvm.stage2.events.emit(.tracepoint(.entry(pc: vcpu.pc)))
    vcpu.adjustPC()
  }

  @inline(__always)
  private mutating func leaveGuest(_ exit: Tracepoint.GuestExit) {
    vcpu.isInGuest = false
    kvm.stage2.events.emit(.tracepoint(.exit(exit, pc: vcpu.pc)))
  }

  /// HVC #0 traps to EL2.
  mutating func leaveGuestForHypercall() {
    // EC, and IL: the instruction has 32 bits.
    vcpu.fault.syndrome = ExceptionSyndrome(
      rawValue: ExceptionSyndrome.hypercall << 26 | 1 << 25)
    leaveGuest(.trap(exceptionClass: ExceptionSyndrome.hypercall))
  }

  /// The guest goes on behind HVC.
  mutating func enterGuestAfterHypercall() { enterGuest() }

  /// A signal ends a run that would have no end.
  private mutating func interrupt() {
    leaveGuest(.interrupt)
    returnToVMM(.restart)
  }

  /// KVM_RUN is over.
  private func returnToVMM(_ exit: Tracepoint.UserspaceExit) {
    kvm.stage2.events.emit(.tracepoint(.userspaceExit(exit)))
  }

  /// One attempt at an instruction: it is done, or an abort is handled.
  ///
  /// - Returns: Nil if the guest tries again.
  @inline(__always)
  private mutating func step(
    _ instruction: GuestInstruction?, watch: inout LivelockWatch
  ) -> RunResult? {
    let start = vcpu.pc
    do throws(Interruption) {
      try execute(instruction)
      return .retired
    } catch {
      switch error {
      case .exception(let exception): return .guestException(exception)
      case .notModelled(let word): return .notModelled(word)
      case .abort: leaveGuest(.trap(exceptionClass: vcpu.fault.syndrome.exceptionClass))
      }
    }
    let outcome: AbortOutcome
    do throws(KernelError) {
      outcome = try handleGuestAbort()
    } catch {
      vcpu.adjustPC()
      returnToVMM(.error(error))
      return .failed(error)
    }
    switch outcome {
    case .exit:
      returnToVMM(.mmio)
      return vcpu.pendingMMIO.map(RunResult.mmio) ?? .failed(.badAddress)
    case .crash: return .crashed(.host)
    case .inject(let exception):
      enterGuest()
      return .guestException(exception)
    case .resume:
      enterGuest()
      guard vcpu.pc == start else { return .retired }
      let leaf = try? kvm.stage2.leaf(for: vcpu.fault.pageAddress)
      guard watch.sees(vcpu.fault, leaf) else { return nil }
      kvm.stage2.events.emit(.warning(.livelock(vcpu.fault)))
      interrupt()
      return .livelock(vcpu.fault)
    }
  }

  /// The reason why the CPU does not finish an instruction.
  private enum Interruption: Error {
    /// An abort, which is in ``VCPU/fault``.
    case abort
    case exception(GuestException)
    case notModelled(UInt32)
  }

  /// The CPU's part: fetch, translate, move the data, go on. A fault leaves the guest as it was.
  @inline(__always)
  private mutating func execute(_ instruction: GuestInstruction?) throws(Interruption) {
    let place = try fetch()
    switch instruction {
    case .nop: break
    case .access(let access, let address): try execute(access, at: address)
    case nil:
      switch A64Instruction(decoding: UInt32(host.physical.load(place, count: 4))) {
      case .access(let access, let addressing):
        try execute(access, at: vcpu.address(addressing))
      case .nop: break
      case .undefined: throw .exception(.undefined)
      case .unknown(let word): throw .notModelled(word)
      }
    }
    vcpu.skipInstruction()
  }

  /// The physical address of the instruction.
  @inline(__always)
  private mutating func fetch() throws(Interruption) -> PhysicalAddress {
    let ipa = stage1.translate(vcpu.pc)
    guard ipa.fits(bits: configuration.cpu.physicalAddressBits) else {
      throw .exception(.addressSize(at: vcpu.pc, isInstruction: true, isWrite: false))
    }
    switch translateStage2(ipa, for: .execute) {
    case .physical(let place):
      // The Arm ARM has this before the fault. The recorded CPUs, QEMU's, look at the page first.
      guard vcpu.pc.isAligned(to: 4) else { throw .exception(.unalignedPC(vcpu.pc)) }
      return place
    case .fault(let status, let level):
      vcpu.fault = FaultInfo(
        syndrome: ExceptionSyndrome(instructionAbort: status, level: level), far: vcpu.pc,
        ipa: ipa)
      throw .abort
    }
  }

  @inline(__always)
  private mutating func execute(
    _ access: LoadStore, at address: GuestVirtualAddress
  ) throws(Interruption) {
    if case .exclusive(let status?) = access.form {
      // The exception that brought the guest here cleared the monitor, so nothing is stored and nothing can fault.
      vcpu[status] = 1
      return
    }
    let place = try translate(access, at: address)
    switch access.form {
    case .register, .exclusive:
      move(access, register: access.register, at: place)
    case .writeBack(let base, let increment):
      move(access, register: access.register, at: place)
      vcpu[base] = vcpu[base] &+ UInt64(bitPattern: increment)
    case .pair(let second):
      let next = try translate(access, at: address &+ UInt64(access.size.bytes))
      move(access, register: access.register, at: place)
      move(access, register: second, at: next)
    case .vector:
      moveVector(access, at: place)
    }
  }

  /// The physical address of a guest virtual one.
  ///
  /// - Throws: The abort or exception that the CPU takes instead.
  @inline(__always)
  private mutating func translate(
    _ access: LoadStore, at address: GuestVirtualAddress
  ) throws(Interruption) -> PhysicalAddress {
    let ipa = stage1.translate(address)
    guard ipa.fits(bits: configuration.cpu.physicalAddressBits) else {
      throw .exception(
        .addressSize(at: address, isInstruction: false, isWrite: access.isStore))
    }
    guard address.isAligned(to: UInt64(access.size.bytes)) else {
      throw .exception(.alignment(at: address, isWrite: access.isStore))
    }
    switch translateStage2(ipa, for: access.isStore ? .write : .read) {
    case .physical(let place): return place
    case .fault(let status, let level):
      vcpu.fault = FaultInfo(
        syndrome: ExceptionSyndrome(dataAbort: status, level: level, access: access),
        far: address, ipa: ipa)
      throw .abort
    }
  }

  /// The CPU's walk of stage 2, which may set the access flag.
  @inline(__always)
  private mutating func translateStage2(
    _ ipa: IntermediatePhysicalAddress, for access: AccessKind
  ) -> Stage2Translation {
    let cpu = configuration.cpu
    let translation = kvm.stage2.translate(ipa, for: access, cpu: cpu)
    guard case .fault(.accessFlag, _) = translation, cpu.hasHardwareAccessFlag,
      configuration.kernel.usesHardwareAccessFlag
    else { return translation }
    return kvm.stage2.translateSettingAccessFlag(ipa, for: access, cpu: cpu)
  }

  private mutating func move(_ access: LoadStore, register: Int, at physical: PhysicalAddress) {
    if access.isStore {
      host.physical.store(vcpu[register], to: physical, count: access.size.bytes)
    } else {
      vcpu[register] = extend(
        host.physical.load(physical, count: access.size.bytes), bytes: access.size.bytes,
        isSigned: access.isSignExtending, is64Bit: access.is64Bit)
    }
  }

  private mutating func moveVector(_ access: LoadStore, at physical: PhysicalAddress) {
    let low = 2 * access.register
    let count = min(access.size.bytes, 8)
    if access.isStore {
      host.physical.store(vcpu.vectors[low], to: physical, count: count)
      if access.size == .quadword {
        host.physical.store(vcpu.vectors[low + 1], to: physical + 8, count: 8)
      }
    } else {
      vcpu.vectors[low] = host.physical.load(physical, count: count)
      vcpu.vectors[low + 1] =
        access.size == .quadword ? host.physical.load(physical + 8, count: 8) : 0
    }
  }
}

/// Distinguishes a guest that gets no further from a guest that needs several aborts for an instruction.
private struct LivelockWatch {
  private var previous: (fault: FaultInfo, leaf: Leaf?)?
  private var aborts = 0
  private var returns = 0

  /// Tables, copies and splits cause fewer aborts than this number before an instruction is done.
  private static let limit = 100

  /// The machine is deterministic: if the same fault comes with the same entry, the fault comes for ever.
  mutating func sees(_ fault: FaultInfo, _ leaf: Leaf?) -> Bool {
    aborts += 1
    defer { previous = (fault, leaf) }
    if let previous, previous == (fault, leaf) { return true }
    return aborts > Self.limit
  }

  mutating func seesProgress() {
    previous = nil
    aborts = 0
  }

  /// There are no branches: only exceptions, and hooks that set the program counter, lead back. They count for the whole run.
  mutating func seesReturn() -> Bool {
    returns += 1
    return returns > Self.limit
  }
}
