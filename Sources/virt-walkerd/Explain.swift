import ArgumentParser
import Scenarios
import Stage2Sim
import UserCode

struct Explain: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "explain",
    abstract:
      "Explain the effects of hiding a byte in the entry, and the events that keep or lose the byte.",
    discussion: """
      The machine is the machine that serve starts with the same options. With hugetlb, it has at least one huge page. The \
      guest has booted, and has executed from the page at 0x40000000. The command prints the behaviour of the model after \
      that. Beside an event is the name of a recording of the same event on the real kernel (Tests/Recordings in the \
      source). The recordings have 40 bits of IPA. There are none for pages of 16 or 64 KiB.

      The output begins with the entry and its eight bits. A star marks a bit that changes. Then come the events. Each \
      event is tried separately after the hide. After "kept", the byte is unchanged. After "changed", the entry remains \
      with another byte. After "lost", the entry is gone: SEEK gives the first value, and after one more load of the \
      guest the second value. "Refused" means that the host's kernel does not do this to such memory. The next page is \
      the following page in the range of the same huge page.

      The warnings have these names with --all. bbm: break-before-make is violated, and the CPU may use the old entry, \
      the new entry, or both. tlb: the permissions of the entry have changed without a TLB invalidation, and the CPU may \
      continue with the old permissions. hang: the guest takes the same fault for ever. ref: the byte is in an entry that \
      maps nothing, and the reference count of its table gets too low. The recordings were made on QEMU, on which bbm and \
      tlb do no harm. On hardware, they may.

      A byte is harmless if it has no warning except ref, and if loads, stores and fetches keep it.

      Exit status: 0 success; 64 wrong usage; 65 the code of --hook does not compile; 69 the model does not support the machine; 71 a system error; 73 or 77 the page of --page cannot be written.
      """)

  @Argument(
    help: "The byte: 0 to 255, 0x00 to 0xff or 0b00000000 to 0b11111111.",
    transform: Explain.parseByte)
  var byte: UInt8?

  @Flag(help: "Print a table of all 256 bytes.")
  var all = false

  @Option(
    help: ArgumentHelp(
      "The version of Linux on the host, or all for one table with all versions side by side. (values: \((KernelVersion.allValueStrings + ["all"]).joined(separator: ", ")); default: \(KernelVersion.standard.rawValue))",
      valueName: "version"),
    transform: Explain.parseVersions)
  var kernel = [KernelVersion.standard]

  @Option(
    help: ArgumentHelp(
      "Write a page in HTML to this file, and print nothing about the byte. The page plays each event after a hide of the byte step by step in a browser. (default: no page)",
      valueName: "file"))
  var page: String?

  @OptionGroup var host: HostOptions

  @OptionGroup(title: "Your own code") var ownHook: HookOptions

  func validate() throws {
    guard page != "" else { throw ValidationError("an empty name is not a file") }
    guard page == nil || !all else {
      throw ValidationError("--page shows one byte, and --all prints a table: give one of them")
    }
    try ownHook.requireCode(ownHook.isGiven, by: "--hook")
    guard (byte == nil) == all else {
      throw ValidationError(
        "give a byte to explain, such as 0x41, or --all, and not both")
    }
    guard !all || kernel.count == 1 else {
      throw ValidationError("--all is a table of one version, and --kernel all one of a byte")
    }
  }

  func run() throws {
    try reportingFailures {
      let file = try page.map { try PageFile($0) }
      let hook = try HookRunner(ownHook)
      let explainers = try kernel.map { try makeExplainer($0, hook) }
      let explainer = explainers[0]
      if let byte, let file {
        try writePage(of: byte, explainers, to: file, hook)
      } else if let byte, explainers.count > 1 {
        try write(tableOfVersions(try explainers.map { ($0.machine, try $0.explain(byte)) }))
      } else if let byte {
        try write(explainer.explain(byte).report(on: explainer.machine))
      } else {
        let explanations = try (0...UInt8.max).map {
          try explainer.explain($0, events: ExplainedEvent.accesses)
        }
        try write(tableOfAll(explanations, on: explainer.machine))
      }
    }
  }

  /// Writes a page that plays each event, with a machine for each event and version.
  private func writePage(
    of byte: UInt8, _ explainers: [Explainer], to file: PageFile, _ hook: HookRunner?
  ) throws {
    var pages = PageBuilder(hook)
    let explanations = try explainers.map { try $0.explain(byte) }
    for index in explanations[0].outcomes.indices {
      for (explainer, explanation) in zip(explainers, explanations) {
        let outcome = explanation.outcomes[index]
        let version = explainer.machine.configuration.kernel.rawValue
        let recording = outcome.event.recording(for: explainer.machine)
        try pages.add(
          explainer.machine, explainer.steps(of: outcome.event, hiding: byte),
          named: outcome.event.title + (explainers.count > 1 ? ", Linux \(version)" : ""),
          notes: ["the byte 0x\(hex(byte)): \(outcome.words)"]
            + (recording.map { ["recorded on the real kernel: \($0)"] } ?? []))
      }
    }
    try pages.write(to: file, title: "Byte 0x\(hex(byte)) hidden into the entry of 0x40000000")
  }

  private func makeExplainer(_ kernel: KernelVersion, _ hook: HookRunner?) throws -> Explainer {
    let machine = Explainer.machine(
      cpu: host.cpu, backing: host.backing, granule: host.granule, ipaBits: host.ipa,
      kernel: kernel)
    do {
      return Explainer(on: try hook.makeEngine(machine))
    } catch let failure as CodeFailure {
      throw failure
    } catch {
      throw Failure("\(error)", status: .unavailable)
    }
  }

  private static func parseVersions(_ text: String) throws -> [KernelVersion] {
    if text == "all" { return KernelVersion.allCases }
    guard let version = KernelVersion(argument: text) else {
      let values = KernelVersion.allValueStrings.joined(separator: ", ")
      throw ValidationError("'\(text)' is not a version of the model: give \(values) or all")
    }
    return [version]
  }

  private static func parseByte(_ text: String) throws -> UInt8 {
    let (digits, radix) =
      text.hasPrefix("0x")
      ? (text.dropFirst(2), 16) : text.hasPrefix("0b") ? (text.dropFirst(2), 2) : (text[...], 10)
    // Some languages read a number with a leading zero as octal.
    let isPlain = radix != 10 || digits == "0" || digits.first != "0"
    guard isPlain, digits.first != "+", let byte = UInt8(digits, radix: radix) else {
      if let character = text.utf8.first, text.utf8.count == 1 {
        throw ValidationError("'\(text)' is not a number: its byte is 0x\(hex(character))")
      }
      throw ValidationError(
        "'\(text)' is not a byte: write 0 to 255, 0x00 to 0xff or 0b00000000 to 0b11111111")
    }
    return byte
  }
}

// MARK: - One byte

extension Explanation {
  fileprivate func report(on machine: MachineDescription) -> String {
    let sections = [
      ["byte 0x\(hex(byte)) hidden into the entry of 0x40000000"] + machine.heading,
      describeEntry(on: machine), describeEvents(on: machine), describeWarnings(on: machine),
      ["harmless: \(isHarmless ? "yes" : "no")"],
    ]
    return sections.map { $0.map { "\($0)\n" }.joined() }.joined(separator: "\n")
  }

  private func describeEntry(on machine: MachineDescription) -> [String] {
    let size = machine.configuration.granule.size(level: after.level)
    let unit = size < 1 << 20 ? "a page of \(size >> 10) KiB" : "a block of \(size >> 20) MiB"
    let head = [
      "entry, level \(after.level), \(unit)", "  before \(before.descriptor)",
      "  after  \(after.descriptor)", "",
      "  byte entry field      old new  on this CPU",
    ]
    return head
      + HiddenBit.allCases.reversed().map { bit in
        let old = bit.isSet(in: before.descriptor) ? "1" : "0"
        let new = bit.isSet(in: after.descriptor) ? "1" : "0"
        let mark = old == new ? " " : "*"
        return
          "  \(pad("\(bit.number)", -4)) \(pad("\(bit.entryBit)", -5)) \(pad(bit.field, 10)) \(mark) \(old) \(new)    \(bit.meaning(on: machine.configuration))"
      }
  }

  private func describeEvents(on machine: MachineDescription) -> [String] {
    [row("event", "the byte", "recorded in")]
      + outcomes.map { outcome in
        row(outcome.event.title, outcome.words, outcome.event.recording(for: machine) ?? "-")
      }
  }

  private func row(_ event: String, _ byte: String, _ recording: String) -> String {
    "\(pad(event, 34)) \(pad(byte, 22)) \(recording)"
  }

  private func describeWarnings(on machine: MachineDescription) -> [String] {
    var lines: [String] = []
    func warn(_ warning: Stage2Warning, _ detail: String, _ place: String, _ recording: String?) {
      lines.append("  \(warning.flag): \(warning.headline) (\(place))")
      lines += detail.split(separator: "\n").map { "    \($0)" }
      if let recording { lines.append("    recorded in \(recording)") }
    }
    for warning in warnings {
      warn(
        warning, "\(before.descriptor) became \(after.descriptor)\n\(warning.risk)",
        "the hide", ExplainedEvent.load.recording(for: machine))
    }
    for outcome in outcomes {
      for warning in outcome.warnings {
        warn(warning, warning.risk, outcome.event.title, outcome.event.recording(for: machine))
      }
    }
    for warning in invalidEntry.warnings {
      let counts = invalidEntry.references.map {
        "page_count \($0.count) after the next load, where \($0.needed) would be right"
      }
      warn(
        warning,
        "\(invalidEntry.before.descriptor) became \(invalidEntry.hidden.descriptor), and with the page back \(invalidEntry.mapped.descriptor)\n\(counts ?? "the table is gone")\n\(warning.risk)",
        "a hide into an entry that maps nothing", Explanation.invalidEntryRecording(for: machine))
    }
    return ["warnings"] + (lines.isEmpty ? ["  none"] : lines)
  }
}

extension EventOutcome {
  /// The effect on the byte, in a few words.
  fileprivate var words: String {
    let words =
      switch fate {
      case .kept: "kept"
      case .changed: "changed to \(hex(seek))"
      case .lost: "lost: \(hex(seek)), then \(hex(seekAfterLoad))"
      }
    if isHung { return "\(words), guest hangs" }
    return refusal.map { "refused: \($0), \(words)" } ?? words
  }
}

extension Stage2Warning {
  /// The name of the warning in the table of all bytes.
  fileprivate var flag: String {
    switch self {
    case .breakBeforeMake: "bbm"
    case .staleTLB: "tlb"
    case .missingReference, .leakedReference: "ref"
    case .livelock: "hang"
    }
  }

  fileprivate var headline: String {
    switch self {
    case .breakBeforeMake: "break-before-make violated"
    case .staleTLB: "stale TLB entries possible"
    case .missingReference: "reference count too low"
    case .leakedReference: "reference count too high"
    case .livelock: "the guest hangs"
    }
  }

  /// The possible damage.
  fileprivate var risk: String {
    switch self {
    case .breakBeforeMake:
      "Contiguous changed while live: the CPU may use either entry, both, or take a TLB conflict abort"
    case .staleTLB:
      "XN changed, and no TLB was invalidated: the CPU may allow and refuse by the old entry"
    case .missingReference:
      "unmapping then frees the table too early, with all that it still maps"
    case .leakedReference: "the table is never freed"
    case .livelock(let fault):
      "ESR_EL2 \(fault.syndrome) for \(fault.pageAddress) again and again: KVM finds nothing more to allow"
    }
  }
}

// MARK: - All versions

/// The effects of one byte on several versions of Linux, side by side. Below the table are the causes of the differences.
private func tableOfVersions(
  _ versions: [(machine: MachineDescription, explanation: Explanation)]
) -> String {
  var usual = versions[0].machine
  usual.configuration.kernel = .standard
  let kernels = versions.map(\.machine.configuration.kernel)
  let explanations = versions.map(\.explanation)
  var rows: [(title: String, cells: [String], changes: [VersionChange])] = [
    ("entry before the hide", explanations.map { "\($0.before.descriptor)" }, []),
    ("entry after the hide", explanations.map { "\($0.after.descriptor)" }, []),
  ]
  for (index, outcome) in explanations[0].outcomes.enumerated() {
    let outcomes = explanations.map { $0.outcomes[index] }
    rows.append(
      (outcome.event.title, outcomes.map(\.words), VersionChange.explaining(outcomes)))
  }
  rows.append(("warnings", explanations.map { list($0.flags, separator: ",") }, []))
  rows.append(("harmless", explanations.map { $0.isHarmless ? "yes" : "no" }, []))
  let widths = kernels.indices.map { column in
    max(kernels[column].rawValue.count, rows.map { $0.cells[column].count }.max() ?? 0)
  }
  func line(_ mark: String, _ title: String, _ cells: [String]) -> String {
    let text =
      "\(mark) \(pad(title, 34)) \(zip(cells, widths).map { pad($0, $1) }.joined(separator: "  "))"
    return String(text.reversed().drop { $0 == " " }.reversed())
  }
  var causes: [String] = []
  var lines =
    ["byte 0x\(hex(explanations[0].byte)) hidden into the entry of 0x40000000"] + usual.heading + [
      "", line(" ", "event", kernels.map(\.rawValue)),
    ]
  for row in rows {
    let isDifferent = Set(row.cells).count > 1
    lines.append(line(isDifferent ? "!" : " ", row.title, row.cells))
    guard isDifferent else { continue }
    for change in row.changes where !causes.contains(change.text) { causes.append(change.text) }
  }
  if !causes.isEmpty { lines += ["", "the causes"] + causes.map { "  \($0)" } }
  return lines.map { "\($0)\n" }.joined()
}

// MARK: - All bytes

private func tableOfAll(
  _ explanations: [Explanation], on machine: MachineDescription
) -> String {
  func row(_ columns: [String]) -> String {
    let widths = [4, 47, 4, 5, 7, 12]
    return (zip(columns, widths).map { pad($0, $1) } + columns.dropFirst(widths.count))
      .joined(separator: "  ")
  }
  let head =
    machine.heading + [
      "",
      row(["byte", "changes", "load", "store", "execute", "warnings", "harmless"]),
    ]
  let rows = explanations.map { explanation in
    row(
      [hex(explanation.byte), list(explanation.changedBits.map(\.field), separator: " ")]
        + explanation.outcomes.map(describeBriefly)
        + [list(explanation.flags, separator: ","), explanation.isHarmless ? "yes" : "no"])
  }
  return (head + rows + [""] + summary(of: explanations)).map { "\($0)\n" }.joined()
}

private func describeBriefly(_ outcome: EventOutcome) -> String {
  if outcome.isHung { return "hangs" }
  return outcome.fate == .kept ? "kept" : hex(outcome.seek)
}

extension Explanation {
  /// The warnings of the hide and of the guest's accesses, each once.
  fileprivate var flags: [String] {
    var flags: [String] = []
    for warning in warnings + outcomes.flatMap(\.warnings) where !flags.contains(warning.flag) {
      flags.append(warning.flag)
    }
    return flags
  }
}

private func summary(of explanations: [Explanation]) -> [String] {
  func count(_ isCounted: (Explanation) -> Bool) -> Int { explanations.count(where: isCounted) }
  let harmless = explanations.filter(\.isHarmless)
  // If a byte is harmless exactly when each of its bits is harmless, a list of bits describes all harmless bytes.
  let bits = HiddenBit.allCases.filter { bit in
    harmless.contains { $0.byte == 1 << bit.number }
  }
  let mask = bits.reduce(UInt8(0)) { $0 | 1 << $1.number }
  let followsBits = explanations.allSatisfy { $0.isHarmless == ($0.byte & ~mask == 0) }
  let which =
    followsBits
    ? "those with no other bits than \(mask == 0 ? "none" : "0x\(hex(mask))") (\(list(bits.map(\.field), separator: " ")))"
    : harmless.map { hex($0.byte) }.joined(separator: " ")
  return [
    "harmless: \(harmless.count) of \(explanations.count): \(which)",
    "changed by a load, store or fetch: \(count { $0.outcomes.contains { $0.fate != .kept } })",
    "hang: \(count { $0.outcomes.contains(where: \.isHung) })",
    "bbm: \(count { $0.flags.contains("bbm") })",
    "tlb: \(count { $0.flags.contains("tlb") })",
    "ref, where the entry maps nothing: \(count { !$0.invalidEntry.warnings.isEmpty })",
  ]
}

// MARK: - Text

extension MachineDescription {
  /// The line of the machine, and the state of the machine before the hide.
  fileprivate var heading: [String] {
    [description, "booted: the guest has run from the page at 0x40000000"]
  }
}

/// The byte in two hexadecimal digits.
private func hex(_ byte: UInt8) -> String { hexadecimal(UInt64(byte), digits: 2) }

/// Adds spaces up to `width`: after the text, or before the text if `width` is negative.
private func pad(_ text: String, _ width: Int) -> String {
  let spaces = String(repeating: " ", count: max(0, abs(width) - text.count))
  return width < 0 ? spaces + text : text + spaces
}

private func list(_ words: [String], separator: String) -> String {
  words.isEmpty ? "-" : words.joined(separator: separator)
}
