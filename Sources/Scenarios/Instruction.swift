import Stage2Sim

/// An instruction that a guest's step can run: one of ``all``.
///
/// Its address is in x1 and its data in x0, w0 or the vector register 0; register 2 is its second one, and x3 is 0.
public struct Instruction: Hashable, Sendable {
  /// What an instruction does with its address.
  public enum Operation: Hashable, Sendable {
    case access(LoadStore)
    /// PRFM: no access, and never a fault.
    case prefetch
  }

  /// `strb`
  public let mnemonic: String
  /// The operands around the address: `w0,[` and `]`.
  let prefix, suffix: String
  public let operation: Operation
  /// How far behind x1 the access is: 1 for a pre-index by one.
  public let offset: UInt64

  private init(_ text: String, offset: UInt64 = 0, _ operation: Operation) {
    let parts = text.split(separator: " ")
    let operands = parts[1].split(separator: "A")
    mnemonic = String(parts[0])
    prefix = String(operands[0])
    suffix = String(operands[1])
    self.operation = operation
    self.offset = offset
  }

  /// What its address has to be a multiple of.
  public var alignment: UInt64 {
    switch operation {
    case .access(let access): UInt64(access.size.bytes)
    case .prefetch: 1
    }
  }

  /// The instruction for the model, with its access at `address`.
  public func at(_ address: UInt64) -> GuestInstruction {
    switch operation {
    case .access(let access): .access(access, address: address)
    case .prefetch: .nop
    }
  }

  /// The instruction as the language writes it, with `address` in its brackets.
  public func text(_ address: String) -> String { "\(mnemonic) \(prefix)\(address)\(suffix)" }

  /// Every instruction of the language, in the order of the recorder's table.
  public static let all: [Instruction] = [
    store("strb w0,[A]", .byte), load("ldrb w0,[A]", .byte),
    store("strh w0,[A]", .halfword), load("ldrh w0,[A]", .halfword),
    store("str w0,[A]", .word), load("ldr w0,[A]", .word),
    store("str x0,[A]", .doubleword), load("ldr x0,[A]", .doubleword),
    signed("ldrsb w0,[A]", .byte, is64Bit: false), signed("ldrsb x0,[A]", .byte, is64Bit: true),
    signed("ldrsh w0,[A]", .halfword, is64Bit: false),
    signed("ldrsh x0,[A]", .halfword, is64Bit: true),
    signed("ldrsw x0,[A]", .word, is64Bit: true),
    store("strb wzr,[A]", .byte, register: 31), load("ldrb wzr,[A]", .byte, register: 31),
    store("str xzr,[A]", .doubleword, register: 31),
    load("ldr xzr,[A]", .doubleword, register: 31),
    store("sturb w0,[A]", .byte), load("ldurb w0,[A]", .byte),
    store("stur x0,[A]", .doubleword), load("ldur x0,[A]", .doubleword),
    store("strb w0,[A,x3]", .byte), load("ldrb w0,[A,x3]", .byte),
    store("stlrb w0,[A]", .byte, ordered), load("ldarb w0,[A]", .byte, ordered),
    store("stlr w0,[A]", .word, ordered), load("ldar w0,[A]", .word, ordered),
    store("stlr x0,[A]", .doubleword, ordered), load("ldar x0,[A]", .doubleword, ordered),
    load("ldxrb w0,[A]", .byte, form: .exclusive(status: nil)),
    load("ldaxrb w0,[A]", .byte, ordered, form: .exclusive(status: nil)),
    load("ldxr x0,[A]", .doubleword, form: .exclusive(status: nil)),
    store("stxrb w2,w0,[A]", .byte, form: .exclusive(status: 2)),
    store("stxr w2,x0,[A]", .doubleword, form: .exclusive(status: 2)),
    store("strb w0,[A],#1", .byte, form: byOne), load("ldrb w0,[A],#1", .byte, form: byOne),
    store("strb w0,[A]!", .byte, form: byOne, offset: 1),
    load("ldrb w0,[A]!", .byte, form: byOne, offset: 1),
    store("stp w0,w2,[A]", .word, form: .pair(second: 2)),
    load("ldp w0,w2,[A]", .word, form: .pair(second: 2)),
    store("stp x0,x2,[A]", .doubleword, form: .pair(second: 2)),
    load("ldp x0,x2,[A]", .doubleword, form: .pair(second: 2)),
    store("str b0,[A]", .byte, form: .vector), load("ldr b0,[A]", .byte, form: .vector),
    store("str d0,[A]", .doubleword, form: .vector),
    load("ldr d0,[A]", .doubleword, form: .vector),
    store("str q0,[A]", .quadword, form: .vector), load("ldr q0,[A]", .quadword, form: .vector),
    Instruction("prfm pldl1keep,[A]", .prefetch),
  ]

  private static let ordered = true
  private static let byOne = LoadStore.Form.writeBack(base: 1, increment: 1)

  private static func store(
    _ text: String, _ size: LoadStore.Size, _ isAcquireRelease: Bool = false, register: Int = 0,
    form: LoadStore.Form = .register, offset: UInt64 = 0
  ) -> Instruction {
    let access = LoadStore(
      isStore: true, size: size, register: register, isAcquireRelease: isAcquireRelease,
      form: form)
    return Instruction(text, offset: offset, .access(access))
  }

  private static func load(
    _ text: String, _ size: LoadStore.Size, _ isAcquireRelease: Bool = false, register: Int = 0,
    form: LoadStore.Form = .register, offset: UInt64 = 0
  ) -> Instruction {
    let access = LoadStore(
      isStore: false, size: size, register: register, isAcquireRelease: isAcquireRelease,
      form: form)
    return Instruction(text, offset: offset, .access(access))
  }

  private static func signed(
    _ text: String, _ size: LoadStore.Size, is64Bit: Bool
  ) -> Instruction {
    let access = LoadStore(
      isStore: false, size: size, register: 0, isSignExtending: true, is64Bit: is64Bit)
    return Instruction(text, .access(access))
  }
}

extension Instruction: CustomStringConvertible {
  /// `strb w0,[ADDRESS]`
  public var description: String { text("ADDRESS") }
}

extension LineParser {
  /// An instruction, and the address in its brackets.
  mutating func instruction(
    mnemonic: Word
  ) throws(ScenarioError) -> (Instruction, address: UInt64) {
    let named = Instruction.all.filter { $0.mnemonic == mnemonic.text }
    guard !named.isEmpty else {
      throw error(
        at: mnemonic, expected: "fetch or an instruction of docs/scenario.md such as ldrb")
    }
    let forms = alternatives(named.map(\.description))
    let operands = try word(forms)
    let alike = named.filter { operands.text.hasPrefix($0.prefix) }
    guard let prefix = alike.first?.prefix else { throw error(at: operands, expected: forms) }
    let number = operands.part(from: prefix.utf8.count).text.utf8
      .prefix { $0 != UInt8(ascii: "]") && $0 != UInt8(ascii: ",") }.count
    let digits = operands.part(from: prefix.utf8.count, count: number)
    let address = try self.number(digits, "an address")
    let rest = operands.part(from: prefix.utf8.count + number)
    guard let found = alike.first(where: { $0.suffix == rest.text }) else {
      throw error(at: rest, expected: "the end of \(alternatives(alike.map(\.description)))")
    }
    guard address % found.alignment == 0 else {
      throw error(
        at: digits, expected: "an address that is a multiple of \(found.alignment)")
    }
    return (found, address)
  }
}
