import CPageTable
import Glibc
import Stage2Sim

/// A machine, and operations on it.
///
/// The text of a case has one line for the machine and one for each operation. A record of a case is the same text with
/// the observations of each operation below its line, on lines that begin with two spaces. Lines that begin with `#`
/// are comments.
struct Case: Equatable {
  var machine: Machine
  var operations: [Operation]

  init(machine: Machine, operations: [Operation]) {
    self.machine = machine
    self.operations = operations
  }

  /// Parses a case, with or without observations.
  init(_ text: String) throws(CaseError) {
    let lines = text.split(separator: "\n").filter { !$0.hasPrefix("  ") && !$0.hasPrefix("#") }
    guard let first = lines.first else { throw CaseError("the line 'machine' is missing") }
    machine = try Machine(String(first))
    operations = []
    for line in lines.dropFirst() { operations.append(try Operation(String(line))) }
  }
}

extension Machine: CustomStringConvertible {
  var description: String {
    "machine granule=\(granule.name) ipa=\(ipaBits) fwb=\(hasFWB ? "yes" : "no")"
  }

  init(_ text: String) throws(CaseError) {
    let words = text.split(separator: " ")
    guard words.count == 4, words[0] == "machine", words[1].hasPrefix("granule="),
      words[2].hasPrefix("ipa="), words[3] == "fwb=yes" || words[3] == "fwb=no",
      let granule = Granule(name: words[1].dropFirst(8)),
      let ipaBits = Int(words[2].dropFirst(4)), 32...48 ~= ipaBits
    else {
      throw CaseError(
        "'\(text)' is not a machine: write a line such as 'machine granule=4K ipa=40 fwb=no'")
    }
    self.init(granule: granule, ipaBits: ipaBits, hasFWB: words[3] == "fwb=yes")
  }
}

/// The state of a table at one time.
struct Snapshot {
  /// The entries of each page that has been a table.
  var words: [UInt64] = []
  var counts: [UInt32] = []
  var pagesInUse = 0
  /// The events of the last operation.
  var events: [pgtable_event] = []
}

extension Model {
  var snapshot: Snapshot {
    Snapshot(
      words: table.memory.words, counts: table.memory.counts, pagesInUse: table.memory.pagesInUse,
      events: trace.events)
  }
}

/// Makes the record of a table's operations, as lines.
struct Recorder {
  private let granule: Granule
  private var before = Snapshot()

  init(_ granule: Granule) { self.granule = granule }

  /// Returns the record of the model.
  static func record(_ modelled: Case) -> [String] {
    var model = Model(modelled.machine)
    var recorder = Recorder(modelled.machine.granule)
    var lines = ["\(modelled.machine)"] + recorder.changes(to: model.snapshot)
    for operation in modelled.operations {
      let outcome = model.run(operation)
      lines += recorder.lines(operation, outcome, model.snapshot)
    }
    return lines
  }

  /// Returns the record of the kernel's code.
  static func record(_ original: Case, on kernel: KernelLibrary) -> [String] {
    kernel.create(original.machine)
    var recorder = Recorder(original.machine.granule)
    var lines = ["\(original.machine)"] + recorder.changes(to: kernel.snapshot)
    for operation in original.operations {
      let outcome = kernel.run(operation)
      guard !kernel.isLost else {
        return lines + ["\(operation)", "  follows an entry out of table memory"]
      }
      lines += recorder.lines(operation, outcome, kernel.snapshot)
    }
    return lines
  }

  /// Returns the lines of an operation: its result, its events and its changes.
  mutating func lines(_ operation: Operation, _ outcome: Outcome, _ after: Snapshot) -> [String] {
    ["\(operation)", "  result \(describe(outcome, of: operation.kind))"]
      + after.events.map { "  \(describe($0))" } + changes(to: after)
  }

  /// Returns the differences from the snapshot before. Fresh pages begin with zeros.
  mutating func changes(to after: Snapshot) -> [String] {
    var lines: [String] = []
    if after.pagesInUse != before.pagesInUse { lines.append("  pages \(after.pagesInUse)") }
    for (page, count) in after.counts.enumerated()
    where count != (page < before.counts.count ? before.counts[page] : 0) {
      lines.append("  count \(physical(page * granule.entriesPerTable)) \(count)")
    }
    for (word, entry) in after.words.enumerated()
    where entry != (word < before.words.count ? before.words[word] : 0) {
      lines.append("  entry \(physical(word)) \(Stage2Descriptor(rawValue: entry))")
    }
    before = after
    return lines
  }

  private func physical(_ word: Int) -> String {
    hex(TableMemory.base.rawValue + UInt64(word) << 3)
  }

  private func describe(_ outcome: Outcome, of kind: Operation.Kind) -> String {
    guard outcome.error == 0 else {
      return KernelError(rawValue: outcome.error)?.description ?? "errno \(outcome.error)"
    }
    let entry = Stage2Descriptor(rawValue: outcome.value)
    return switch kind {
    case .leaf: "level \(outcome.level) entry \(entry) \(outcome.protection.letters)"
    case .makeYoung, .makeOld: "entry \(entry)"
    case .isYoung: outcome.value != 0 ? "yes" : "no"
    case .hide, .seek: hex(outcome.value)
    default: "0"
    }
  }

  private func describe(_ event: pgtable_event) -> String {
    switch pgtable_event_kind(event.kind) {
    case PGTABLE_INVALIDATE: "tlbi \(hex(event.address)) level \(event.level)"
    case PGTABLE_INVALIDATE_ALL: "tlbi all"
    case PGTABLE_DATA_CACHE: "dcache \(hex(event.address)) \(hex(event.size))"
    default: "icache \(hex(event.address)) \(hex(event.size))"
    }
  }
}
