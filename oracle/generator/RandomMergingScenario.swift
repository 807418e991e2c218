import Scenarios
import Stage2Sim

/// A scenario of random steps on many equal pages: KSM merges them, and guest and host make them different.
func randomMergingScenario(seed: Int, steps: Int) -> ScenarioFile {
  let backings = [Backing.anonymous, .anonymous, .anonymous, .huge, .file]
  var sequence = RandomMergingSteps(chance: ParkMiller(seed: seed))
  sequence.addSteps(upTo: steps)
  // The recording has this old name of the program in its text.
  return ScenarioFile(
    "random-merging-\(seed)",
    "Equal pages by chance: scripts/oracle/generate --random-merging \(seed) \(steps)",
    on: MachineDescription(.cortexA76, backings[seed % 5], memory: 8), steps: sequence.lines)
}

private struct RandomMergingSteps {
  var chance: ParkMiller
  private(set) var lines: [String] = []
  private var hasChild = false

  init(chance: ParkMiller) { self.chance = chance }

  mutating func addSteps(upTo count: Int) {
    addCall("madvise populate-write")
    lines.append(
      host("madvise mergeable", pages: chance.one(of: [1, 256, 257, 300, 512, 515, 1024])))
    while lines.count < count { addStep() }
  }

  private mutating func somePage() -> UInt64 {
    pageAddress(
      chance.one(of: [
        0, 0, 0, 1, 2, 3, 100, 254, 255, 256, 257, 258, 299, 300, 511, 512, 513, 514, 600, 768,
        769, 811, 1023,
      ]))
  }

  /// Adds a call on a random range of pages.
  private mutating func addCall(_ call: String) {
    let first: UInt64 = chance.one(of: [0, 0, 0, 1, 2, 100, 255, 256, 300, 512, 512])
    let count: UInt64 = chance.one(of: [1, 1, 2, 3, 20, 255, 256, 257, 258, 300, 512, 513, 770])
    lines.append(host(call, pages: count, from: first))
  }

  private mutating func addStep() {
    switch chance.below(40) {
    case ..<8: lines.append(host("ksm"))
    case ..<12: lines.append(host("write", somePage(), chance.one(of: [0x0, 0x0, 0x0, 0x1, 0x77])))
    case ..<20: lines.append(load(somePage()))
    case ..<23:
      let address = somePage()
      lines.append(store(chance.one(of: [0x0, 0x0, 0x1]), to: address))
    case ..<27: addCall("madvise populate-write")
    case ..<30: addCall("madvise mergeable")
    case 30: addCall("madvise unmergeable")
    case ..<33: addCall("madvise dontneed")
    case 33: addCall("madvise populate-read")
    case 34: lines.append(host("age", somePage()))
    case ..<37:
      lines.append(host(hasChild ? "end-fork" : "fork"))
      hasChild.toggle()
    case 37:
      // The load before the hide makes the entry map a page, as in the other random scenarios.
      lines += [
        guest("ldrb w0,[A]", at: target), hide(literal: "\(chance.below(256))"), host("ksm"), seek,
      ]
    case 38:
      lines += [
        host("mprotect ro", pages: 257), host("ksm"), host("mprotect rw", pages: 257),
      ]
    default:
      lines += [host("munmap", pages: 300, from: 512), host("mmap", pages: 300, from: 512)]
    }
  }
}
