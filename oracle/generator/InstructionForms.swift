/// An instruction of docs/scenario.md, with A for the address, and the number of bytes that it accesses.
private typealias InstructionForm = (bytes: UInt64, text: String)

private let instructionForms: [InstructionForm] = [
  (1, "strb w0,[A]"),
  (1, "ldrb w0,[A]"),
  (2, "strh w0,[A]"),
  (2, "ldrh w0,[A]"),
  (4, "str w0,[A]"),
  (4, "ldr w0,[A]"),
  (8, "str x0,[A]"),
  (8, "ldr x0,[A]"),
  (1, "ldrsb w0,[A]"),
  (1, "ldrsb x0,[A]"),
  (2, "ldrsh w0,[A]"),
  (2, "ldrsh x0,[A]"),
  (4, "ldrsw x0,[A]"),
  (1, "strb wzr,[A]"),
  (1, "ldrb wzr,[A]"),
  (8, "str xzr,[A]"),
  (8, "ldr xzr,[A]"),
  (1, "sturb w0,[A]"),
  (1, "ldurb w0,[A]"),
  (8, "stur x0,[A]"),
  (8, "ldur x0,[A]"),
  (1, "strb w0,[A,x3]"),
  (1, "ldrb w0,[A,x3]"),
  (1, "stlrb w0,[A]"),
  (1, "ldarb w0,[A]"),
  (4, "stlr w0,[A]"),
  (4, "ldar w0,[A]"),
  (8, "stlr x0,[A]"),
  (8, "ldar x0,[A]"),
  (1, "ldxrb w0,[A]"),
  (1, "ldaxrb w0,[A]"),
  (8, "ldxr x0,[A]"),
  (1, "stxrb w2,w0,[A]"),
  (8, "stxr w2,x0,[A]"),
  (1, "strb w0,[A],#1"),
  (1, "ldrb w0,[A],#1"),
  (1, "strb w0,[A]!"),
  (1, "ldrb w0,[A]!"),
  (8, "stp w0,w2,[A]"),
  (8, "ldp w0,w2,[A]"),
  (16, "stp x0,x2,[A]"),
  (16, "ldp x0,x2,[A]"),
  (1, "str b0,[A]"),
  (1, "ldr b0,[A]"),
  (8, "str d0,[A]"),
  (8, "ldr d0,[A]"),
  (16, "str q0,[A]"),
  (16, "ldr q0,[A]"),
  (1, "prfm pldl1keep,[A]"),
]

/// Every form to which the address is aligned, and behind each form the steps that look at what it did.
private func everyForm(at address: UInt64, then steps: String...) -> [String] {
  instructionForms.filter { address % $0.bytes == 0 }.flatMap { form in
    [guest(form.text, at: address, x0: 0x1234_5678_90ab_cdef)] + steps
  }
}

/// Every instruction form at every kind of address.
func instructionFormScenarios(_ cpu: CPU) -> [ScenarioFile] {
  let machine = Machine(cpu: cpu, backing: .anonymous)
  let registers = [
    ("hide", hideRegister), ("seek", seekRegister), ("plus-2", hideRegister + 2),
    ("plus-3", hideRegister + 3),
  ].map { name, address in
    ScenarioFile(
      "guest-\(cpu.name)-\(name)", "Every instruction form at \(hex(address, digits: 8)).",
      on: machine
    ) {
      store(target)
      hide(0xa5)
      everyForm(at: address, then: seek)
      fetch(address)
    }
  }
  return registers + [
    ScenarioFile(
      "guest-\(cpu.name)-ram",
      "Every instruction form in RAM, with a byte in the entry, and on a page that is not there yet.",
      on: machine
    ) {
      store(target)
      hide(0xa5)
      everyForm(at: target)
      seek
      everyForm(at: pageAddress(3))
      fetch(target)
      fetch(pageAddress(3))
    },
    ScenarioFile(
      "guest-\(cpu.name)-unclaimed", "Every instruction form where neither RAM nor the hook is.",
      on: machine
    ) {
      everyForm(at: unclaimed)
      fetch(unclaimed)
    },
    ScenarioFile(
      "guest-\(cpu.name)-beyond",
      "Beyond RAM, and beyond the range of intermediate physical addresses.", on: machine
    ) {
      for address: UInt64 in [0x4400_0000, 0x3fff_f000, 0x7f_0000_0000, 0xff_ffff_f000] {
        load(address)
        store(address)
        guest("ldp x0,x2,[A]", at: address)
        guest("prfm pldl1keep,[A]", at: address)
        fetch(address)
      }
      for address: UInt64 in [1 << 40, 1 << 43, 1 << 48] {
        load(address)
        store(address)
        guest("ldp x0,x2,[A]", at: address)
        fetch(address)
      }
    },
    ScenarioFile(
      "guest-\(cpu.name)-read-only", "Every instruction form in a read-only slot.", on: machine
    ) {
      host("write", target, leave)
      host("slot delete")
      host("slot add-readonly")
      load(target)
      hide(0xa5)
      everyForm(at: target)
      seek
      everyForm(at: nextBlock)
      fetch(target)
      seek
    },
  ]
}
