/// The host CPU, as far as it changes what stage 2 does.
public enum CPUModel: String, CaseIterable, Sendable {
  /// Armv8.0: no FEAT_XNX; 44-bit physical addresses.
  case cortexA72 = "cortex-a72"
  /// Armv8.2: FEAT_XNX; 40-bit physical addresses.
  case cortexA76 = "cortex-a76"

  /// FEAT_XNX: XN is two bits, and can refuse EL1 and EL0 apart (Arm ARM D8.4, "Stage 2 instruction execution").
  public var hasXNX: Bool { self == .cortexA76 }

  /// ID_AA64MMFR0_EL1.PARange in bits: what KVM takes for its IPA limit (`get_kvm_ipa_limit`).
  public var physicalAddressBits: Int { self == .cortexA72 ? 44 : 40 }
}
