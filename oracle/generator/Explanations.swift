/// An event that `virt-walkerd explain` tries on a hidden byte.
private struct ExplainedEvent {
  let name: String
  /// Steps before the byte is hidden.
  var preparation: [String] = []
  var byte: UInt64 = 0xb1
  var steps: [String] = []
}

private func explainedEvents(_ backing: Backing) -> [ExplainedEvent] {
  // hugetlb takes whole huge pages only.
  let invalidated = backing == .hugetlb ? block : page
  var events = [
    ExplainedEvent(name: "write", steps: [host("write", target, leave)]),
    ExplainedEvent(name: "ageing", steps: [host("age", target), load(target)]),
    ExplainedEvent(
      name: "dirty-log",
      steps: [host("dirty-log on"), host("dirty-log get"), host("dirty-log off")]),
    ExplainedEvent(name: "dirty-pages", steps: [host("dirty-log on"), store(target)]),
    ExplainedEvent(name: "populate-write", steps: [host("madvise populate-write", target, block)]),
    ExplainedEvent(
      name: "hugepage",
      steps: [host("madvise nohugepage", target, block), host("madvise hugepage", target, block)]),
    ExplainedEvent(
      name: "hugepage-neighbour", preparation: [load(neighbour)],
      steps: [
        host("madvise nohugepage", neighbour, page), host("madvise hugepage", neighbour, page),
      ]),
    ExplainedEvent(
      name: "collapse",
      steps: [host("madvise hugepage", target, block), host("madvise collapse", target, block)]),
    ExplainedEvent(name: "dontneed", steps: [host("madvise dontneed", target, page)]),
    ExplainedEvent(
      name: "dontneed-neighbour", preparation: [load(neighbour)],
      steps: [host("madvise dontneed", neighbour, page)]),
    ExplainedEvent(name: "dontneed-block", steps: [host("madvise dontneed", target, block)]),
    ExplainedEvent(name: "free", steps: [host("madvise free", target, page)]),
    ExplainedEvent(
      name: "protect-read",
      steps: [host("mprotect ro", target, page), host("mprotect rw", target, page)]),
    ExplainedEvent(
      name: "protect-none",
      steps: [host("mprotect none", target, page), host("mprotect rw", target, page)]),
    ExplainedEvent(
      name: "protect-neighbour", preparation: [load(neighbour)],
      steps: [host("mprotect ro", neighbour, page), host("mprotect rw", neighbour, page)]),
    ExplainedEvent(
      name: "unmap", steps: [host("munmap", target, page), host("mmap", target, page)]),
    ExplainedEvent(
      name: "unmap-neighbour", preparation: [load(neighbour)],
      steps: [host("munmap", neighbour, page), host("mmap", neighbour, page)]),
    ExplainedEvent(name: "fork", steps: [host("fork"), host("end-fork")]),
    ExplainedEvent(
      name: "fork-write", steps: [host("fork"), host("write", target, leave), host("end-fork")]),
    ExplainedEvent(
      name: "copy-on-write", preparation: [host("fork"), load(target)], steps: [store(target)]),
    ExplainedEvent(name: "slot-delete", steps: [host("slot delete"), host("slot add")]),
    ExplainedEvent(
      name: "slot-move", steps: [host("slot move", target + 2 * block), host("slot move", target)]),
    ExplainedEvent(
      name: "invalid-entry",
      preparation: [load(neighbour), host("madvise dontneed", target, invalidated)]),
  ]
  if backing.hasMergeablePages {
    events.append(
      ExplainedEvent(
        name: "merge",
        preparation: [
          host("madvise mergeable", pages: 4), host("write", target, 0x77), load(target),
          host("write", neighbour, 0x77), load(neighbour),
        ],
        steps: [host("ksm")]))
  }
  return events
}

private let executeNeighbour = ExplainedEvent(
  name: "execute-neighbour", preparation: [host("write", neighbour, leave), fetch(neighbour)],
  byte: 0x04, steps: [fetch(neighbour)])

private func explanation(_ cpu: CPU, _ backing: Backing, _ event: ExplainedEvent) -> ScenarioFile {
  ScenarioFile(
    "explain-\(cpu.name)-\(backing)-\(event.name)",
    "What \(event.name) does to a byte on the machine that is explained.",
    on: Machine(cpu: cpu, backing: backing)
  ) {
    for address in [target, nextBlock] {
      host("write", address, leave)
      fetch(address)
    }
    event.preparation
    hide(event.byte)
    event.steps
    seek
    load(target)
    seek
  }
}

/// What `virt-walkerd explain` tries, on the machine that it explains.
func explanationScenarios() -> [ScenarioFile] {
  [Backing.anonymous, .huge, .hugetlb, .memfd, .file].flatMap { backing in
    explainedEvents(backing).map { explanation(.a76, backing, $0) }
      + [CPU.a72, .a76, .max].map { explanation($0, backing, executeNeighbour) }
  }
}
