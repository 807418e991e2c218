import Foundation
import Hashing
import Inspection
import Scenarios
import Stage2Sim
import Testing

@testable import Pages

/// Tests of the file that `--page` writes. scripts/ci/check-page tests the page in a browser.
@Suite struct PageTests {
  private static func content(_ lines: [String], name: String = "test") throws -> PageContent {
    let machine = try MachineDescription(
      parsing: "machine cpu=cortex-a76 backing=anonymous memory=64M")
    var content = PageContent()
    content.addMachine(name: name, description: "\(machine)")
    let recorder = PageRecorder(try StepTracer(machine))
    for (index, line) in lines.enumerated() {
      try recorder.perform(try Step(parsing: line), line: index + 2, into: &content)
    }
    return content
  }

  private static let steps = [
    "guest str w0,[0x40000000] x0=0xf900013f", "guest strb w0,[0x0b000000] x0=0x48",
    "guest fetch 0x40000000", "host madvise dontneed 0x40000000 0x1000",
  ]

  /// The data of a page, as its script reads them.
  private struct PageData: Decodable {
    struct Machine: Decodable {
      let name, machine: Int
      let notes: [Int]
      let steps: [[Int]]
    }

    let strings: [String]
    let layouts: [[[Int]]]
    let walks, lists: [[Int]]
    let machines: [Machine]

    init(_ content: PageContent) throws {
      self = try JSONDecoder().decode(PageData.self, from: Data(content.json.utf8))
    }

    func texts(_ list: Int) -> [String] { lists[list].map { strings[$0] } }

    /// The events of a step: depth, kind and text.
    func events(ofStep step: Int) -> [(depth: Int, kind: String, text: String)] {
      let list = lists[machines[0].steps[step][2]]
      return stride(from: 0, to: list.count, by: 3).map {
        (list[$0], strings[list[$0 + 1]], strings[list[$0 + 2]])
      }
    }
  }

  /// The functions of KVM are there in the order of their calls, each inside of its caller.
  @Test func pathThroughTheKernel() throws {
    let data = try PageData(Self.content(Self.steps))
    let calls = data.events(ofStep: 2).filter { ["call", "walk"].contains($0.kind) }
      .map { "\($0.depth) \($0.text)" }
    #expect(
      calls == [
        "0 kvm_handle_guest_abort", "1 user_mem_abort", "2 hva_to_pfn",
        "2 kvm_pgtable_stage2_relax_perms", "3 stage2_attr_walker: 0x40000000-0x40001000",
        // The store by which the recorder leaves the guest.
        "0 kvm_handle_guest_abort", "1 io_mem_abort", "0 kvm_handle_mmio_return",
      ])
    let unmapped = data.events(ofStep: 3).filter { ["call", "walk"].contains($0.kind) }
      .map { "\($0.depth) \($0.text)" }
    #expect(
      unmapped == [
        "0 kvm_mmu_notifier_invalidate_range_start", "1 stage2_apply_range",
        "2 kvm_pgtable_stage2_unmap", "3 stage2_unmap_walker: 0x40000000-0x40001000",
      ])
  }

  /// A step has the observations of a recording, and only the aborts that are observations.
  @Test func partsOfAStep() throws {
    let data = try PageData(Self.content(Self.steps))
    let step = data.machines[0].steps[2]
    #expect(data.strings[step[0]] == "guest fetch 0x40000000")
    #expect(step[1] == 4)
    #expect(data.lists[step[3]].count == 3)
    #expect(data.texts(step[6])[1] == "abort esr=8200000f far=0000000040000000 hpfar=0000400000")
    #expect(data.texts(step[7]) == ["0x40000000, level 3, all CPUs"])
    let hide = data.machines[0].steps[1]
    #expect(data.texts(hide[10]) == ["MMIO to HIDE and SEEK register detected, len: 1"])
    #expect(data.lists[hide[4]].count == 4)
  }

  /// Steps that are the same are the same numbers: a recording of many steps is small.
  @Test func equalStepsAreSmall() throws {
    let step = "guest ldrb w0,[0x0b000001]"
    let few = try Self.content(Array(repeating: step, count: 10)).json.utf8.count
    let many = try Self.content(Array(repeating: step, count: 1010)).json.utf8.count
    #expect(many - few < 1000 * 60, "\(few) and \(many) bytes")
  }

  /// All bits of a word are in its fields, once.
  @Test func fieldsHaveAllBits() throws {
    let data = try PageData(Self.content(Self.steps))
    #expect(data.layouts.count >= 5)
    for layout in data.layouts {
      #expect(layout.last?[2] == 0)
      for (field, next) in zip(layout, layout.dropFirst()) {
        #expect(field[1] >= field[2])
        #expect(field[2] == next[1] + 1)
      }
    }
  }

  /// The style and the script of a page are those of the policy, which allows nothing else.
  @Test func policyAllowsTheScriptOfThePage() throws {
    let html = Page(try Self.content(Self.steps), title: "test").html
    func part(_ start: String, _ end: String) throws -> String {
      let from = try #require(html.range(of: start)).upperBound
      return String(
        html[from..<(try #require(html.range(of: end, range: from..<html.endIndex)).lowerBound)])
    }
    let script = InputHash.base64SHA256(Array(try part("<script>", "</script>").utf8))
    let style = InputHash.base64SHA256(Array(try part("<style>", "</style>").utf8))
    #expect(
      try part("Content-Security-Policy\" content=\"", "\">")
        == "default-src 'none'; script-src 'sha256-\(script)'; style-src 'sha256-\(style)'; base-uri 'none'; form-action 'none'"
    )
    for word in ["http:", "https:", "innerHTML", "eval(", "<link", "<img", "{{"] {
      let isThere = html.contains(word)
      #expect(!isThere, "\(word)")
    }
  }

  /// A text from outside is text on the page, whatever its characters are.
  @Test func textsAreEscaped() throws {
    let name = "</script><script>alert(1)</script>&amp;\"'\u{1b}[31m\u{202e}\u{2028}"
    let html = Page(try Self.content([], name: name), title: name).html
    #expect(html.components(separatedBy: "<script").count == 3)
    #expect(html.components(separatedBy: "</script").count == 3)
    #expect(
      html.contains(
        "<title>&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;amp;&quot;&#39;\\x1b[31m\\u{202e}\\u{2028}</title>"
      ))
    let data = try PageData(Self.content([], name: name))
    #expect(data.strings[data.machines[0].name] == name.printable)
  }

  /// A step with many events has the first ones, and says that there are more.
  @Test func manyEvents() throws {
    let lines = (0..<300).map { "guest ldr w0,[\(hex(0x4000_0000 + UInt64($0) << 12))]" }
    let data = try PageData(Self.content(lines + ["host madvise dontneed 0x40000000 0x200000"]))
    let events = data.events(ofStep: 300)
    #expect(events.count == PageRecorder.mostEvents + 1)
    #expect(events.last?.kind == "left out")
  }
}
