import Scenarios
import Stage2Sim

/// Events of the host's memory management: the name of each, and its steps.
private let hostEvents: [(name: String, steps: [String])] =
  explainedEvents([
    "dontneed", "dontneed-neighbour", "dontneed-block", "free", "hugepage", "collapse",
    "populate-write", "fork", "fork-write", "protect-none", "protect-read", "protect-neighbour",
    "unmap", "unmap-neighbour", "slot-delete", "slot-move", "dirty-log",
  ]) + [
    ("free-block", [host("madvise free", target, block)]),
    ("nohugepage", [host("madvise nohugepage", target, block)]),
    (
      "split-collapse",
      [host("madvise dontneed", neighbour, page), host("madvise collapse", target, block)]
    ),
    ("populate-read", [host("madvise populate-read", target, block)]),
    (
      "wipe-on-fork",
      [
        host("madvise wipeonfork", target, block), host("fork"), host("write", target, leave),
        host("end-fork"), host("madvise keeponfork", target, block),
      ]
    ),
    ("protect-block", [host("mprotect none", target, block), host("mprotect rw", target, block)]),
    ("unmap-block", [host("munmap", target, block), host("mmap", target, block)]),
    ("age", [host("age", target)]),
    ("age-neighbour", [host("age", neighbour)]),
  ]

/// Events that `virt-walkerd explain` tries, too, by their names.
private func explainedEvents(_ names: [String]) -> [(name: String, steps: [String])] {
  ExplainedEvent.all(on: MachineDescription()).filter { names.contains($0.name) }
    .map { ($0.name, $0.steps.map(\.description)) }
}

/// Each event of the host's memory management, before and after a hide.
func hostEventScenarios(_ cpu: CPUModel, _ backing: Backing) -> [ScenarioFile] {
  hostEvents.map { event in
    ScenarioFile(
      "host-\(cpu.shortName)-\(backing.rawValue)-\(event.name)",
      "What \(event.name) does to the entry and the byte in it, before and after a hide.",
      on: MachineDescription(cpu, backing)
    ) {
      host("write", target, leave)
      store(target)
      load(neighbour)
      event.steps
      load(target)
      hide(0xb1)
      seek
      event.steps
      seek
      load(neighbour)
      load(target)
      seek
      hide(0xfe)
      store(target)
      seek
      event.steps
      store(target)
      seek
      hide(0x4c)
      event.steps
      fetch(target)
      seek
      host("read", target)
    }
  }
}
