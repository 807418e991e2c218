/// Events of the host's memory management: the name of each, and its steps.
private let hostEvents: [(name: String, steps: [String])] = [
  ("dontneed", [host("madvise dontneed", target, page)]),
  ("dontneed-neighbour", [host("madvise dontneed", neighbour, page)]),
  ("dontneed-block", [host("madvise dontneed", target, block)]),
  ("free", [host("madvise free", target, page)]),
  ("free-block", [host("madvise free", target, block)]),
  ("nohugepage", [host("madvise nohugepage", target, block)]),
  (
    "hugepage",
    [host("madvise nohugepage", target, block), host("madvise hugepage", target, block)]
  ),
  (
    "collapse",
    [host("madvise hugepage", target, block), host("madvise collapse", target, block)]
  ),
  (
    "split-collapse",
    [host("madvise dontneed", neighbour, page), host("madvise collapse", target, block)]
  ),
  ("populate-read", [host("madvise populate-read", target, block)]),
  ("populate-write", [host("madvise populate-write", target, block)]),
  ("fork", [host("fork"), host("end-fork")]),
  ("fork-write", [host("fork"), host("write", target, leave), host("end-fork")]),
  (
    "wipe-on-fork",
    [
      host("madvise wipeonfork", target, block), host("fork"), host("write", target, leave),
      host("end-fork"), host("madvise keeponfork", target, block),
    ]
  ),
  ("protect-none", [host("mprotect none", target, page), host("mprotect rw", target, page)]),
  ("protect-read", [host("mprotect ro", target, page), host("mprotect rw", target, page)]),
  (
    "protect-neighbour",
    [host("mprotect ro", neighbour, page), host("mprotect rw", neighbour, page)]
  ),
  ("protect-block", [host("mprotect none", target, block), host("mprotect rw", target, block)]),
  ("unmap", [host("munmap", target, page), host("mmap", target, page)]),
  ("unmap-neighbour", [host("munmap", neighbour, page), host("mmap", neighbour, page)]),
  ("unmap-block", [host("munmap", target, block), host("mmap", target, block)]),
  ("age", [host("age", target)]),
  ("age-neighbour", [host("age", neighbour)]),
  ("slot-delete", [host("slot delete"), host("slot add")]),
  ("slot-move", [host("slot move", target + 2 * block), host("slot move", target)]),
  ("dirty-log", [host("dirty-log on"), host("dirty-log get"), host("dirty-log off")]),
]

/// Each event of the host's memory management, before and after a hide.
func hostEventScenarios(_ cpu: CPU, _ backing: Backing) -> [ScenarioFile] {
  hostEvents.map { event in
    ScenarioFile(
      "host-\(cpu.name)-\(backing)-\(event.name)",
      "What \(event.name) does to the entry and the byte in it, before and after a hide.",
      on: Machine(cpu: cpu, backing: backing)
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
