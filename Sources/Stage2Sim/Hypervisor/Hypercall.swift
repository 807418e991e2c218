/// Code of a user in the place of `kvm_hvc_call_handler` (arch/arm64/kvm/hypercalls.c).
///
/// The hook finds the function's number in x0, and its arguments in x1 to x6. It puts its results into x0 to x3 (`smccc_set_retval`). The
/// program counter is behind the HVC already.
public protocol HypercallHook {
  /// Handles a hypercall.
  ///
  /// - Parameters:
  ///   - vcpu: The vCPU that makes the call.
  ///   - kvm: The VM.
  /// - Throws: The error that KVM_RUN fails with.
  mutating func handleHypercall(
    vcpu: inout VCPU, kvm: inout KVM
  ) throws(KernelError) -> HypercallResult
}

/// The result of a hook for hypercalls.
public enum HypercallResult: Hashable, Sendable {
  /// The hook leaves the call to the kernel.
  case notHandled
  /// The function returns 1: the guest goes on.
  case handled
  /// The function returns 0: KVM_RUN returns, and the virtual machine monitor of the model has no answer.
  case exit
  /// The host's kernel crashes in the hook.
  case crash
}

extension VirtualMachine {
  /// The results of a hypercall: x0 to x3.
  public typealias HypercallValues = (UInt64, UInt64, UInt64, UInt64)

  /// Executes HVC #0 in the guest's kernel: `arm_smccc_1_1_hvc`.
  ///
  /// - Parameter arguments: x0 to x6. Further ones are left out, and those that are missing are 0.
  /// - Throws: The reason, if the guest could not go on after the instruction.
  public mutating func hypercall(_ arguments: [UInt64]) throws(GuestStopped) -> HypercallValues {
    for register in 0..<7 {
      vcpu[register] = register < arguments.count ? arguments[register] : 0
    }
    // The fetch of an instruction in the same place, with its faults. HVC itself has none.
    let result = run(.nop, at: GuestVirtualAddress(flat: Self.kernelAddress))
    guard case .retired = result else { throw GuestStopped(result: result, abort: vcpu.fault) }
    leaveGuestForHypercall()
    let outcome: HypercallResult
    do throws(KernelError) {
      outcome = try handleHypercall()
    } catch {
      throw GuestStopped(result: .failed(error), abort: nil)
    }
    switch outcome {
    case .handled, .notHandled:
      enterGuestAfterHypercall()
      return (vcpu[0], vcpu[1], vcpu[2], vcpu[3])
    // EINTR: the exit has no reason that the model's monitor knows.
    case .exit: throw GuestStopped(result: .failed(.interrupted), abort: nil)
    case .crash: throw GuestStopped(result: .crashed(.host), abort: nil)
    }
  }

  /// `handle_hvc`, `kvm_hvc_call_handler`
  private mutating func handleHypercall() throws(KernelError) -> HypercallResult {
    kvm.stage2.events.emit(.tracepoint(.hypercall(pc: vcpu.pc, x0: vcpu[0], immediate: 0)))
    var result = HypercallResult.notHandled
    for index in hypercallHooks.indices {
      result = try hypercallHooks[index].handleHypercall(vcpu: &vcpu, kvm: &kvm)
    }
    guard result == .notHandled else { return result }
    // ARM_SMCCC_VERSION_FUNC_ID gives version 1.1. The model has no other function: SMCCC_RET_NOT_SUPPORTED.
    vcpu[0] = vcpu[0] & 0xffff_ffff == 0x8000_0000 ? 0x1_0001 : .max
    for register in 1...3 { vcpu[register] = 0 }
    return .handled
  }
}
