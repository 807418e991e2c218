import Foundation
import Subprocess
import SystemPackage
import Testing

/// Runs Examples/AccessCounter in a process of its own.
@Suite(.timeLimit(.minutes(15))) struct AccessCounterTests {
  @Test func countsAreThoseOfTheGuestsRounds() async throws {
    let tests = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
    let program = FilePath(tests).removingLastComponent().appending("access-counter")
    let result = try await run(
      .path(program), output: .string(limit: 4096), error: .string(limit: 4096))
    #expect(result.terminationStatus.isSuccess, "\(result.standardError)")
    // The guest touches a page in every Nth of 20 rounds. The first access maps the page, and each later access takes a
    // fault.
    let pages = (1...5).map { "\($0) \(min(20 / $0, 15)) \(20 / $0 - 1)" }
    // The boot stub ran in page 0. The kernel runs in page 512, and its load of the count is there, too.
    let lines = ["page rounds access-flag-faults", "0 1 0"] + pages + ["512 15 20"]
    #expect(result.standardOutput == lines.map { "\($0)\n" }.joined())
  }

  @Test func exampleIsShort() throws {
    let example = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent().deletingLastPathComponent().appending(
        path: "Examples/AccessCounter/AccessCounter.swift")
    let lines = try String(contentsOf: example, encoding: .utf8).split(
      separator: "\n", omittingEmptySubsequences: false)
    #expect(lines.count <= 60)
  }
}
