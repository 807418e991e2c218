import Stage2Sim

/// An instruction that a guest's step can run: one of ``all``.
///
/// The address of the access is in x1, and its data in x0, w0 or vector register 0. Pairs also use register 2. x3 is 0.
public struct Instruction: Hashable, Sendable {
  /// `strb`
  public let mnemonic: String
  /// The operands around the address: `w0,[` and `]`.
  let prefix, suffix: String
  /// The encoding of the instruction.
  public let word: UInt32

  private init(_ text: String, _ word: UInt32) {
    let parts = text.split(separator: " ")
    let operands = parts[1].split(separator: "A")
    mnemonic = String(parts[0])
    prefix = String(operands[0])
    suffix = String(operands[1])
    self.word = word
  }

  /// The address of the access has to be a multiple of this number.
  public var alignment: UInt64 {
    guard case .access(let access, _) = A64Instruction(decoding: word) else { return 1 }
    return UInt64(access.size.bytes)
  }

  /// How far behind x1 the access is: 1 for a pre-index by one.
  public var offset: UInt64 {
    guard case .access(_, let place) = A64Instruction(decoding: word) else { return 0 }
    return UInt64(bitPattern: place.offset)
  }

  /// The instruction as the language writes it, with `address` in its brackets.
  public func text(_ address: String) -> String { "\(mnemonic) \(prefix)\(address)\(suffix)" }

  fileprivate static let byMnemonic = Dictionary(grouping: all, by: \.mnemonic)

  /// All instructions of the language, in the order of the recorder's table.
  public static let all: [Instruction] = [
    Instruction("strb w0,[A]", 0x3900_0020),
    Instruction("ldrb w0,[A]", 0x3940_0020),
    Instruction("strh w0,[A]", 0x7900_0020),
    Instruction("ldrh w0,[A]", 0x7940_0020),
    Instruction("str w0,[A]", 0xb900_0020),
    Instruction("ldr w0,[A]", 0xb940_0020),
    Instruction("str x0,[A]", 0xf900_0020),
    Instruction("ldr x0,[A]", 0xf940_0020),
    Instruction("ldrsb w0,[A]", 0x39c0_0020),
    Instruction("ldrsb x0,[A]", 0x3980_0020),
    Instruction("ldrsh w0,[A]", 0x79c0_0020),
    Instruction("ldrsh x0,[A]", 0x7980_0020),
    Instruction("ldrsw x0,[A]", 0xb980_0020),
    Instruction("strb wzr,[A]", 0x3900_003f),
    Instruction("ldrb wzr,[A]", 0x3940_003f),
    Instruction("str xzr,[A]", 0xf900_003f),
    Instruction("ldr xzr,[A]", 0xf940_003f),
    Instruction("sturb w0,[A]", 0x3800_0020),
    Instruction("ldurb w0,[A]", 0x3840_0020),
    Instruction("stur x0,[A]", 0xf800_0020),
    Instruction("ldur x0,[A]", 0xf840_0020),
    Instruction("strb w0,[A,x3]", 0x3823_6820),
    Instruction("ldrb w0,[A,x3]", 0x3863_6820),
    Instruction("stlrb w0,[A]", 0x089f_fc20),
    Instruction("ldarb w0,[A]", 0x08df_fc20),
    Instruction("stlr w0,[A]", 0x889f_fc20),
    Instruction("ldar w0,[A]", 0x88df_fc20),
    Instruction("stlr x0,[A]", 0xc89f_fc20),
    Instruction("ldar x0,[A]", 0xc8df_fc20),
    Instruction("ldxrb w0,[A]", 0x085f_7c20),
    Instruction("ldaxrb w0,[A]", 0x085f_fc20),
    Instruction("ldxr x0,[A]", 0xc85f_7c20),
    Instruction("stxrb w2,w0,[A]", 0x0802_7c20),
    Instruction("stxr w2,x0,[A]", 0xc802_7c20),
    Instruction("strb w0,[A],#1", 0x3800_1420),
    Instruction("ldrb w0,[A],#1", 0x3840_1420),
    Instruction("strb w0,[A]!", 0x3800_1c20),
    Instruction("ldrb w0,[A]!", 0x3840_1c20),
    Instruction("stp w0,w2,[A]", 0x2900_0820),
    Instruction("ldp w0,w2,[A]", 0x2940_0820),
    Instruction("stp x0,x2,[A]", 0xa900_0820),
    Instruction("ldp x0,x2,[A]", 0xa940_0820),
    Instruction("str b0,[A]", 0x3d00_0020),
    Instruction("ldr b0,[A]", 0x3d40_0020),
    Instruction("str d0,[A]", 0xfd00_0020),
    Instruction("ldr d0,[A]", 0xfd40_0020),
    Instruction("str q0,[A]", 0x3d80_0020),
    Instruction("ldr q0,[A]", 0x3dc0_0020),
    Instruction("prfm pldl1keep,[A]", 0xf980_0020),
  ]
}

extension Instruction: CustomStringConvertible {
  /// `strb w0,[ADDRESS]`
  public var description: String { text("ADDRESS") }
}

extension LineParser {
  /// The next instruction, and the address in its brackets.
  mutating func instruction(
    mnemonic: Word
  ) throws(ScenarioError) -> (Instruction, address: GuestVirtualAddress) {
    guard let named = Instruction.byMnemonic[mnemonic.text] else {
      throw error(
        at: mnemonic, expected: "fetch or an instruction of docs/scenario.md such as ldrb")
    }
    var forms: String { alternatives(named.map(\.description)) }
    let operands = try self.operands(forms)
    // The alternatives are an array only if an error names them.
    guard let prefix = named.first(where: { operands.text.hasPrefix($0.prefix) })?.prefix else {
      throw error(at: operands, expected: forms)
    }
    let start = prefix.utf8.count
    let count = operands.text.utf8.dropFirst(start)
      .prefix { $0 != UInt8(ascii: "]") && $0 != UInt8(ascii: ",") }.count
    let digits = operands.part(from: start, count: count)
    let address = GuestVirtualAddress(try self.number(digits, "an address"))
    let end = operands.text.utf8.dropFirst(start + count)
    guard
      let found = named.first(where: {
        end.elementsEqual($0.suffix.utf8) && operands.text.hasPrefix($0.prefix)
      })
    else {
      let alike = named.filter { operands.text.hasPrefix($0.prefix) }
      throw error(
        at: operands.part(from: start + count),
        expected: "the end of \(alternatives(alike.map(\.description)))")
    }
    guard address.rawValue % found.alignment == 0 else {
      throw error(
        at: digits, expected: "an address that is a multiple of \(found.alignment)")
    }
    return (found, address)
  }
}
