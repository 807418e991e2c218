import Scenarios
import Stage2Sim

/// Every instruction for which the address is aligned, each with the steps that look at its effect.
private func everyForm(at address: UInt64, then steps: String...) -> [String] {
  Instruction.all.filter { address % $0.alignment == 0 }.flatMap { instruction in
    [guest(instruction.text("A"), at: address, x0: 0x1234_5678_90ab_cdef)] + steps
  }
}

/// Every instruction form at every kind of address.
func instructionFormScenarios(_ cpu: CPUModel) -> [ScenarioFile] {
  let machine = MachineDescription(cpu, .anonymous)
  let registers = [
    ("hide", hideRegister), ("seek", seekRegister), ("plus-2", hideRegister + 2),
    ("plus-3", hideRegister + 3),
  ].map { name, address in
    ScenarioFile(
      "guest-\(cpu.shortName)-\(name)", "Every instruction form at \(hex(address, digits: 8)).",
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
      "guest-\(cpu.shortName)-ram",
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
      "guest-\(cpu.shortName)-unclaimed",
      "Every instruction form where neither RAM nor the hook is.",
      on: machine
    ) {
      everyForm(at: unclaimed)
      fetch(unclaimed)
    },
    ScenarioFile(
      "guest-\(cpu.shortName)-beyond",
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
      "guest-\(cpu.shortName)-read-only", "Every instruction form in a read-only slot.", on: machine
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
