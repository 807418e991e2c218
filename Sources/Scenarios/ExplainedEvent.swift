import Stage2Sim

/// Something that happens to a machine after a byte was hidden, and may cost the byte.
public struct ExplainedEvent: Hashable, Sendable {
  /// As the names of recordings end: `dontneed`.
  public let name: String
  /// For people, in at most 33 characters.
  public let title: String
  /// What is done before the byte is hidden.
  public let preparation: [Step]
  /// The event.
  public let steps: [Step]

  private init(
    _ name: String, _ title: String, _ steps: String..., after preparation: [String] = []
  ) {
    self.name = name
    self.title = title
    self.steps = steps.map(Step.init(constant:))
    self.preparation = preparation.map(Step.init(constant:))
  }

  /// A load from the page.
  public static let load = ExplainedEvent(
    "load", "guest loads", "guest ldr w0,[0x40000000]")
  /// A store to the page.
  public static let store = ExplainedEvent(
    "store", "guest stores", "guest str w0,[0x40000000] x0=0xf900013f")
  /// A fetch of an instruction from the page.
  public static let execute = ExplainedEvent(
    "execute", "guest executes", "guest fetch 0x40000000")
  /// A fetch from the page behind, which in a block has the same entry.
  public static let executeNeighbour = ExplainedEvent(
    "execute-neighbour", "guest executes in the next page", "guest fetch 0x40001000",
    after: ["host write 0x40001000 0xf900013f", "guest fetch 0x40001000"])

  /// ``load``, ``store`` and ``execute``.
  public static let accesses = [load, store, execute]

  /// The events of a machine, those of its guest first.
  ///
  /// - Returns: All, but for KSM where no memory is anonymous: it would scan for ever.
  public static func all(on machine: MachineDescription) -> [ExplainedEvent] {
    accesses + [executeNeighbour]
      + host.filter {
        $0 != merge || ![.hugetlb, .memfd].contains(machine.backing)
      }
  }

  private static let neighbourInUse = ["guest ldr w0,[0x40001000]"]

  private static let merge = ExplainedEvent(
    "merge", "KSM merges the page", "host ksm",
    after: [
      "host madvise mergeable 0x40000000 0x4000",
      "host write 0x40000000 0x77", "guest ldr w0,[0x40000000]",
      "host write 0x40001000 0x77", "guest ldr w0,[0x40001000]",
    ])

  private static let host: [ExplainedEvent] = [
    ExplainedEvent("write", "VMM writes to the page", "host write 0x40000000 0xf900013f"),
    ExplainedEvent(
      "ageing", "page made old, guest loads",
      "host age 0x40000000", "guest ldr w0,[0x40000000]"),
    ExplainedEvent(
      "dirty-log", "dirty log on, read, off",
      "host dirty-log on", "host dirty-log get", "host dirty-log off"),
    ExplainedEvent(
      "dirty-pages", "dirty log on, guest stores",
      "host dirty-log on", "guest str w0,[0x40000000] x0=0xf900013f"),
    ExplainedEvent(
      "populate-write", "madvise populate-write, 2 MiB",
      "host madvise populate-write 0x40000000 0x200000"),
    ExplainedEvent(
      "hugepage", "madvise no-, hugepage, 2 MiB",
      "host madvise nohugepage 0x40000000 0x200000",
      "host madvise hugepage 0x40000000 0x200000"),
    ExplainedEvent(
      "hugepage-neighbour", "madvise no-, hugepage, next page",
      "host madvise nohugepage 0x40001000 0x1000",
      "host madvise hugepage 0x40001000 0x1000", after: neighbourInUse),
    ExplainedEvent(
      "collapse", "madvise collapse, 2 MiB",
      "host madvise hugepage 0x40000000 0x200000",
      "host madvise collapse 0x40000000 0x200000"),
    ExplainedEvent(
      "dontneed", "madvise dontneed", "host madvise dontneed 0x40000000 0x1000"),
    ExplainedEvent(
      "dontneed-neighbour", "madvise dontneed, next page",
      "host madvise dontneed 0x40001000 0x1000", after: neighbourInUse),
    ExplainedEvent(
      "dontneed-block", "madvise dontneed, 2 MiB",
      "host madvise dontneed 0x40000000 0x200000"),
    ExplainedEvent("free", "madvise free", "host madvise free 0x40000000 0x1000"),
    ExplainedEvent(
      "protect-read", "mprotect read-only and back",
      "host mprotect ro 0x40000000 0x1000", "host mprotect rw 0x40000000 0x1000"),
    ExplainedEvent(
      "protect-none", "mprotect none and back",
      "host mprotect none 0x40000000 0x1000", "host mprotect rw 0x40000000 0x1000"),
    ExplainedEvent(
      "protect-neighbour", "mprotect ro and back, next page",
      "host mprotect ro 0x40001000 0x1000", "host mprotect rw 0x40001000 0x1000",
      after: neighbourInUse),
    ExplainedEvent(
      "unmap", "munmap and mmap",
      "host munmap 0x40000000 0x1000", "host mmap 0x40000000 0x1000"),
    ExplainedEvent(
      "unmap-neighbour", "munmap and mmap, next page",
      "host munmap 0x40001000 0x1000", "host mmap 0x40001000 0x1000", after: neighbourInUse),
    ExplainedEvent("fork", "fork and exit", "host fork", "host end-fork"),
    ExplainedEvent(
      "fork-write", "fork, VMM writes, exit",
      "host fork", "host write 0x40000000 0xf900013f", "host end-fork"),
    ExplainedEvent(
      "copy-on-write", "guest stores, page shared by fork",
      "guest str w0,[0x40000000] x0=0xf900013f",
      after: ["host fork", "guest ldr w0,[0x40000000]"]),
    merge,
    ExplainedEvent("slot-delete", "slot deleted and added", "host slot delete", "host slot add"),
    ExplainedEvent(
      "slot-move", "slot moved and moved back",
      "host slot move 0x40400000", "host slot move 0x40000000"),
  ]

  /// The name of the recording of the real kernel that has the event after a hide.
  ///
  /// It is of this machine, but where the CPU makes no difference of cortex-a76, and where the page makes none of
  /// anonymous pages or huge ones.
  public func recording(for machine: MachineDescription) -> String {
    let cpu =
      switch machine.cpu {
      case .cortexA72: "a72"
      case .cortexA76: "a76"
      case .max: "max"
      }
    if Self.accesses.contains(self) {
      let isBlock = [.huge, .hugetlb].contains(machine.backing)
      return "bytes-\(cpu)-\(isBlock ? "huge" : "page")"
    }
    return
      "explain-\(self == .executeNeighbour ? cpu : "a76")-\(machine.backing.rawValue)-\(name)"
  }
}

extension Step {
  /// A step that stands in the source.
  init(constant text: String) {
    do {
      try self.init(parsing: text)
    } catch {
      preconditionFailure("\(text): \(error)")
    }
  }
}
