import Stage2Sim

/// An event on a machine after a byte was hidden. The event may change or lose the byte.
public struct ExplainedEvent: Hashable, Sendable {
  /// The end of the name of its recordings: `dontneed`.
  public let name: String
  /// The event in words for people, at most 33 characters.
  public let title: String
  /// The steps before the byte is hidden.
  public let preparation: [Step]
  /// The steps of the event.
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
  /// A fetch from the next page, which has the same entry if the entry maps a block.
  public static func executeNeighbour(_ granule: Granule) -> ExplainedEvent {
    let page = address(MachineDescription.memoryBase + granule.pageSize)
    return ExplainedEvent(
      "execute-neighbour", "guest executes in the next page", "guest fetch \(page)",
      after: ["host write \(page) 0xf900013f", "guest fetch \(page)"])
  }

  /// ``load``, ``store`` and ``execute``.
  public static let accesses = [load, store, execute]

  /// The events of a machine. The events of its guest come first.
  ///
  /// - Returns: All events, but without KSM if it has nothing to merge.
  public static func all(on machine: MachineDescription) -> [ExplainedEvent] {
    accesses + [executeNeighbour(machine.configuration.granule)]
      + host(of: machine).filter {
        $0.name != "merge" || machine.configuration.backing.hasMergeablePages
      }
  }

  private static func merge(_ granule: Granule) -> ExplainedEvent {
    let next = address(MachineDescription.memoryBase + granule.pageSize)
    return ExplainedEvent(
      "merge", "KSM merges the page", "host ksm",
      after: [
        "host madvise mergeable 0x40000000 \(hex(4 * granule.pageSize))",
        "host write 0x40000000 0x77", "guest ldr w0,[0x40000000]",
        "host write \(next) 0x77", "guest ldr w0,[\(next)]",
      ])
  }

  private static func host(of machine: MachineDescription) -> [ExplainedEvent] {
    let granule = machine.configuration.granule
    let page = hex(granule.pageSize)
    // Guest RAM may be smaller than a huge page of 512 MiB.
    let size = min(granule.blockSize, machine.configuration.memorySize)
    let block = hex(size)
    let next = address(MachineDescription.memoryBase + granule.pageSize)
    let blockSize = "\(size >> 20) MiB"
    let neighbourInUse = ["guest ldr w0,[\(next)]"]
    return [
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
        "populate-write", "madvise populate-write, \(blockSize)",
        "host madvise populate-write 0x40000000 \(block)"),
      ExplainedEvent(
        "hugepage", "madvise no-, hugepage, \(blockSize)",
        "host madvise nohugepage 0x40000000 \(block)",
        "host madvise hugepage 0x40000000 \(block)"),
      ExplainedEvent(
        "hugepage-neighbour", "madvise no-, hugepage, next page",
        "host madvise nohugepage \(next) \(page)",
        "host madvise hugepage \(next) \(page)", after: neighbourInUse),
      ExplainedEvent(
        "collapse", "madvise collapse, \(blockSize)",
        "host madvise hugepage 0x40000000 \(block)",
        "host madvise collapse 0x40000000 \(block)"),
      ExplainedEvent(
        "dontneed", "madvise dontneed", "host madvise dontneed 0x40000000 \(page)"),
      ExplainedEvent(
        "dontneed-neighbour", "madvise dontneed, next page",
        "host madvise dontneed \(next) \(page)", after: neighbourInUse),
      ExplainedEvent(
        "dontneed-block", "madvise dontneed, \(blockSize)",
        "host madvise dontneed 0x40000000 \(block)"),
      ExplainedEvent("free", "madvise free", "host madvise free 0x40000000 \(page)"),
      ExplainedEvent(
        "protect-read", "mprotect read-only and back",
        "host mprotect ro 0x40000000 \(page)", "host mprotect rw 0x40000000 \(page)"),
      ExplainedEvent(
        "protect-none", "mprotect none and back",
        "host mprotect none 0x40000000 \(page)", "host mprotect rw 0x40000000 \(page)"),
      ExplainedEvent(
        "protect-neighbour", "mprotect ro and back, next page",
        "host mprotect ro \(next) \(page)", "host mprotect rw \(next) \(page)",
        after: neighbourInUse),
      ExplainedEvent(
        "unmap", "munmap and mmap",
        "host munmap 0x40000000 \(page)", "host mmap 0x40000000 \(page)"),
      ExplainedEvent(
        "unmap-neighbour", "munmap and mmap, next page",
        "host munmap \(next) \(page)", "host mmap \(next) \(page)", after: neighbourInUse),
      ExplainedEvent("fork", "fork and exit", "host fork", "host end-fork"),
      ExplainedEvent(
        "fork-write", "fork, VMM writes, exit",
        "host fork", "host write 0x40000000 0xf900013f", "host end-fork"),
      ExplainedEvent(
        "copy-on-write", "guest stores, page shared by fork",
        "guest str w0,[0x40000000] x0=0xf900013f",
        after: ["host fork", "guest ldr w0,[0x40000000]"]),
      merge(granule),
      ExplainedEvent("slot-delete", "slot deleted and added", "host slot delete", "host slot add"),
      ExplainedEvent(
        "slot-move", "slot moved and moved back",
        "host slot move 0x40400000", "host slot move 0x40000000"),
    ]
  }

  /// The name of the recording of the real kernel that has the event after a hide; nil if there is no such recording. All
  /// recordings are of pages of 4 KiB and 40 bits of IPA.
  ///
  /// The recorded machine may have another CPU model if the event does not depend on the CPU: cortex-a76. It may have another
  /// backing if the event depends only on the size of the page: anonymous or huge.
  public func recording(for machine: MachineDescription) -> String? {
    let machine = machine.configuration
    guard machine.granule == .kib4 else { return nil }
    if Self.accesses.contains(self) {
      let isBlock = [.huge, .hugetlb].contains(machine.backing)
      return "bytes-\(machine.cpu.shortName)-\(isBlock ? "huge" : "page")"
    }
    // The CPU model matters only to the events that execute.
    let cpu = name == "execute-neighbour" ? machine.cpu : .cortexA76
    return "explain-\(cpu.shortName)-\(machine.backing.rawValue)-\(name)"
  }
}

extension CPUModel {
  /// The CPU model as the names of recordings have it: `a76`.
  package var shortName: String {
    switch self {
    case .cortexA72: "a72"
    case .cortexA76: "a76"
    case .max: "max"
    }
  }
}

extension Backing {
  /// Whether KSM finds pages to merge: pages of anonymous areas, and pages that a private mapping of a file has of its own.
  ///
  /// KSM has nothing to do for other memory, and a scenario would wait for it without end.
  package var hasMergeablePages: Bool { self != .hugetlb && self != .memfd }
}

extension Step {
  /// A step whose text is part of this program.
  init(constant text: String) {
    do {
      try self.init(parsing: text)
    } catch {
      preconditionFailure("\(text): \(error)")
    }
  }
}
