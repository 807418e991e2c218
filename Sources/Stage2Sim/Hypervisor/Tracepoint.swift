/// A tracepoint that KVM passes, with its fields (arch/arm64/kvm/trace_arm.h, include/trace/events/kvm.h).
///
/// The description is the text that ftrace prints behind the tracepoint's ``name``.
public enum Tracepoint: Hashable, Sendable {
  /// `kvm_entry`: the vCPU goes into the guest.
  case entry(pc: GuestVirtualAddress)
  /// `kvm_exit`: the vCPU comes back from the guest.
  case exit(GuestExit, pc: GuestVirtualAddress)
  /// `kvm_guest_fault`: `kvm_handle_guest_abort` has an abort to handle.
  case guestFault(FaultInfo, pc: GuestVirtualAddress)
  /// `kvm_hvc_arm64`: `handle_hvc` has a hypercall to handle.
  case hypercall(pc: GuestVirtualAddress, x0: UInt64, immediate: UInt64)
  /// `kvm_access_fault`: `handle_access_fault` makes a page young.
  case accessFault(ipa: IntermediatePhysicalAddress)
  /// `kvm_mmio`: an access outside memory goes to the bus, or is completed.
  case mmio(MMIOStage, length: Int, address: IntermediatePhysicalAddress, value: UInt64)
  /// `kvm_userspace_exit`: KVM_RUN returns.
  case userspaceExit(UserspaceExit)
  /// `kvm_unmap_hva_range`: the VMM's mapping changes.
  case unmapRange(Range<HostVirtualAddress>)
  /// `kvm_set_spte_hva`: another page takes the place of one.
  case setPTE(address: HostVirtualAddress)
  /// `kvm_age_hva`: the MMU notifier is asked to make a range old.
  case age(Range<HostVirtualAddress>)

  /// The reason why the vCPU came back from the guest.
  public enum GuestExit: Hashable, Sendable {
    /// A trap to EL2, of an exception class (ESR_EL2.EC).
    case trap(exceptionClass: UInt64)
    /// An interrupt of the host.
    case interrupt
  }

  /// The progress of an access outside memory.
  public enum MMIOStage: String, Hashable, Sendable {
    /// A load without an answer yet.
    case unsatisfiedRead = "unsatisfied-read"
    /// A load has its value.
    case read
    /// A store.
    case write
  }

  /// The result of KVM_RUN.
  public enum UserspaceExit: Hashable, Sendable {
    /// 0, and `KVM_EXIT_MMIO`.
    case mmio
    /// -EINTR: a signal, or `immediate_exit`.
    case restart
    /// Another error.
    case error(KernelError)
  }

  /// The tracepoint's name in the kernel.
  public var name: String {
    switch self {
    case .entry: "kvm_entry"
    case .exit: "kvm_exit"
    case .guestFault: "kvm_guest_fault"
    case .hypercall: "kvm_hvc_arm64"
    case .accessFault: "kvm_access_fault"
    case .mmio: "kvm_mmio"
    case .userspaceExit: "kvm_userspace_exit"
    case .unmapRange: "kvm_unmap_hva_range"
    case .setPTE: "kvm_set_spte_hva"
    case .age: "kvm_age_hva"
    }
  }
}

extension Tracepoint: CustomStringConvertible {
  /// The fields as the kernel prints them: the `TP_printk` of the tracepoint.
  public var description: String {
    switch self {
    case .entry(let pc): "PC: 0x\(hexadecimal(pc.rawValue, digits: 16))"
    case .exit(let exit, let pc): "\(exit), PC: 0x\(hexadecimal(pc.rawValue, digits: 16))"
    case .guestFault(let fault, let pc):
      "ipa \(prefixed(fault.pageAddress)), hsr \(prefixed(fault.syndrome, width: 8)), hxfar \(prefixed(fault.far, width: 8)), pc \(prefixed(pc, width: 16))"
    case .hypercall(let pc, let x0, let immediate):
      "HVC at 0x\(hexadecimal(pc.rawValue, digits: 16)) (r0: 0x\(hexadecimal(x0, digits: 16)), imm: 0x\(hexadecimal(immediate)))"
    case .accessFault(let ipa): "IPA: \(hexadecimal(ipa.rawValue))"
    case .mmio(let stage, let length, let address, let value):
      "mmio \(stage.rawValue) len \(length) gpa \(prefixed(address)) val 0x\(hexadecimal(value))"
    case .userspaceExit(.mmio): "reason KVM_EXIT_MMIO (6)"
    // EINTR
    case .userspaceExit(.restart): "reason restart (4)"
    case .userspaceExit(.error(let error)): "reason error (\(error.rawValue))"
    case .unmapRange(let range):
      "mmu notifier unmap range: \(prefixed(range.lowerBound, width: 16)) -- \(prefixed(range.upperBound, width: 16))"
    case .setPTE(let address): "mmu notifier set pte hva: \(prefixed(address, width: 16))"
    case .age(let range):
      "mmu notifier age hva: \(prefixed(range.lowerBound, width: 16)) -- \(prefixed(range.upperBound, width: 16))"
    }
  }
}

extension Tracepoint.GuestExit: CustomStringConvertible {
  /// The text that `kvm_exit` prints.
  public var description: String {
    switch self {
    case .trap(let exceptionClass):
      "TRAP: HSR_EC: 0x\(hexadecimal(exceptionClass, digits: 4)) (\(Self.name(exceptionClass)))"
    case .interrupt: "IRQ: HSR_EC: 0x0000 (UNKNOWN)"
    }
  }

  private static func name(_ exceptionClass: UInt64) -> String {
    switch exceptionClass {
    case ExceptionSyndrome.instructionAbort: "IABT_LOW"
    case ExceptionSyndrome.dataAbort: "DABT_LOW"
    case ExceptionSyndrome.hypercall: "HVC64"
    // The model has no other class. The kernel prints a class without a name as a number.
    default: "0x\(hexadecimal(exceptionClass))"
    }
  }
}

/// `%#*llx` of the kernel's printf: the width counts the `0x`, and zeros fill it up.
private func prefixed(_ value: some RawRepresentable<UInt64>, width: Int = 0) -> String {
  "0x\(hexadecimal(value.rawValue, digits: max(1, width - 2)))"
}
