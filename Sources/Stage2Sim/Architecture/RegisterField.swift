/// A field of a register that describes an abort (Arm ARM D19.2).
public struct RegisterField: Hashable, Sendable {
  /// The name in the Arm ARM; `RES0` for bits that are reserved.
  public let name: String
  /// The numbers of the bits in the register.
  public let bits: ClosedRange<Int>

  /// A field.
  public init(_ name: String, _ bits: ClosedRange<Int>) {
    self.name = name
    self.bits = bits
  }

  /// The fields of ESR_EL2 for every exception: ISS2, EC and IL.
  private static let syndromeHead = [
    RegisterField("RES0", 56...63), RegisterField("ISS2", 32...55), RegisterField("EC", 26...31),
    RegisterField("IL", 25...25),
  ]

  /// The fields of ESR_EL2 for a data abort, from the highest bit down.
  public static let dataAbort =
    syndromeHead + [
      RegisterField("ISV", 24...24), RegisterField("SAS", 22...23), RegisterField("SSE", 21...21),
      RegisterField("SRT", 16...20), RegisterField("SF", 15...15), RegisterField("AR", 14...14),
      RegisterField("VNCR", 13...13), RegisterField("SET", 11...12), RegisterField("FnV", 10...10),
      RegisterField("EA", 9...9), RegisterField("CM", 8...8), RegisterField("S1PTW", 7...7),
      RegisterField("WnR", 6...6), RegisterField("DFSC", 0...5),
    ]

  /// The fields of ESR_EL2 for an instruction abort, from the highest bit down.
  public static let instructionAbort =
    syndromeHead + [
      RegisterField("RES0", 13...24), RegisterField("SET", 11...12), RegisterField("FnV", 10...10),
      RegisterField("EA", 9...9), RegisterField("RES0", 8...8), RegisterField("S1PTW", 7...7),
      RegisterField("RES0", 6...6), RegisterField("IFSC", 0...5),
    ]

  /// The fields of HPFAR_EL2, from the highest bit down.
  public static let faultingPage = [
    RegisterField("NS", 63...63), RegisterField("RES0", 44...62), RegisterField("FIPA", 4...43),
    RegisterField("RES0", 0...3),
  ]

  /// The value of the field in a register.
  public func value(in register: UInt64) -> UInt64 {
    register >> UInt64(bits.lowerBound) & (.max >> UInt64(64 - bits.count))
  }
}
