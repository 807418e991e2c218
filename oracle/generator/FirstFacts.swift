import Scenarios
import Stage2Sim

/// The first facts about the hook, which were found out with the code in the same block as the target.
func firstFacts(_ cpu: CPUModel) -> [ScenarioFile] {
  [("page", Backing.anonymous), ("huge", .huge)].flatMap { name, backing in
    var machine = MachineDescription(cpu, backing)
    machine.code = .init(neighbour)
    return [
      ScenarioFile(
        "facts-\(cpu.shortName)-\(name)",
        "What was first found out about the hook, with the code in the same block as the target.",
        on: machine, steps: theFirstFacts),
      // This scenario stands alone. The scenario above hides a byte into an entry that maps nothing, so that the table has a
      // reference too few. If the host unmapped the whole table then, the table would be freed in use, and the host would crash.
      ScenarioFile(
        "facts-\(cpu.shortName)-\(name)-slot", "The byte does not survive the slot.", on: machine
      ) {
        store(target)
        hide(0x6b)
        host("slot delete")
        host("slot add")
        seek
      },
    ]
  }
}

private var theFirstFacts: [String] { entryFacts + accessFacts + memoryFacts }

/// The bits of the entry that the byte changes.
@StepsBuilder private var entryFacts: [String] {
  hide(0x1241)
  seek
  load(target)
  seek
  hide(0x5a)
  seek
  store(0x7, to: target)
  seek
  hide(0xff)
  seek
  store(0x7, to: target)
  seek
  host("write", target, leave)
  fetch(target)
  seek
  for bit in 0..<8 {
    hide(1 << UInt64(bit))
    load(target)
    fetch(target)
    seek
  }
  hide(0x00)
  seek
}

/// Accesses to the registers that are not a store of a byte to HIDE and a load of a byte from SEEK.
@StepsBuilder private var accessFacts: [String] {
  guest("ldrb w0,[A]", at: hideRegister, x0: 0xaaaa)
  guest("strb w0,[A]", at: seekRegister, x0: 0x77)
  seek
  guest("ldrb w0,[A]", at: hideRegister + 2, x0: 0xaaaa)
  guest("strb w0,[A]", at: hideRegister + 2, x0: 0x77)
  guest("ldrb w0,[A]", at: hideRegister + 3, x0: 0xaaaa)
  guest("strh w0,[A]", at: hideRegister, x0: 0x4242)
  seek
  guest("str w0,[A]", at: hideRegister, x0: 0x4242)
  guest("ldrh w0,[A]", at: hideRegister, x0: 0x1)
  guest("str x0,[A]", at: hideRegister, x0: 0x1)
  hide(0x80)
  guest("ldrsb x0,[A]", at: seekRegister)
  guest("ldrsb w0,[A]", at: seekRegister)
  guest("strb wzr,[A]", at: hideRegister, x0: 0x99)
  seek
  guest("strb w0,[A],#1", at: hideRegister, x0: 0x33)
  guest("ldp w0,w2,[A]", at: hideRegister, x0: 0x33)
  guest("stlrb w0,[A]", at: hideRegister, x0: 0x21)
  seek
}

/// Events of the host that the byte does or does not survive.
@StepsBuilder private var memoryFacts: [String] {
  hide(0x6b)
  host("madvise dontneed", target, page)
  seek
  load(target)
  seek
  store(target)
  seek
  hide(0x6b)
  host("dirty-log on")
  seek
  store(target)
  seek
  host("dirty-log off")
  seek
  hide(0x6b)
  host("mprotect ro", target, page)
  host("mprotect rw", target, page)
  seek
  store(target)
  seek
}
