/// An instruction that stands in the guest's memory, as far as the model runs instructions: loads, stores, and what
/// does nothing (Arm ARM C4.1, "A64 instruction set encoding").
public enum A64Instruction: Hashable, Sendable {
  /// A load or store, and where its address is.
  case access(LoadStore, Addressing)
  /// NOP, and PRFM: a prefetch that would fault does not.
  case nop
  /// UDF: an exception to EL1.
  case undefined
  /// An instruction that the model does not run.
  case unknown(UInt32)

  /// Where a load or store finds its address.
  public struct Addressing: Hashable, Sendable {
    /// Rn, 0 to 30, or 31 for the stack pointer.
    public let base: Int
    /// What is added before the access: an immediate, and for register offsets ``index``.
    public let offset: Int64
    /// Rm of a register offset, taken as 64 bits.
    public let index: Int?
    /// How far ``index`` is shifted to the left.
    public let shift: UInt64
  }

  /// Decodes a word of the guest's memory.
  public init(decoding word: UInt32) {
    let loadOrStore =
      word >> 24 & 0x3f == 0b001000
      ? Self.exclusiveOrOrdered(word)
      : word >> 27 & 0b111 == 0b101
        ? Self.pair(word)
        : word >> 27 & 0b111 == 0b111 && word >> 25 & 1 == 0 ? Self.register(word) : nil
    if let loadOrStore {
      self = loadOrStore
    } else if word >> 16 == 0 {
      self = .undefined
    } else {
      self = word == 0xd503_201f ? .nop : .unknown(word)
    }
  }

  private static func field(_ word: UInt32, _ low: UInt32, _ width: UInt32) -> Int {
    Int(word >> low & (1 << width - 1))
  }

  private static func signed(_ word: UInt32, _ low: UInt32, _ width: UInt32) -> Int64 {
    (Int64(field(word, low, width)) << Int64(64 - width)) >> Int64(64 - width)
  }

  private static func addressing(
    _ word: UInt32, offset: Int64 = 0, index: Int? = nil, shift: UInt64 = 0
  ) -> Addressing {
    Addressing(base: field(word, 5, 5), offset: offset, index: index, shift: shift)
  }

  /// LDXR, STXR, LDAR, STLR and their kin; not pairs, and not compare and swap.
  private static func exclusiveOrOrdered(_ word: UInt32) -> A64Instruction? {
    guard field(word, 21, 1) == 0, let size = LoadStore.Size(rawValue: UInt8(field(word, 30, 2)))
    else { return nil }
    let isStore = field(word, 22, 1) == 0
    let isOrdered = field(word, 23, 1) == 1
    let access = LoadStore(
      isStore: isStore, size: size, register: field(word, 0, 5),
      isAcquireRelease: isOrdered || field(word, 15, 1) == 1,
      form: isOrdered ? .register : .exclusive(status: isStore ? field(word, 16, 5) : nil))
    return .access(access, addressing(word))
  }

  /// LDP and STP of general-purpose registers, with an offset.
  private static func pair(_ word: UInt32) -> A64Instruction? {
    guard field(word, 26, 1) == 0, field(word, 23, 3) == 0b010, field(word, 30, 1) == 0 else {
      return nil
    }
    let size = field(word, 31, 1) == 1 ? LoadStore.Size.doubleword : .word
    let access = LoadStore(
      isStore: field(word, 22, 1) == 0, size: size, register: field(word, 0, 5),
      form: .pair(second: field(word, 10, 5)))
    return .access(access, addressing(word, offset: signed(word, 15, 7) * Int64(size.bytes)))
  }

  /// One register, general-purpose or SIMD, in the addressing modes that such have.
  private static func register(_ word: UInt32) -> A64Instruction? {
    guard let data = data(word) else { return nil }
    let scale = data.size.rawValue
    let base = field(word, 5, 5)
    var access = data
    var place = addressing(word)
    if field(word, 24, 1) == 1 {
      place = addressing(word, offset: Int64(field(word, 10, 12)) << Int64(scale))
    } else if field(word, 21, 1) == 1 {
      // A register offset, of a 64-bit register (option LSL).
      guard field(word, 10, 2) == 0b10, field(word, 13, 3) == 0b011 else { return nil }
      place = addressing(
        word, index: field(word, 16, 5), shift: field(word, 12, 1) == 1 ? UInt64(scale) : 0)
    } else {
      let immediate = signed(word, 12, 9)
      switch field(word, 10, 2) {
      case 0b00: place = addressing(word, offset: immediate)
      case 0b01 where data.form == .register:
        access.form = .writeBack(base: base, increment: immediate)
      case 0b11 where data.form == .register:
        access.form = .writeBack(base: base, increment: immediate)
        place = addressing(word, offset: immediate)
      default: return nil
      }
    }
    if isPrefetch(word) { return .nop }
    return .access(access, place)
  }

  private static func isPrefetch(_ word: UInt32) -> Bool {
    field(word, 26, 1) == 0 && field(word, 30, 2) == 0b11 && field(word, 22, 2) == 0b10
  }

  /// What `size`, `V` and `opc` say of the data.
  private static func data(_ word: UInt32) -> LoadStore? {
    let sizeField = field(word, 30, 2)
    let opcode = field(word, 22, 2)
    let register = field(word, 0, 5)
    if field(word, 26, 1) == 1 {
      guard opcode < 2 || sizeField == 0 else { return nil }
      let size = opcode < 2 ? LoadStore.Size(rawValue: UInt8(sizeField)) : .quadword
      return size.map {
        LoadStore(isStore: opcode & 1 == 0, size: $0, register: register, form: .vector)
      }
    }
    guard let size = LoadStore.Size(rawValue: UInt8(sizeField)) else { return nil }
    if isPrefetch(word) { return .load(size, to: register) }
    // LDRSW has no form for a W register, and LDR none with a sign.
    guard opcode < 2 || sizeField + (opcode & 1) < 3 else { return nil }
    return LoadStore(
      isStore: opcode == 0, size: size, register: register, isSignExtending: opcode >= 2,
      is64Bit: opcode >= 2 ? opcode == 2 : nil)
  }
}

extension VCPU {
  /// The address of a load or store, a virtual one of the guest's.
  func address(_ place: A64Instruction.Addressing) -> GuestVirtualAddress {
    let base = place.base == 31 ? stackPointer : self[place.base]
    let index = place.index.map { self[$0] << place.shift } ?? 0
    return GuestVirtualAddress(base &+ UInt64(bitPattern: place.offset) &+ index)
  }
}
