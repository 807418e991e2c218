/// The kind of a stage-2 fault: DFSC or IFSC without its level bits (Arm ARM, ESR_EL2, ISS).
public enum FaultStatus: UInt64, Sendable {
  /// 0b0000LL
  case addressSize = 0x00
  /// 0b0001LL, `FSC_FAULT`
  case translation = 0x04
  /// 0b0010LL, `FSC_ACCESS`
  case accessFlag = 0x08
  /// 0b0011LL, `FSC_PERM`
  case permission = 0x0c
}

/// ESR_EL2 for an abort taken from a lower exception level.
///
/// Arm ARM D19.2.37; the accessors are from arch/arm64/include/asm/kvm_emulate.h.
public struct ExceptionSyndrome: RawRepresentable, Hashable, Sendable {
  public var rawValue: UInt64

  public init(rawValue: UInt64) { self.rawValue = rawValue }

  /// EC, bits [31:26]: `ESR_ELx_EC_IABT_LOW`.
  public static let instructionAbort: UInt64 = 0x20
  /// EC, bits [31:26]: `ESR_ELx_EC_DABT_LOW`.
  public static let dataAbort: UInt64 = 0x24
  /// EC, bits [31:26]: `ESR_ELx_EC_HVC64`.
  public static let hypercall: UInt64 = 0x16

  /// The syndrome of an instruction fetch that stage 2 refused.
  public init(instructionAbort status: FaultStatus, level: Int) {
    rawValue = Self.instructionAbort << 26 | 1 << 25 | status.rawValue | UInt64(level)
  }

  /// The syndrome of a load or store that stage 2 refused.
  ///
  /// ISV is set, and with it SAS, SSE, SRT, SF and AR have a meaning, only if one general-purpose register is
  /// moved without write-back and without an exclusive monitor.
  @inline(__always)
  public init(dataAbort status: FaultStatus, level: Int, access: LoadStore) {
    var iss = status.rawValue | UInt64(level)
    if access.isStore { iss |= 1 << 6 }
    if access.hasValidSyndrome {
      iss |= 1 << 24
      iss |= UInt64(access.size.rawValue) << 22
      if access.isSignExtending { iss |= 1 << 21 }
      iss |= UInt64(access.register) << 16
      if access.is64Bit { iss |= 1 << 15 }
      if access.isAcquireRelease { iss |= 1 << 14 }
    }
    rawValue = Self.dataAbort << 26 | 1 << 25 | iss
  }

  /// EC.
  public var exceptionClass: UInt64 { rawValue >> 26 & 0x3f }
  /// `kvm_vcpu_trap_is_iabt`
  public var isInstructionAbort: Bool { exceptionClass == Self.instructionAbort }
  /// ISV, bit 24: `kvm_vcpu_dabt_isvalid`
  public var isValid: Bool { rawValue >> 24 & 1 != 0 }
  /// SAS, bits [23:22], as a number of bytes: `kvm_vcpu_dabt_get_as`
  @inline(__always)
  public var accessSize: Int { 1 << Int(rawValue >> 22 & 3) }
  /// SSE, bit 21: `kvm_vcpu_dabt_issext`
  public var isSignExtending: Bool { rawValue >> 21 & 1 != 0 }
  /// SRT, bits [20:16]: `kvm_vcpu_dabt_get_rd`
  public var register: Int { Int(rawValue >> 16 & 0x1f) }
  /// SF, bit 15: `kvm_vcpu_dabt_issf`
  public var is64Bit: Bool { rawValue >> 15 & 1 != 0 }
  /// WnR, bit 6 (an instruction abort has it clear): `kvm_is_write_fault`
  public var isWrite: Bool { !isInstructionAbort && rawValue >> 6 & 1 != 0 }
  /// DFSC or IFSC without the level: `kvm_vcpu_trap_get_fault_type`. Nil for a status that stage 2 does not raise here.
  @inline(__always)
  public var faultStatus: FaultStatus? { FaultStatus(rawValue: rawValue & 0x3c) }
  /// The level of the entry that refused: `kvm_vcpu_trap_get_fault_level`
  public var faultLevel: Int { Int(rawValue & 3) }
}

extension ExceptionSyndrome: CustomStringConvertible {
  public var description: String { "0x\(hexadecimal(rawValue))" }
}

/// The registers after the CPU has taken a stage-2 abort to EL2 (`struct kvm_vcpu_fault_info`).
public struct FaultInfo: Error, Hashable, Sendable {
  /// ESR_EL2
  public var syndrome: ExceptionSyndrome
  /// FAR_EL2: the guest's virtual address.
  public var far: GuestVirtualAddress
  /// HPFAR_EL2: IPA bits [47:12] in bits [39:4] (FIPA).
  public var hpfar: UInt64

  /// The registers after an abort at `ipa`, of which HPFAR_EL2 keeps the page.
  public init(
    syndrome: ExceptionSyndrome, far: GuestVirtualAddress, ipa: IntermediatePhysicalAddress
  ) {
    self.syndrome = syndrome
    self.far = far
    hpfar = (ipa.rawValue >> 12) << 4
  }

  /// The page of the faulting IPA: `kvm_vcpu_get_fault_ipa`.
  public var pageAddress: IntermediatePhysicalAddress {
    IntermediatePhysicalAddress((hpfar & ~0xf) << 8)
  }

  /// The faulting IPA to the byte. HPFAR_EL2 has no offset in the page; it is the same in the virtual address.
  public var ipa: IntermediatePhysicalAddress { pageAddress &+ far.offset(in: 0x1000) }
}
