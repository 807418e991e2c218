import Foundation
import SystemPackage
import Testing

/// What the documents say, held against the files that they speak of.
@Suite struct DocumentTests {
  private func text(_ path: String) throws -> String {
    try String(contentsOfFile: repository.appending(path).string, encoding: .utf8)
  }

  /// docs/file-operations.md gives a reason for each row that differs from the module.
  @Test func everyDifferenceIsExplained() throws {
    let table = try text("Tests/FileOperations/expected.txt")
    let document = try text("docs/file-operations.md")
    let rows = table.split(separator: "\n").filter { !$0.hasPrefix("#") }
      .map { $0.split(separator: /\s\s+/) }.filter { $0.count == 4 }.dropFirst()
    #expect(rows.count == 108)
    #expect(document.contains("all \(rows.count) answers"))
    for row in rows where row[1] != row[2] || row[1] != row[3] {
      // A row such as "write 0: value" shows what the call of its first part did.
      let call = row[0].prefix { $0 != ":" && $0 != "," }
      #expect(
        document.contains("`\(call)`") || document.contains("`\(row[0])`"),
        "\(row[0]) differs, and docs/file-operations.md does not say why")
    }
  }

  /// docs/README.md has a link to each document.
  @Test func indexListsEveryDocument() throws {
    let index = try text("docs/README.md")
    let documents = try FileManager.default.contentsOfDirectory(
      atPath: repository.appending("docs").string
    ).filter { $0.hasSuffix(".md") && $0 != "README.md" }
    #expect(documents.count >= 10)
    for document in documents {
      #expect(index.contains("](" + document + ")"), "\(document) is not in docs/README.md")
    }
  }

  private var recordings: [String] {
    get throws {
      try FileManager.default.contentsOfDirectory(
        atPath: repository.appending("Tests/Recordings").string)
    }
  }

  @Test func recordingsThatAreNamedExist() throws {
    let recordings = try Set(recordings)
    let document = try text("docs/what-the-kernel-does.md")
    let names = document.matches(
      of: /`((?:bytes|explain|facts|guest|host|ipa|granule|random)-[a-z0-9-]+)`/)
    #expect(names.count >= 20)
    for name in names.map(\.output.1) {
      let exists = recordings.contains("\(name).txt")
      #expect(exists, "\(name) is not in Tests/Recordings")
    }
  }

  /// docs/scenario.md's language, line by line, in every recording: a head, a machine, and steps with what was seen.
  @Test func recordingsAreInTheLanguage() throws {
    let observation =
      #/
      \ \ (?: run\ (?: retired | hung | error\ E[A-Z]+ | exception\ esr_el1=[0-9a-f]+(?:\ far_el1=[0-9a-f]{16})?
              | mmio\ (?:read|write)\ 0x[0-9a-f]+\ len\ [1248](?:\ data\ 0x[0-9a-f]+)? )
            (?:\ pc\ [+]\d+)? \ x0\ 0x[0-9a-f]+ (?:\ then\ 0x[0-9a-f]+)?
          | result\ (?: 0 | E[A-Z]+ )
          | value\ 0x[0-9a-f]{8}
          | dirty\ 0x[0-9a-f]+(?:\ pages\ \d+)?
          | abort\ esr=[0-9a-f]{8}\ far=[0-9a-f]{16}\ hpfar=[0-9a-f]{10}
          | tlbi\ (?: all | ipa=[0-9a-f]{10}\ level=[0-3] )
          | log\ .+
          | leaf\ 0x[0-9a-f]+ (?:\ level\ [0-3]\ [0-9a-f]{16}(?:\ @[A-Z]+)?\ counts(?:\ \d+)+ (?:\ ->)? ){1,2} )
      /#
    var steps = 0
    for name in try recordings {
      let lines = try text("Tests/Recordings/\(name)").split(separator: "\n")
      #expect(lines[0].hasPrefix("# Recorded on Linux "), "\(name)")
      let first = lines.first { !$0.hasPrefix("#") }
      #expect(first?.hasPrefix("machine ") == true, "\(name)")
      var isSeen = true
      for line in lines where !line.hasPrefix("#") {
        if line.hasPrefix("guest ") || line.hasPrefix("host ") {
          #expect(isSeen, "\(name): nothing was seen before: \(line)")
          isSeen = false
          steps += 1
        } else if line.hasPrefix("  ") {
          isSeen = isSeen || line.hasPrefix("  run ") || line.hasPrefix("  result ")
          #expect(line.wholeMatch(of: observation) != nil, "\(name): \(line)")
        } else {
          #expect(line == first, "\(name): \(line)")
        }
      }
      #expect(isSeen, "\(name) ends without an observation")
    }
    #expect(steps >= 10_000)
  }
}

/// docs/inspection.md and docs/tour.md, against the program.
@Suite(.timeLimit(.minutes(15))) struct InspectionDocumentTests {
  private func page() throws -> String {
    try String(contentsOfFile: "\(repository)/docs/inspection.md", encoding: .utf8)
  }

  /// The names in back quotes in the first cells of the rows of one table.
  private func rows(ofTableHeaded head: String) throws -> [String] {
    let lines = try page().split(separator: "\n", omittingEmptySubsequences: false)
    let start = try #require(lines.firstIndex { $0.hasPrefix("| \(head) |") })
    return lines[(start + 2)...].prefix { $0.hasPrefix("|") }.flatMap { line in
      line.split(separator: "|")[0].matches(of: /`([^`]+)`/).map { String($0.output.1) }
    }
  }

  @Test func everyFileAndCounterIsThere() async throws {
    let daemon = try await RunningDaemon()
    let files = try await shell("cd \(daemon.tree) && find . -type f | cut -c3- | sort")
    #expect(
      try files.output.split(separator: "\n").map(String.init)
        == rows(ofTableHeaded: "file").sorted())
    let counters = try await shell("cut -d' ' -f1 \(daemon.tree)/stats")
    #expect(
      try counters.output.split(separator: "\n").map(String.init)
        == rows(ofTableHeaded: "counter"))
    let gauges = try await shell("sed -n 's/^# TYPE \\(.*\\) gauge/\\1/p' \(daemon.tree)/metrics")
    for gauge in gauges.output.split(separator: "\n") {
      #expect(try page().contains("`\(gauge)`"))
    }
    try await daemon.stop()
  }

  /// The names of events stand in the sources as the trace has them.
  @Test func everyEventIsThere() async throws {
    let names = try await shell(
      "cd \(repository)/Sources && grep -oh '\"kvm_[a-z_]*\"\\|\"\\(virt_walker_[a-z]*\\|console\\): ' Stage2Sim/Hypervisor/Tracepoint.swift Inspection/TraceText.swift | tr -d '\": ' | sort -u"
    )
    let events = names.output.split(separator: "\n").map(String.init)
    #expect(try events == rows(ofTableHeaded: "event").sorted())
  }

  @Test func tourIsWhatTheProgramPrints() async throws {
    let check = try await shell("\(repository)/scripts/tour --check")
    #expect(check.succeeded, "\(check.output)\(check.errors)")
  }
}

/// The manual page, which the Debian package has, against the program.
@Suite(.timeLimit(.minutes(5))) struct ManualTests {
  private func page(formattedBy formatter: String) async throws -> String {
    let page = try await shell(
      "python3 -B \(repository)/debian/manual.py $virt_walkerd 2026-11-25 | \(formatter)")
    try #require(page.errors.isEmpty, "\(page.errors)")
    return page.output
  }

  @Test func manualIsInOrder() async throws {
    #expect(try await page(formattedBy: "mandoc -T lint") == "")
    let text = try await page(formattedBy: "cat")
    let sections = [
      "NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "ENVIRONMENT", "FILES", "EXIT STATUS",
      "EXAMPLES",
      "SEE ALSO",
    ]
    #expect(
      text.matches(of: /\n\.Sh (.*)/).map { String($0.output.1) } == sections)
    #expect(!text.contains("@"))
  }

  /// Of each command all options, and of each option that takes a value the default.
  @Test(arguments: ["serve", "status", "stop", "watch", "replay", "explain"])
  func manualHasWhatHelpHas(of command: String) async throws {
    let text = try await page(formattedBy: "cat")
    let start = try #require(text.range(of: "\n.Ss virt-walkerd \(command)\n")).upperBound
    let section = text[start...].split(separator: "\n.S", maxSplits: 1)[0]
    let help = try await shell("$virt_walkerd \(command) --help")
    let options = help.output.matches(of: /\n  --([a-z-]+)( <.*>)?/)
      .filter { $0.output.1 != "version" }
    #expect(options.isEmpty == (command == "status"))
    let items = section.split(separator: "\n.It ").dropFirst()
      .filter { $0.hasPrefix("Fl ") }
    #expect(
      Set(items.map { $0.split(separator: /[ \n]/)[1] })
        == Set(options.map { "-\($0.output.1)" }))
    for item in items where item.prefix(while: { $0 != "\n" }).contains(" Ar ") {
      #expect(item.contains(/\(.*default:\n?.*\)/.dotMatchesNewlines()), "\(item)")
    }
    // The values that help lists are in the manual, too.
    func plain(_ text: some StringProtocol) -> String {
      String(text).split(separator: /\s+/).joined(separator: " ")
    }
    for list in plain(help.output).matches(of: /\(values: [^)]*\)/) {
      #expect(plain(section).contains(list.output))
    }
  }

  @Test func manualHasEveryExitStatus() async throws {
    let text = try await page(formattedBy: "cat")
    let start = try #require(text.range(of: "\n.Sh EXIT STATUS\n")).upperBound
    let section = text[start...].split(separator: "\n.Sh", maxSplits: 1)[0]
    let statuses = section.matches(of: /\n\.It (\d+)\n/).compactMap { Int($0.output.1) }
    let source = try String(
      contentsOfFile: "\(repository)/Sources/virt-walkerd/Failure.swift", encoding: .utf8)
    // Of ArgumentParser are success, failure and validationFailure.
    let used =
      source.matches(of: /= ExitCode\((\d+)\)/).compactMap { Int($0.output.1) } + [0, 1, 64]
    #expect(statuses == used.sorted())
  }
}
