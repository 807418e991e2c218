import Foundation
import Testing
import VirtWalkerDevice

@testable import Inspection
@testable import Scenarios
@testable import Stage2Sim

/// Compares `stage2_page_tables`, `stage2_levels` and `ipa_range` with the files of a real kernel after the same steps
/// (Tests/PageTableDumps/7.2). The kernel is Linux 7.2, because 6.1 has no such files.
@Suite struct RealDumpTests {
  static let files: [URL] = {
    let directory = URL(filePath: #filePath).deletingLastPathComponent()
      .deletingLastPathComponent().deletingLastPathComponent().appending(path: "PageTableDumps/7.2")
    let files = try? FileManager.default.contentsOfDirectory(
      at: directory, includingPropertiesForKeys: nil)
    return (files ?? []).sorted { $0.path < $1.path }
  }()

  @Test func thereAreDumps() { #expect(Self.files.count >= 28) }

  @Test(arguments: files)
  func sameText(file: URL) throws {
    let recording = try Recording(parsing: String(contentsOf: file, encoding: .utf8))
    let engine = try ModelEngine(recording.machine)
    var differing: [Int] = []
    for (number, (line, step)) in recording.steps.enumerated() {
      try engine.perform(step)
      var expected: [String] = []
      if number == 0 {
        expected = [
          "ipa_range:", "\(recording.machine.configuration.ipaBits)", "stage2_levels:",
          "\(4 - engine.startLevel)",
        ]
      }
      expected.append("stage2_page_tables:")
      expected += engine.dump.split(separator: "\n").map(String.init)
      if expected != line.observations { differing.append(number + 1) }
      if file.lastPathComponent != "huge-zero-page.txt" {
        #expect(expected == line.observations, "step \(number + 1), \(line.line.text)")
      }
    }
    // The behaviour of the kernels differs in one dump: Linux 7.2 maps a block where 6.1 has split the huge zero page.
    if file.lastPathComponent == "huge-zero-page.txt" { #expect(differing == [2, 3]) }
  }
}
