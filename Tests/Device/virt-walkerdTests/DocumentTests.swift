import DaemonSupport
import Foundation
import SystemPackage
import Testing

/// The statements of docs/inspection.md and docs/tour.md, compared with the program.
@Suite(.endingDaemons, .timeLimit(.minutes(15))) struct InspectionDocumentTests {
  private func page() throws -> String {
    try String(contentsOfFile: "\(repository)/docs/inspection.md", encoding: .utf8)
  }

  /// The names in back quotes in the first column of one table.
  private func rows(ofTableHeaded head: String) throws -> [String] {
    let lines = try page().split(separator: "\n", omittingEmptySubsequences: false)
    let start = try #require(lines.firstIndex { $0.hasPrefix("| \(head) |") })
    return lines[(start + 2)...].prefix { $0.hasPrefix("|") }.flatMap { line in
      line.split(separator: "|")[0].matches(of: /`([^`]+)`/).map { String($0.output.1) }
    }
  }

  @Test func everyFileAndCounterIsThere() async throws {
    // The file code is there if the node has code of a user's own.
    let daemon = try await RunningDaemon(
      "--hook \(repository)/Examples/lab/right/get-leaf.c --hook-function virt_walker_mmio")
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

  /// The names of events in the sources are the names in the trace.
  @Test func everyEventIsThere() async throws {
    let names = try await shell(
      "cd \(repository)/Sources && grep -oh '\"kvm_[a-z_]*\"\\|\"\\(virt_walker_[a-z]*\\|console\\): ' Stage2Sim/Hypervisor/Tracepoint.swift Inspection/TraceText.swift | tr -d '\": ' | sort -u"
    )
    let events = names.output.split(separator: "\n").map(String.init)
    #expect(try events == rows(ofTableHeaded: "event").sorted())
  }

  @Test func tourIsWhatTheProgramPrints() async throws {
    let check = try await shell("\(repository)/scripts/tour --check", limit: .seconds(300))
    #expect(check.succeeded, "\(check.output)\(check.errors)")
  }
}

/// The manual page of the Debian package, compared with the program.
@Suite(.endingDaemons, .timeLimit(.minutes(5))) struct ManualTests {
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
    // The places of the template.
    #expect(!text.contains(/@[A-Z]+@/))
  }

  /// The manual has all options of each command, and the default of each option that takes a value.
  @Test(arguments: [
    "serve", "status", "stop", "watch", "walk", "tree", "control", "page", "replay", "explain",
    "grade",
  ])
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
    // The manual also has the values that --help lists.
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
    // ArgumentParser defines success, failure and validationFailure.
    let used =
      source.matches(of: /= ExitCode\((\d+)\)/).compactMap { Int($0.output.1) } + [0, 1, 64]
    #expect(statuses == used.sorted())
  }
}
