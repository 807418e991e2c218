/// An exception that the guest takes to its own EL1, for something that it did wrong.
public struct GuestException: Hashable, Sendable {
  /// ESR_EL1 (Arm ARM D19.2.37).
  public let syndrome: UInt64
  /// FAR_EL1, for exceptions that have an address.
  public let address: GuestVirtualAddress?

  private static let instructionLength: UInt64 = 1 << 25

  /// UDF, or a word that is no instruction (EC 0x00).
  static let undefined = GuestException(syndrome: instructionLength, address: nil)

  /// An instruction at an address that is no multiple of 4 (EC 0x22).
  static func unalignedPC(_ address: GuestVirtualAddress) -> GuestException {
    GuestException(syndrome: 0x22 << 26 | instructionLength, address: address)
  }

  /// An unaligned load or store. KVM never hears of it: stage 1 is off, so all memory is Device memory to the guest
  /// (Arm ARM B2.8, "Alignment support").
  static func alignment(at address: GuestVirtualAddress, isWrite: Bool) -> GuestException {
    abort(at: address, isInstruction: false, isWrite: isWrite, status: 0b100001)
  }

  /// An address with more bits than the CPU has: stage 1 gives it back, although it is off (Arm ARM D8.2.4,
  /// "Address size fault").
  static func addressSize(
    at address: GuestVirtualAddress, isInstruction: Bool, isWrite: Bool
  ) -> GuestException {
    abort(at: address, isInstruction: isInstruction, isWrite: isWrite, status: 0)
  }

  private static func abort(
    at address: GuestVirtualAddress, isInstruction: Bool, isWrite: Bool, status: UInt64
  ) -> GuestException {
    let exceptionClass: UInt64 = isInstruction ? 0x21 : 0x25
    return GuestException(
      syndrome: exceptionClass << 26 | instructionLength | (isWrite ? 1 << 6 : 0) | status,
      address: address)
  }

  /// `kvm_inject_dabt`, `kvm_inject_pabt`: an external abort.
  static func injectedAbort(
    at address: GuestVirtualAddress, isInstruction: Bool, by kernel: KernelVersion
  ) -> GuestException {
    injected(at: address, isInstruction: isInstruction, status: 0b010000, by: kernel)
  }

  /// `kvm_inject_size_fault`: the same, and then its fault status becomes that of an address size fault.
  static func injectedAddressSize(
    at address: GuestVirtualAddress, isInstruction: Bool, by kernel: KernelVersion
  ) -> GuestException {
    injected(at: address, isInstruction: isInstruction, status: 0, by: kernel)
  }

  /// `inject_abt64` (arch/arm64/kvm/inject_fault.c)
  private static func injected(
    at address: GuestVirtualAddress, isInstruction: Bool, status: UInt64, by kernel: KernelVersion
  ) -> GuestException {
    let exception = abort(
      at: address, isInstruction: isInstruction, isWrite: false, status: status)
    return GuestException(
      syndrome: kernel.injectedSyndrome(exception.syndrome), address: address)
  }
}
