import ArgumentParser
import Glibc
import PageTableCases
import Scenarios
import Stage2Sim
import SystemPackage
import UserCode

struct Replay: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "replay",
    abstract:
      "Run scenarios or page-table cases on the model, or compare recordings of the real kernel with it.",
    discussion: """
      A scenario is a text with a line for the machine and a line for each step of its guest or its host. A recording \
      also has the observations of each step, below the step. docs/scenario.md describes the language. Without --check, the \
      command prints one recording for each file: the lines of the file, with the model's observations instead of the \
      file's observations. With --against, it prints each step that another version of Linux performs otherwise.

      A page-table case is a text with lines for the version of Linux and a page table, and a line for each operation on the table, which may \
      have its results below (oracle/README.md, Tests/PageTableCases). The first line tells a case: it begins with kernel, or \
      has fwb=. The model of the page table alone performs the operations. --check and --against work as for scenarios. With --tables, the \
      table begins with the entries of a dump.

      Exit status: 0 success; 1 with --check, a recording differs, or with --against, a step differs; 64 wrong usage; 65 a text is not a scenario or a case, or the file of --tables does not fit the machine, or with --check not a \
      recording, or the code of --hook does not compile; 66 a file cannot be read; 69 the model does not support the machine; 73 or 77 the page of --page cannot be written. No file is run unless all files \
      can be read.
      """)

  @Flag(
    help: """
      Compare all observations with the model. Print the first difference of each file, the kernel on the left and the \
      model on the right, and the number of files that match.
      """)
  var check = false

  @Option(
    help: ArgumentHelp(
      "The version of Linux on the host, or of the page table of a case. (default: that of the file)",
      valueName: "version"))
  var kernel: KernelVersion?

  @Option(
    help: ArgumentHelp(
      "Run each file on this version of Linux, too. Print the steps with other observations, this version on the right, and the number of these steps. (default: no other version)",
      valueName: "version"))
  var against: KernelVersion?

  @Flag(
    help: """
      Stop at each event inside of a step: abort, walk, visit of an entry, write of an entry, TLB invalidation. On a terminal, keys go \
      forward and back. Otherwise, print all events.
      """)
  var step = false

  @Flag(
    help: """
      Print the writes of entries and the TLB invalidations as a log for casemate, which checks break-before-make. The machine needs pages of 4K \
      and a space of at least 35 bits.
      """)
  var casemate = false

  @Option(
    help: ArgumentHelp(
      "Write a page in HTML to this file, and print no observations. The page plays the scenarios step by step in a browser, two of them side by side. With --against, each scenario runs on both versions. (default: no page)",
      valueName: "file"))
  var page: String?

  @Option(
    help: ArgumentHelp(
      "The page table of each case begins with the entries of this file, which is stage2_page_tables of the inspection tree, or of /sys/kernel/debug/kvm of a real host. It is not for scenarios. (default: an empty table)",
      valueName: "file"))
  var tables: String?

  @OptionGroup(title: "Your own code") var ownHook: HookOptions

  @Argument(
    help: ArgumentHelp(
      "Scenarios, recordings or page-table cases; - is standard input.", valueName: "file"))
  var files: [String]

  func validate() throws {
    guard !files.contains(""), tables != "", page != "" else {
      throw ValidationError("an empty name is not a file")
    }
    guard (files + [tables]).count(where: { $0 == "-" }) < 2 else {
      throw ValidationError("standard input can be read once: give - once")
    }
    guard [check, against != nil, step, casemate].count(where: { $0 }) < 2 else {
      throw ValidationError(
        "--check, --against, --step and --casemate print different things: give one of them")
    }
    guard page == nil || !(check || step || casemate) else {
      throw ValidationError(
        "--page writes a page, and --check, --step and --casemate print: give one of them")
    }
    try ownHook.requireCode(ownHook.isGiven, by: "--hook")
  }

  func run() throws {
    try reportingFailures {
      // All files are read before the first one is played. No text stays in memory.
      let texts = try readFiles()
      let file = try page.map { try PageFile($0) }
      let hook = try HookRunner(ownHook)
      if let file {
        try writePage(of: try scenarios(texts, of: "--page"), to: file, hook)
      } else if casemate {
        let texts = try scenarios(texts, of: "--casemate")
        guard texts.count == 1 else {
          throw Failure(
            "--casemate writes the log of one machine: name one scenario",
            status: .validationFailure)
        }
        try SingleStep(texts[0], hook).printCasemateLog()
      } else if step {
        try show(try scenarios(texts, of: "--step"), hook)
      } else if let against {
        try compareVersions(of: texts, against, hook)
      } else if check {
        try checkResults(of: texts, hook)
      } else {
        for text in texts {
          switch text {
          case .scenario(let text): try text.play(hook, isOfFile: kernel == nil)
          case .tables(let text): try text.play()
          }
        }
      }
    }
  }

  /// Writes a page with all scenarios.
  private func writePage(
    of texts: [ScenarioText], to file: PageFile, _ hook: HookRunner?
  ) throws {
    var pages = PageBuilder(hook)
    for text in texts {
      guard let against else {
        try pages.add(text, named: text.name)
        continue
      }
      for version in [text.machine.configuration.kernel, against] {
        try pages.add(text, on: version, named: "\(text.name), Linux \(version.rawValue)")
      }
    }
    try pages.write(to: file, title: texts.map(\.name).joined(separator: ", "))
  }

  /// Shows or prints each event inside of the steps.
  private func show(_ texts: [ScenarioText], _ hook: HookRunner?) throws {
    guard isatty(STDOUT_FILENO) == 1, let screen = try? Screen() else {
      for text in texts { try SingleStep(text, hook).printAll() }
      return
    }
    guard texts.count == 1 else {
      throw Failure(
        "--step shows one scenario on a terminal: name one, or write to a file",
        status: .validationFailure)
    }
    try SingleStep(texts[0], hook).run(on: screen)
  }

  /// The scenarios, for an option that has no meaning for a page-table case.
  private func scenarios(_ texts: [ReplayText], of option: String) throws -> [ScenarioText] {
    try texts.map { text in
      switch text {
      case .scenario(let text): return text
      case .tables(let text):
        throw Failure(
          "\(text.name) is a page-table case, which has no steps of a guest: leave out \(option)",
          status: .usage)
      }
    }
  }

  private func readFiles() throws -> [ReplayText] {
    let reader = ReplayReader(
      kernel: kernel, against: against,
      dump: try tables.map { try TextInput($0, kind: "a file stage2_page_tables") },
      codeOption: !ownHook.isGiven ? nil : ownHook.hook != nil ? "--hook" : "--patch")
    return try inParallel(files.count) { [files] in try reader.read(files[$0]) }
  }

  /// Compares texts with the model, and prints the first difference of each.
  private func checkResults(of texts: [ReplayText], _ hook: HookRunner?) throws {
    for text in texts {
      switch text {
      case .scenario(let text): try text.requireObservations()
      case .tables(let text): try text.requireResults()
      }
    }
    let width = outputWidth()
    let differences =
      if let hook {
        // The processes of a hook have one user, which is this thread.
        try texts.map { try $0.difference(width: width, hook) }
      } else {
        try inParallel(texts.count) { try texts[$0].difference(width: width, nil) }
      }
    for case let difference? in differences { try write(difference) }
    let matching = differences.count { $0 == nil }
    guard matching == texts.count else {
      let differing = texts.count - matching
      try write(
        "\(matching) of \(ReplayCounts(texts).texts("recording")) match, \(differing) \(differing == 1 ? "differs" : "differ")\n"
      )
      throw ExitCode.failure
    }
    try write("\(ReplayCounts(texts).summary("recording")): all match\n")
  }

  /// Prints the steps and the operations in which two versions of Linux differ.
  private func compareVersions(
    of texts: [ReplayText], _ other: KernelVersion, _ hook: HookRunner?
  ) throws {
    let width = outputWidth()
    var different = 0
    for text in texts {
      switch text {
      case .scenario(let text):
        different += try text.differences(from: other, width: width, hook)
      case .tables(let text): different += try text.differences(from: other, width: width)
      }
    }
    try write(
      "\(ReplayCounts(texts).summary("scenario")): \(different == 0 ? "all same" : "\(different) \(different == 1 ? "differs" : "differ")")\n"
    )
    if different > 0 { throw ExitCode.failure }
  }
}

/// A text that is replayed.
private enum ReplayText {
  case scenario(ScenarioText)
  case tables(CaseText)

  /// The first difference from the model, as text to print; nil if there is none.
  func difference(width: Int?, _ hook: HookRunner?) throws -> String? {
    switch self {
    case .scenario(let text): try text.difference(width: width, hook)
    case .tables(let text): try text.difference(width: width)
    }
  }
}

/// A reader of texts, with the options that some texts do not have.
private struct ReplayReader {
  let kernel: KernelVersion?
  let against: KernelVersion?
  /// The entries that the tables of cases begin with; nil for empty tables.
  let dump: TextInput?
  /// The option of the user's own code; nil if there is none.
  let codeOption: String?

  /// Reads all of a text, and keeps no line.
  func read(_ path: String) throws -> ReplayText {
    let input = try TextInput(path, kind: "a scenario, a recording or a page-table case")
    guard let line = input.firstLine, CaseReader.isFirstLine(line) else {
      guard dump == nil else {
        throw Failure(
          "--tables: \(input.name) is a scenario, and the entries of its machine belong to pages of the host, which a dump does not have: give a page-table case",
          status: .usage)
      }
      return .scenario(try ScenarioText(input, kernel))
    }
    if let codeOption {
      throw Failure(
        "\(input.name) is a page-table case, which has no guest and no hook: leave out \(codeOption)",
        status: .usage)
    }
    return .tables(try CaseText(input, dump, kernel, other: against))
  }
}

/// The numbers of texts, and of their steps and operations.
private struct ReplayCounts {
  private var (scenarios, steps, cases, operations) = (0, 0, 0, 0)

  init(_ texts: [ReplayText]) {
    for text in texts {
      switch text {
      case .scenario(let text):
        scenarios += 1
        steps += text.stepCount
      case .tables(let text):
        cases += 1
        operations += text.operationCount
      }
    }
  }

  /// The texts, such as `3 recordings`, `1 case` or `3 recordings and cases`.
  ///
  /// - Parameter scenario: The name of a scenario.
  func texts(_ scenario: String) -> String {
    switch (scenarios, cases) {
    case (_, 0): count(scenarios, scenario)
    case (0, _): count(cases, "case")
    default: "\(scenarios + cases) \(scenario)s and cases"
    }
  }

  /// All numbers, such as `2 recordings, 7 steps`.
  func summary(_ scenario: String) -> String {
    var parts: [String] = []
    if scenarios > 0 || cases == 0 { parts += [count(scenarios, scenario), count(steps, "step")] }
    if cases > 0 { parts += [count(cases, "case"), count(operations, "operation")] }
    return parts.joined(separator: ", ")
  }
}

extension ScenarioText {
  private func makeEngine(_ machine: MachineDescription, _ hook: HookRunner?) throws -> any Engine {
    do {
      return try hook.makeEngine(machine)
    } catch let failure as CodeFailure {
      throw failure
    } catch {
      throw Failure("cannot run \(name): \(error)", status: .unavailable)
    }
  }

  /// Prints each step that another version of Linux performs otherwise, and returns their number.
  func differences(from other: KernelVersion, width: Int?, _ hook: HookRunner?) throws -> Int {
    var otherMachine = machine
    otherMachine.configuration.kernel = other
    let engines = try [machine, otherMachine].map { try makeEngine($0, hook) }
    let titles = (
      left: "Linux \(machine.configuration.kernel.rawValue)", right: "Linux \(other.rawValue)"
    )
    return try parsingAgain { reader in
      var different = 0
      while let line = try reader.next(keepsObservations: false) {
        guard case .step(let step) = line.line.content else { continue }
        let seen = try engines.map { try $0.perform(step).map(\.description) }
        guard seen[0] != seen[1] else { continue }
        different += 1
        let title = "\(name):\(line.number): step \(reader.stepCount): \(line.line.text)"
        let sides = SideBySide(kernel: seen[0], model: seen[1])
        try write(
          ([title] + sides.lines(width: width, titles: titles)).map { "\($0)\n" }.joined())
      }
      return different
    }
  }

  /// Prints each step after it was performed, with the comments before it.
  ///
  /// - Parameter isOfFile: Whether the machine is that of the file.
  func play(_ hook: HookRunner?, isOfFile: Bool) throws {
    try parsingAgain { reader in
      let engine = try makeEngine(machine, hook)
      var output = ""
      while let line = try reader.next(keepsObservations: false) {
        output += isOfFile || line.line.content != .machine ? line.description : "\(machine)\n"
        if case .step(let step) = line.line.content {
          for seen in try engine.perform(step) { output += "  \(seen)\n" }
        } else if output.utf8.count < 1 << 16 {
          continue
        }
        try write(output)
        output = ""
      }
      try write(output)
    }
  }

  /// The first difference from the model, as text to print; nil if there is none.
  func difference(width: Int?, _ hook: HookRunner?) throws -> String? {
    let engine: any Engine
    do {
      engine = try hook.makeEngine(machine)
    } catch {
      return "\(name): cannot be played: \(error)\n"
    }
    return try parsingAgain { reader in
      while let line = try reader.next() {
        guard case .step(let step) = line.line.content,
          let difference = try engine.difference(
            performing: step, number: reader.stepCount, of: line)
        else { continue }
        let title = "\(name):\(difference.line): step \(difference.step): \(difference.text)"
        return ([title] + difference.sideBySide(width: width)).map { "\($0)\n" }.joined()
      }
      return nil
    }
  }
}

/// Prints `text`, which may come from another user, without the characters that would control the terminal.
func write(_ text: String) throws {
  _ = try FileDescriptor.standardOutput.writeAll(text.printable(allowing: ["\n"]).utf8)
}

/// The number of columns of the terminal; nil if lines can have any length.
func outputWidth() -> Int? {
  if let columns = getenv("COLUMNS").flatMap({ Int(String(cString: $0)) }), columns > 0 {
    return columns
  }
  var size = winsize()
  guard ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return nil }
  return Int(size.ws_col)
}
