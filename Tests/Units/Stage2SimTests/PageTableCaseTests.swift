import Foundation
import PageTableCases
import Stage2Sim
import Testing

@testable import pgtable_fuzz

/// Runs the cases of the kernel's pgtable.c (oracle/README.md) on the model. Each line of each case must be the same.
@Suite struct PageTableCaseTests {
  private static let directory = URL(filePath: #filePath).deletingLastPathComponent()
    .deletingLastPathComponent().deletingLastPathComponent().appending(path: "PageTableCases")

  @Test(arguments: [
    (KernelVersion.linux510, 4), (.linux61, 14), (.linux612, 10), (.linux73, 12),
  ])
  func everyCaseIsTheSameInTheModel(kernel version: KernelVersion, least: Int) throws {
    let files = try FileManager.default.contentsOfDirectory(
      at: Self.directory.appending(path: version.rawValue), includingPropertiesForKeys: nil
    ).filter { $0.pathExtension == "txt" }
    #expect(files.count >= least)
    for file in files {
      let text = try String(contentsOf: file, encoding: .utf8)
      let recorded = try TableCase(text)
      #expect(recorded.machine.kernel == version, "\(file.lastPathComponent)")
      #expect(!recorded.operations.isEmpty, "\(file.lastPathComponent)")
      let kernel = text.split(separator: "\n").filter { !$0.hasPrefix("#") }.map(String.init)
      let model = recorded.played
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
    let read = try TableCase(text)
    #expect(Self.text(of: read) == text)
  }

  @Test func caseOfAnotherVersionIsWrittenAsItIsRead() throws {
    let text = """
      kernel 7.3
      machine granule=4K ipa=52 fwb=yes xnx=no tlbrange=yes pa=52
      map 0x40000000 0x1000 0x80000000 rwpn shared ignore-eagain no-memory
      annotate 0x0 0x1000 0x2 0xabcde
      test-young 0x0 0x4000 0x1
      split 0x0 0x200000 0x201
      create-unlinked 0x40000000 0x2 rwu 0x1
      free-unlinked
      destroy-range 0x0 0x1000
      """
    #expect(Self.text(of: try TableCase(text)) == text)
  }

  private static func text(of read: TableCase) -> String {
    (read.machine.header + read.operations.map(\.description)).joined(separator: "\n")
  }

  @Test(arguments: [
    "", "map 0x0", "machine granule=5K ipa=40 fwb=no", "machine granule=4K ipa=49 fwb=no",
    "machine granule=4K ipa=40 fwb=no\nmap 0x0 0x1000 0x0",
    "machine granule=4K ipa=40 fwb=no\nseek 4",
    "machine granule=4K ipa=40 fwb=no\nleaf 0x0 0x0",
    "machine granule=4K ipa=40 fwb=no\nrelax 0x0 q",
    "machine granule=4K ipa=40 fwb=no\nexplode 0x0", "kernel 6.2\nmachine granule=4K ipa=40 fwb=no",
    "machine granule=4K ipa=40 fwb=no lpa=yes", "kernel 6.12\nmachine granule=4K ipa=52 fwb=no",
    "machine granule=4K ipa=40 fwb=no\nsplit 0x0 0x1000 0x1",
    "kernel 5.10\nmachine granule=4K ipa=40 fwb=no\nset-owner 0x0 0x1000 0x1",
    "machine granule=4K ipa=40 fwb=no pa=52", "machine granule=4K ipa=40 cpu=max fwb=no",
    "machine granule=4K ipa=40 fwb=no\nhide 0x0 0x100",
    "machine granule=4K ipa=40 fwb=no\nleaf 0x+1",
    "machine granule=4K ipa=40 fwb=no\n\n  result 0",
    "kernel 6.12\nmachine granule=4K ipa=40 fwb=no\ncreate-unlinked 0x0 0x3 rw 0x0",
    "machine granule=4K ipa=40 fwb=no\nmachine granule=4K ipa=40 fwb=no",
    "#" + String(repeating: "x", count: 254) + "\nmachine granule=4K ipa=40 fwb=no",
  ])
  func whatIsNoCaseIsRefused(text: String) {
    #expect(throws: CaseError.self) { try TableCase(text) }
  }

  /// A text that comes in parts has the same lines, whatever the parts are.
  @Test(arguments: [1, 2, 7, 64])
  func partsOfATextDoNotMatter(size: Int) throws {
    let text = "machine granule=4K ipa=40 fwb=no\n\n# Ä\nleaf 0x0\n  result ERANGE"
    var rest = Array(text.utf8)[...]
    var lines = TextLines(parts: {
      defer { rest = rest.dropFirst(size) }
      return Array(rest.prefix(size))
    })
    var read: [String] = []
    while let line = try lines.next() { read.append(line) }
    #expect(read.joined(separator: "\n") == text)
    #expect(lines.number == 5)
  }

  /// The fuzzer has its own random numbers, so that a seed gives the same operations on every machine.
  @Test func seedGivesTheSameNumbers() {
    var random = Random(seed: 0)
    #expect(random.next() == 0xe220_a839_7b1d_cdaf)
    #expect((0..<1000).allSatisfy { _ in (0..<7).contains(random.below(7)) })
  }
}
