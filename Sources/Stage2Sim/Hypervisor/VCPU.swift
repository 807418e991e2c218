/// A virtual CPU: `struct kvm_vcpu`.
public struct VCPU: Sendable {
  // Arrays: the compiler copies a whole `InlineArray` to read one element of it, if it is in a structure.
  @usableFromInline var x = [UInt64](repeating: 0, count: 31)
  /// V0 to V31, 64 bits an element.
  var vectors = [UInt64](repeating: 0, count: 64)
  /// SP_EL1
  public internal(set) var stackPointer: UInt64 = 0
  /// The address of the instruction that runs next.
  public internal(set) var pc: GuestVirtualAddress = 0
  /// VBAR_EL1: the address of the guest's exception vectors.
  public var vectorBase: GuestVirtualAddress = 0
  /// ELR_EL1: the program counter at the last exception to EL1.
  public internal(set) var exceptionLink: GuestVirtualAddress = 0
  /// ESR_EL1
  public internal(set) var exceptionSyndrome: UInt64
  /// FAR_EL1
  public internal(set) var faultAddress: GuestVirtualAddress
  /// The last stage-2 abort it took.
  public internal(set) var fault = FaultInfo(
    syndrome: ExceptionSyndrome(rawValue: 0), far: 0, ipa: 0)
  /// `INCREMENT_PC`
  @usableFromInline var incrementsPC = false
  /// Between `kvm_entry` and `kvm_exit`.
  var isInGuest = false
  /// An access that the VMM has to complete: `kvm_run.mmio` while `mmio_needed`.
  var pendingMMIO: MMIOExit?

  /// A vCPU after a reset.
  init(kernel: KernelVersion) {
    exceptionSyndrome = kernel.unknownRegister
    faultAddress = GuestVirtualAddress(kernel.unknownRegister)
  }

  /// `vcpu_get_reg`, `vcpu_set_reg`: x0 to x30; 31 is the zero register.
  public subscript(register: Int) -> UInt64 {
    @inlinable get { register == 31 ? 0 : x[register] }
    @inlinable set { if register != 31 { x[register] = newValue } }
  }

  /// The instruction is done.
  mutating func skipInstruction() { pc = pc &+ 4 }

  /// `kvm_incr_pc`: KVM has done the instruction. The PC moves when the vCPU goes on, so that `kvm_entry` still shows the
  /// instruction.
  @inlinable
  public mutating func incrementPC() { incrementsPC = true }

  /// Sets `kvm_run.mmio` and `mmio_needed`, for a hook that returns ``MMIOHookResult/exit``.
  public mutating func exit(with access: MMIOExit) { pendingMMIO = access }

  /// Sets the program counter, as a hook can do by `*vcpu_pc(vcpu)`.
  public mutating func setPC(_ address: GuestVirtualAddress) { pc = address }

  /// `__kvm_adjust_pc`
  mutating func adjustPC() {
    if incrementsPC { skipInstruction() }
    incrementsPC = false
  }

  /// An exception from EL1 to EL1, with its own stack pointer (Arm ARM D1.3, `AArch64.TakeException`).
  mutating func take(_ exception: GuestException) {
    exceptionLink = pc
    exceptionSyndrome = exception.syndrome
    if let address = exception.address { faultAddress = address }
    pc = vectorBase &+ 0x200
  }
}

/// KVM_EXIT_MMIO: an access that no code in the kernel took.
public struct MMIOExit: Hashable, Sendable {
  /// The guest stores.
  public let isWrite: Bool
  /// The guest physical address.
  public let address: IntermediatePhysicalAddress
  /// The size in bytes: 1, 2, 4 or 8.
  public let length: Int
  /// The data of a write. For a read, the VMM puts the data here before the vCPU runs on.
  public var data: UInt64

  /// An access as ``RunResult/mmio(_:)`` has it, to compare one with.
  public init(isWrite: Bool, address: IntermediatePhysicalAddress, length: Int, data: UInt64 = 0) {
    self.isWrite = isWrite
    self.address = address
    self.length = length
    self.data = data
  }
}
