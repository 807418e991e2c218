import Scenarios
import Stage2Sim

/// A scenario of random steps at few addresses, so that they affect one another.
func randomScenario(seed: Int, steps: Int) -> ScenarioFile {
  var chance = ParkMiller(seed: seed)
  let cpus = [CPUModel.cortexA76, .cortexA72, .cortexA76, .cortexA72, .max]
  let backings = [Backing.anonymous, .huge, .memfd, .file, .hugetlb]
  var machine = MachineDescription(cpus[seed % 5], backings[seed / 5 % 5])
  if machine.configuration.cpu != .cortexA76 && chance.below(3) == 0 {
    machine.configuration.ipaBits = 44
  }
  var sequence = RandomSteps(backing: machine.configuration.backing, chance: chance)
  sequence.addSteps(upTo: steps)
  // The recordings have this old name of the program in their text.
  return ScenarioFile(
    randomName(seed),
    "Steps by chance: scripts/oracle/generate --random \(seed) \(steps)", on: machine,
    steps: sequence.lines)
}

private func randomName(_ seed: Int) -> String {
  "random-" + String(repeating: "0", count: max(0, 3 - "\(seed)".count)) + "\(seed)"
}

/// A sequence of steps, and the state of the machine that decides over the next step.
///
/// A byte in an entry that maps nothing makes the reference count of the table too low. If more than a page of the table is
/// unmapped afterwards, the kernel frees the table in use. Therefore the target is mapped before a hide if possible, and only one
/// byte near the end is hidden without that.
private struct RandomSteps {
  let backing: Backing
  var chance: ParkMiller
  private(set) var lines: [String] = []

  /// Whether the entry of the target maps a page, according to the last steps.
  private var isMapped = false
  private var slotIsDeleted = false
  private var targetIsUnmapped = false
  private var targetIsProtected = false
  private var wasUnmapped = false
  private var hasChild = false
  /// Whether the end is near. No step unmaps more than a page then.
  private var isEnding = false

  init(backing: Backing, chance: ParkMiller) {
    self.backing = backing
    self.chance = chance
  }

  mutating func addSteps(upTo count: Int) {
    while lines.count < count {
      let wasEnding = isEnding
      isEnding = lines.count > count - 12
      let number = chance.below(20)
      if isEnding && !wasEnding {
        addHide()
      } else if isEnding && number < 4 {
        lines.append(seek)
      } else if number < 4 {
        addHide()
      } else if number < 7 {
        lines.append(seek)
      } else if number < 13 {
        addGuestStep()
      } else if isEnding {
        addSmallHostStep()
      } else {
        addHostStep()
      }
    }
  }

  /// A random page of few. The target is more frequent than the others.
  private mutating func somePage() -> UInt64 {
    chance.one(of: [
      target, target, target, neighbour, pageAddress(2), nextBlock, nextBlock + page,
      target + 2 * block,
    ])
  }

  private mutating func someRange() -> (address: UInt64, size: UInt64) {
    if backing == .hugetlb {
      // The kernel refuses parts of a huge page of hugetlbfs.
      return chance.one(of: [(target, block), (nextBlock, block), (target, 3 * block)])
    }
    return chance.one(of: [
      (target, page), (target, page), (target, 2 * page), (neighbour, page),
      (pageAddress(2), page), (nextBlock, page), (target, block), (nextBlock, block),
      (target, 3 * block),
    ])
  }

  private mutating func addHide() {
    guard !slotIsDeleted && !targetIsUnmapped && !targetIsProtected else { return }
    if !isMapped && !isEnding { lines.append(guest("ldrb w0,[A]", at: target)) }
    lines.append(hide(literal: "\(chance.below(256))"))
    isMapped = true
  }

  private mutating func addGuestStep() {
    switch chance.below(10) {
    case ..<4:
      let form = chance.one(of: [
        "ldr w0", "ldrb w0", "ldr x0", "ldrsh x0", "ldar w0", "ldxr x0", "ldr q0", "ldp x0,x2",
      ])
      lines.append(guest("\(form),[A]", at: somePage()))
    case ..<7:
      let form = chance.one(of: ["str w0", "strb w0", "str x0", "stlr w0", "str xzr", "stp x0,x2"])
      lines.append(guest("\(form),[A]", at: somePage()) + " x0=\(chance.below(65536))")
      isMapped = false
    case 7:
      lines.append(store(somePage()))
      isMapped = false
    case 8:
      lines.append(fetch(somePage()))
    default:
      let (form, address) = chance.one(of: [
        ("strh w0", hideRegister), ("ldrb w0", hideRegister), ("strb w0", hideRegister + 2),
        ("ldr w0", unclaimed), ("str x0", unclaimed), ("ldp x0,x2", hideRegister),
        ("ldrb w0", 0x4400_0000), ("prfm pldl1keep", pageAddress(2)),
      ])
      lines.append(guest("\(form),[A]", at: address))
    }
  }

  private mutating func addHostStep() {
    switch chance.below(30) {
    case ..<10: addSmallHostStep()
    case ..<14: addCall("madvise dontneed")
    case ..<17: addCall("madvise " + chance.one(of: ["free", "populate-read", "populate-write"]))
    case ..<20: addCall("madvise " + chance.one(of: ["hugepage", "nohugepage", "collapse"]))
    case ..<23:
      let protection = chance.one(of: ["none", "ro", "rw", "rw"])
      if addCall("mprotect \(protection)") { targetIsProtected = protection == "none" }
    case 23:
      wasUnmapped = true
      if addCall("munmap") { targetIsUnmapped = true }
    case ..<26:
      if addCall("mmap") {
        targetIsUnmapped = false
        targetIsProtected = false
      }
    case ..<28:
      lines.append(host(hasChild ? "end-fork" : "fork"))
      hasChild.toggle()
    case 28 where !wasUnmapped && backing.hasMergeablePages:
      lines += [host("madvise mergeable", pages: 3), host("ksm")]
    case 28: addSlotStep()
    default:
      if slotIsDeleted || chance.below(2) == 1 { addSlotStep() } else { moveSlot() }
    }
    isMapped = false
  }

  /// Adds a step that unmaps one page at most.
  private mutating func addSmallHostStep() {
    switch chance.below(5) {
    case ..<2:
      lines.append(host("write", somePage(), chance.one(of: [leave, 0x1, 0x0])))
    case 2: lines.append(host("read", somePage()))
    case 3: lines.append(host("age", somePage()))
    case _ where isEnding: lines.append(host("madvise dontneed", somePage(), page))
    default: lines.append(host("dirty-log " + chance.one(of: ["on", "get", "get", "off"])))
    }
    isMapped = false
  }

  /// Adds a call on a random range, and returns whether the range begins at the target.
  @discardableResult private mutating func addCall(_ call: String) -> Bool {
    let range = someRange()
    lines.append(host(call, range.address, range.size))
    isMapped = false
    return range.address == target
  }

  private mutating func addSlotStep() {
    if slotIsDeleted {
      lines.append(host("slot " + chance.one(of: ["add", "add", "add-readonly"])))
    } else {
      lines.append(host("slot delete"))
    }
    slotIsDeleted.toggle()
  }

  private mutating func moveSlot() {
    let elsewhere = target + 2 * block
    lines += [
      host("slot move", elsewhere), load(target), store(0x2, to: elsewhere),
      host("slot move", target),
    ]
  }
}
