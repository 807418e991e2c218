import Foundation
import Testing

@testable import pgtable_fuzz

/// Runs the cases of the kernel's pgtable.c (oracle/README.md) on the model. Each line of each case must be the same.
@Suite struct PageTableCaseTests {
  private static let directory = URL(filePath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent().appending(path: "PageTableCases/6.1")

  @Test func everyCaseIsTheSameInTheModel() throws {
    let files = try FileManager.default.contentsOfDirectory(
      at: Self.directory, includingPropertiesForKeys: nil
    ).filter { $0.pathExtension == "txt" }
    #expect(files.count >= 14)
    for file in files {
      let text = try String(contentsOf: file, encoding: .utf8)
      let recorded = try Case(text)
      #expect(!recorded.operations.isEmpty, "\(file.lastPathComponent)")
      let kernel = text.split(separator: "\n").filter { !$0.hasPrefix("#") }.map(String.init)
      let model = Recorder.record(recorded)
      for (number, lines) in zip(kernel, model).enumerated() where lines.0 != lines.1 {
        let operation = kernel[...number].last { !$0.hasPrefix("  ") } ?? ""
        Issue.record(
          "\(file.lastPathComponent), \(operation): kernel '\(lines.0)', model '\(lines.1)'")
        break
      }
      #expect(kernel.count == model.count, "\(file.lastPathComponent)")
    }
  }

  @Test func caseIsWrittenAsItIsRead() throws {
    let text = """
      machine granule=16K ipa=48 fwb=yes
      map 0x40000000 0x4000 0x80000000 rwxd0123 no-memory
      set-owner 0x0 0x4000 0x1
      relax 0x1234 -
      hide 0x40000000 0xff
      destroy
      """
    let read = try Case(text)
    #expect(
      "\(read.machine)\n\(read.operations.map(\.description).joined(separator: "\n"))" == text)
  }

  @Test(arguments: [
    "", "map 0x0", "machine granule=5K ipa=40 fwb=no", "machine granule=4K ipa=49 fwb=no",
    "machine granule=4K ipa=40 fwb=no\nmap 0x0 0x1000 0x0",
    "machine granule=4K ipa=40 fwb=no\nseek 4",
    "machine granule=4K ipa=40 fwb=no\nleaf 0x0 0x0",
    "machine granule=4K ipa=40 fwb=no\nrelax 0x0 q",
    "machine granule=4K ipa=40 fwb=no\nexplode 0x0",
  ])
  func whatIsNoCaseIsRefused(text: String) {
    #expect(throws: CaseError.self) { try Case(text) }
  }

  /// The fuzzer has its own random numbers, so that a seed gives the same operations on every machine.
  @Test func seedGivesTheSameNumbers() {
    var random = Random(seed: 0)
    #expect(random.next() == 0xe220_a839_7b1d_cdaf)
    #expect((0..<1000).allSatisfy { _ in (0..<7).contains(random.below(7)) })
  }
}
