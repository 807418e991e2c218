/// A load or store instruction of the guest, as far as memory and the syndrome see it.
public struct LoadStore: Hashable, Sendable {
  /// The size of one access; the raw value is log2 of the bytes, as in the instruction and in ESR_EL2.SAS.
  public enum Size: UInt8, Sendable {
    /// 8 bits: LDRB, STRB.
    case byte
    /// 16 bits: LDRH, STRH.
    case halfword
    /// 32 bits: a W register, and LDRSW.
    case word
    /// 64 bits: an X register.
    case doubleword
    /// Of ``Form/vector`` alone; ESR_EL2.SAS has no value for it.
    case quadword

    /// The same in bytes: 1 to 16.
    @inline(__always)
    public var bytes: Int { 1 &<< Int(rawValue) }
  }

  /// What the instruction moves besides one register and memory.
  public enum Form: Hashable, Sendable {
    /// Nothing: immediate offset, register offset, unscaled, acquire or release.
    case register
    /// The base register, pre- or post-index.
    case writeBack(base: Int, increment: Int64)
    /// A second register: LDP and STP.
    case pair(second: Int)
    /// The exclusive monitor: LDXR and its kin, and STXR, which puts 0 or 1 into its status register.
    case exclusive(status: Int?)
    /// A SIMD register in place of the general-purpose one.
    case vector
  }

  /// It writes memory, from its register.
  public var isStore: Bool
  /// How much one access moves.
  public var size: Size
  /// Rt, 0 to 31. 31 is the zero register.
  public var register: Int
  /// LDRSB and its kin.
  public var isSignExtending: Bool
  /// The register is an X register. False for the W form, whose upper half becomes zero.
  public var is64Bit: Bool
  /// LDARB, STLRB and their kin.
  public var isAcquireRelease: Bool
  /// What else it moves. ESR_EL2 describes ``Form/register`` alone.
  public var form: Form

  /// An instruction, from its parts.
  ///
  /// - Parameters:
  ///   - isStore: It writes memory.
  ///   - size: How much one access moves.
  ///   - register: 0 to 31.
  ///   - isSignExtending: The load has a sign.
  ///   - is64Bit: Nil for what a load or store of `size` without a sign has: an X register for doublewords alone.
  ///   - isAcquireRelease: It orders other accesses, which ESR_EL2.AR says.
  ///   - form: What else it moves.
  @inline(__always)
  public init(
    isStore: Bool, size: Size, register: Int, isSignExtending: Bool = false,
    is64Bit: Bool? = nil, isAcquireRelease: Bool = false, form: Form = .register
  ) {
    precondition((0...31).contains(register), "there is no register \(register)")
    self.isStore = isStore
    self.size = size
    self.register = register
    self.isSignExtending = isSignExtending
    self.is64Bit = is64Bit ?? (size == .doubleword)
    self.isAcquireRelease = isAcquireRelease
    self.form = form
  }

  /// A load of `size` into a register, with zeros above: LDRB, LDRH, LDR.
  @inline(__always)
  public static func load(_ size: Size, to register: Int) -> LoadStore {
    LoadStore(isStore: false, size: size, register: register)
  }

  /// A store of a register's low bytes: STRB, STRH, STR.
  @inline(__always)
  public static func store(_ size: Size, from register: Int) -> LoadStore {
    LoadStore(isStore: true, size: size, register: register)
  }

  /// ESR_EL2.ISV: one general-purpose register, no write-back (Arm ARM, ISS encoding for a Data Abort).
  public var hasValidSyndrome: Bool { if case .register = form { true } else { false } }
}

/// What a load of the low `bytes` bytes of `value` puts into its register.
///
/// - Parameter is64Bit: An X register; a W register gets zeros in its upper half.
func extend(_ value: UInt64, bytes: Int, isSigned: Bool, is64Bit: Bool) -> UInt64 {
  let unused = UInt64(64 - 8 * bytes)
  let top = value << unused
  let extended =
    isSigned ? UInt64(bitPattern: Int64(bitPattern: top) >> Int64(unused)) : top >> unused
  return is64Bit ? extended : extended & 0xffff_ffff
}

/// What one run of the guest does.
public enum GuestInstruction: Hashable, Sendable {
  /// An instruction that touches no memory but its own.
  case nop
  /// A load or store at a virtual address of the guest.
  case access(LoadStore, address: GuestVirtualAddress)
}
