import Stage2Sim

/// The writes and TLB invalidations of traced steps as a log for casemate, the checker of break-before-make of the REMS project
/// (github.com/rems-project/casemate, doc/asciidoc/sections/trace-format.adoc).
///
/// casemate knows tables with pages of 4 KiB and one start table. A machine with start tables of level 1 side by side gets one more
/// table above, at the page below the tables, whose entries point to the start tables.
///
/// The barriers and instructions of an invalidation are those of arch/arm64/kvm/hyp/nvhe/tlb.c. An invalidation on one CPU only is left
/// out, because casemate refuses it; KVM uses it for permissions that were relaxed. A range (`ripas2e1is`), which casemate does not know,
/// becomes an invalidation of each of its pages.
public struct CasemateLog {
  /// The lines so far, each with a newline.
  public private(set) var text = ""

  private var number = 0
  /// The place in the scenario as FUNCTION:FILE:LINE, which casemate shows with an error.
  private var source = "start:scenario:1"
  private let root: PhysicalAddress
  private let lock: PhysicalAddress
  private var pages: Set<PhysicalAddress> = []
  private static let pageSize: UInt64 = 0x1000

  /// A log that begins with the tables of a machine; nil for a machine that casemate does not know: with larger pages, or with a start
  /// level of 2.
  ///
  /// - Parameter table: The table of the machine before its first step.
  public init?(of table: Stage2PageTable) {
    guard table.granule == .kib4, table.startLevel <= 1 else { return nil }
    let start = table.baseAddress
    lock = PhysicalAddress(TableMemory.base.rawValue - 2 * Self.pageSize)
    root =
      table.startLevel == 0 ? start : PhysicalAddress(TableMemory.base.rawValue - Self.pageSize)
    for register in ["vtcr_el2", "tcr_el2"] {
      // T0SZ of 48 bits
      add("sysreg-write", "(sysreg \(register)) (value 10)")
    }
    for register in ["mair_el2", "hcr_el2", "sctlr_el2"] {
      add("sysreg-write", "(sysreg \(register)) (value 0)")
    }
    pages.insert(root)
    add("mem-init", "(address \(hex(root))) (size 1000)")
    add("hint", "(kind set_root_lock) (location \(hex(root))) (value \(hex(lock)))")
    if root != start {
      for index in 0..<UInt64(table.rootTables) {
        let below = start &+ index * Self.pageSize
        use(below)
        write(root &+ index << 3, below.rawValue | 0b11)
      }
    }
    table.withTableWords { words in
      for (index, word) in words.enumerated() where word != 0 {
        let entry = TableMemory.base &+ UInt64(index) << 3
        use(entry.aligned(to: Self.pageSize))
        write(entry, word)
      }
    }
    // VMID 1
    add("sysreg-write", "(sysreg vttbr_el2) (value \(hexadecimal(root.rawValue | 1 << 48)))")
    // HCR_EL2.VM
    add("sysreg-write", "(sysreg hcr_el2) (value 1)")
  }

  /// Adds the events of one step. Each walk holds the lock of the tables (`mmu_lock`), as KVM's handlers of faults and notifiers do.
  ///
  /// - Parameters:
  ///   - stops: The events.
  ///   - file: The name of the scenario.
  ///   - line: The line of the step.
  public mutating func append(_ stops: some Sequence<TracedEvent>, file: String, line: Int) {
    let file = file.filter { $0.isASCII && ($0.isLetter || $0.isNumber || "/._-".contains($0)) }
    source = "step:\(file.isEmpty ? "scenario" : file):\(line)"
    add("lock", "(address \(hex(lock)))")
    for stop in stops {
      for change in stop.changes {
        use(change.address.aligned(to: Self.pageSize))
        if let level = change.level, change.new.isTable(level: level) {
          use(change.new.outputAddress(.kib4))
        }
        write(
          change.address, change.new.rawValue,
          releases: !change.old.isValid && change.new.isValid && change.level != nil)
      }
      switch stop.kind {
      case .event(let event): append(event)
      case .walk(.begin):
        add("unlock", "(address \(hex(lock)))")
        add("lock", "(address \(hex(lock)))")
      default: break
      }
    }
    add("unlock", "(address \(hex(lock)))")
  }

  /// Takes the lines so far out of the log.
  public mutating func takeText() -> String {
    defer { text = "" }
    return text
  }

  private mutating func append(_ event: MachineEvent) {
    switch event {
    case .invalidation(let ipa, let level): invalidate(ipa, level: level)
    case .invalidationOfRange(let ipa, let pages):
      for page in 0..<pages { invalidate(ipa &+ page * Self.pageSize, level: 0) }
    case .invalidationOfAll:
      barrier("ishst")
      add("tlbi", "vmalls12e1is")
      barrier("ish")
    default: break
    }
  }

  /// `__kvm_tlb_flush_vmid_ipa`
  private mutating func invalidate(_ ipa: IntermediatePhysicalAddress, level: Int) {
    barrier("ishst")
    // TTL: the granule of 4 KiB and the level.
    let hint: UInt64 = level == 0 ? 0 : 0b100 | UInt64(level)
    add("tlbi", "ipas2e1is (value \(hexadecimal(ipa.rawValue >> 12 | hint << 44)))")
    barrier("ish")
    add("tlbi", "vmalle1is")
    barrier("ish")
  }

  private mutating func barrier(_ kind: String) { add("barrier", "dsb (kind \(kind))") }

  /// - Parameter releases: Whether it is a store-release (`smp_store_release`), as KVM makes an entry valid.
  private mutating func write(
    _ address: PhysicalAddress, _ value: UInt64, releases: Bool = false
  ) {
    add(
      "mem-write",
      "(mem-order \(releases ? "release" : "plain")) (address \(hex(address))) (value \(hexadecimal(value)))"
    )
  }

  /// Begins a page of a table at its first use.
  private mutating func use(_ page: PhysicalAddress) {
    guard pages.insert(page).inserted else { return }
    add("mem-init", "(address \(hex(page))) (size 1000)")
    add("hint", "(kind set_owner_root) (location \(hex(page))) (value \(hex(root)))")
  }

  private mutating func add(_ transition: String, _ fields: String) {
    text += "(\(transition) (id \(number)) (tid 0) \(fields) (src \"\(source)\"))\n"
    number += 1
  }

  private func hex(_ address: PhysicalAddress) -> String { hexadecimal(address.rawValue) }
}
