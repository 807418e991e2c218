/// The host CPU, with the properties that change the behaviour of stage 2. The names are from QEMU.
public enum CPUModel: String, CaseIterable, Sendable {
  /// Armv8.0: no FEAT_XNX; 44-bit physical addresses.
  case cortexA72 = "cortex-a72"
  /// Armv8.2: FEAT_XNX; 40-bit physical addresses.
  case cortexA76 = "cortex-a76"
  /// The CPU with all features of QEMU: FEAT_XNX and FEAT_S2FWB; 52-bit physical addresses, of which 48 are used (FEAT_LPA2 is off).
  case max

  /// FEAT_XNX: XN is two bits, and can refuse EL1 and EL0 apart (Arm ARM D8.4, "Stage 2 instruction execution").
  public var hasXNX: Bool { self != .cortexA72 }

  /// FEAT_S2FWB: stage 2 decides over memory types alone (`ARM64_HAS_STAGE2_FWB`).
  public var hasFWB: Bool { self == .max }

  /// FEAT_TLBIRANGE: an instruction invalidates the TLB entries of a range (`ARM64_HAS_TLB_RANGE`).
  public var hasTLBRange: Bool { self == .max }

  /// FEAT_HAFDBS: the CPU can set the access flag of an entry itself (Arm ARM D8.5, "Hardware management of the Access flag").
  public var hasHardwareAccessFlag: Bool { self != .cortexA72 }

  /// ID_AA64MMFR0_EL1.PARange in bits.
  public var physicalAddressBits: Int {
    switch self {
    case .cortexA72: 44
    case .cortexA76: 40
    case .max: 52
    }
  }
}
