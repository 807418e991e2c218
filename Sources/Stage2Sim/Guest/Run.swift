/// How a run of the guest ended.
public enum RunResult: Hashable, Sendable {
  /// The instruction is done, whatever it took; the guest could go on.
  case retired
  /// KVM_RUN returned 0 with KVM_EXIT_MMIO: nobody in the kernel took the access.
  case mmio(MMIOExit)
  /// KVM_RUN returned -1. The guest stays at the instruction.
  case failed(KernelError)
  /// The guest took an exception to its own EL1.
  case guestException(GuestException)
  /// The guest takes this fault again and again, and KVM changes nothing: on the real system the vCPU spins until a
  /// signal comes.
  case livelock(FaultInfo)
}

extension VirtualMachine {
  /// Runs one instruction: KVM_RUN, from entering the guest until it has gone past the instruction or cannot.
  ///
  /// It is fetched through stage 2 like any other, and every fault on the way goes through ``handleGuestAbort()``. An
  /// access that the VMM still owes an answer is completed first.
  ///
  /// - Parameter address: Where the instruction stands, a guest virtual address; nil for where the vCPU is.
  @discardableResult
  public mutating func run(_ instruction: GuestInstruction, at address: UInt64? = nil) -> RunResult
  {
    handleMMIOReturn()
    if let address { vcpu.pc = address }
    if case .access(let access, let address) = instruction,
      address & UInt64(access.size.bytes - 1) != 0
    {
      return .guestException(GuestException(kind: .alignment, address: address))
    }
    let start = vcpu.pc
    var previous: (fault: FaultInfo, leaf: Leaf?)?
    while true {
      do {
        try execute(instruction)
        return .retired
      } catch {
        vcpu.fault = error
      }
      let outcome: AbortOutcome
      do throws(KernelError) {
        outcome = try handleGuestAbort()
      } catch {
        return .failed(error)
      }
      switch outcome {
      case .exit:
        return vcpu.pendingMMIO.map(RunResult.mmio) ?? .failed(.badAddress)
      case .inject(let exception):
        return .guestException(exception)
      case .resume where vcpu.pc != start:
        return .retired
      case .resume:
        // The machine is deterministic: the same fault with the same entry behind it will come for ever.
        let state = (fault: vcpu.fault, leaf: try? stage2.leaf(for: vcpu.fault.pageAddress))
        if let previous, previous == state { return .livelock(vcpu.fault) }
        previous = state
      }
    }
  }

  /// Ends an access that the VMM was asked to do: KVM_RUN with `immediate_exit`.
  ///
  /// - Parameter data: Of a read, what the VMM read.
  public mutating func completeMMIO(data: UInt64 = 0) {
    vcpu.pendingMMIO?.data = data
    handleMMIOReturn()
  }

  /// Sets a register of the guest, 0 to 30.
  public mutating func setRegister(_ register: Int, to value: UInt64) { vcpu[register] = value }

  /// The CPU's part: fetch, translate, move the data, go on. A stage-2 fault leaves the guest as it was.
  private mutating func execute(_ instruction: GuestInstruction) throws(FaultInfo) {
    do throws(Stage2Fault) {
      _ = try stage2.translate(
        stage1.translate(vcpu.pc), for: .execute, cpu: configuration.cpu)
    } catch {
      throw FaultInfo(
        syndrome: ExceptionSyndrome(instructionAbort: error.status, level: error.level),
        far: vcpu.pc, ipa: stage1.translate(vcpu.pc))
    }
    if case .access(let access, let address) = instruction {
      try execute(access, at: address)
    }
    vcpu.skipInstruction()
  }

  private mutating func execute(
    _ access: LoadStore, at address: UInt64
  ) throws(FaultInfo) {
    let first = try translate(access, at: address)
    switch access.form {
    case .register:
      move(access, register: access.register, at: first)
    case .writeBack(let base, let increment):
      move(access, register: access.register, at: first)
      vcpu[base] = vcpu[base] &+ UInt64(bitPattern: increment)
    case .pair(let second):
      let next = try translate(access, at: address &+ UInt64(access.size.bytes))
      move(access, register: access.register, at: first)
      move(access, register: second, at: next)
    case .exclusive, .vector:
      // Faults as any other; the monitor and the SIMD registers are not in the model.
      break
    }
  }

  /// The physical address behind a guest virtual one, or the abort that the CPU takes.
  private func translate(_ access: LoadStore, at address: UInt64) throws(FaultInfo) -> UInt64 {
    let ipa = stage1.translate(address)
    do throws(Stage2Fault) {
      return try stage2.translate(
        ipa, for: access.isStore ? .write : .read, cpu: configuration.cpu)
    } catch {
      throw FaultInfo(
        syndrome: ExceptionSyndrome(
          dataAbort: error.status, level: error.level, access: access),
        far: address, ipa: ipa)
    }
  }

  private mutating func move(_ access: LoadStore, register: Int, at physical: UInt64) {
    if access.isStore {
      host.store(vcpu[register], to: physical, count: access.size.bytes)
    } else {
      vcpu[register] = extend(
        host.load(physical, count: access.size.bytes), bytes: access.size.bytes,
        isSigned: access.isSignExtending, is64Bit: access.is64Bit)
    }
  }
}
