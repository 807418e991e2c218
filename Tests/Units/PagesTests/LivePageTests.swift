import Foundation
import Stage2Sim
import Testing

@testable import Pages

/// Tests of the page of a running daemon, from texts as its tree has them.
@Suite struct LivePageTests {
  private static let configuration = VirtualMachine.Configuration(
    backing: .anonymous, memorySize: 64 << 20)

  private static func walk(_ entry: String) -> String {
    """
    walk of 0x40000000: 4K granule, 40-bit IPA, start level 1

    level  table        index  entry             is
        1  0x0100000000      1  0000000100002003  table at 0x100002000
        2  0x0100002000      0  0000000100003003  table at 0x100003000
        3  0x0100003000      0  \(entry)  page of 4 KiB at 0x200400000

    field        bits     value   is

    """
  }

  private static func hide(_ time: String, _ old: String, _ new: String) -> String {
    [
      "kvm_exit: TRAP: HSR_EC: 0x0024 (DABT_LOW), PC: 0x0000000040200000",
      "kvm_guest_fault: ipa 0xb000000, hsr 0x93000045, hxfar 0xffff800008000000, pc 0x00000040200000",
      "console: MMIO to HIDE and SEEK register detected, len: 1",
      "virt_walker_visit: level 1 table 0x100000000 index 1 entry 0000000100002003",
      "virt_walker_visit: level 2 table 0x100002000 index 0 entry 0000000100003003",
      "virt_walker_visit: level 3 table 0x100003000 index 0 entry \(old)",
      "virt_walker_hide: byte 0x41 entry \(old) -> \(new)",
      "virt_walker_warning: stale TLB entries possible: \(old) became \(new) with no invalidation",
      "kvm_entry: PC: 0x0000000040200000",
    ].map { "    virt-walkerd-7       [000] ..... \(time): \($0)\n" }.joined()
  }

  private struct Changes: Decodable {
    struct Content: Decodable {
      struct Machine: Decodable { let steps: [[Int]] }

      let strings: [String]
      let lists, walks: [[Int]]
      let machines: [Machine]
    }

    let epoch: Int
    let isNew: Bool
    let content: Content
  }

  private static func changes(_ page: LivePage, _ epoch: Int, _ step: Int) throws -> Changes {
    try JSONDecoder().decode(
      Changes.self, from: Data(page.changes(sinceEpoch: epoch, step: step).utf8))
  }

  private static func page() -> LivePage {
    LivePage(title: "/dev/x", description: "a machine", configuration: configuration)
  }

  @Test func stepOfAHide() throws {
    var page = Self.page()
    let isNew =
      page.take(
        trace: Self.hide("12.000001", "00000002004007ff", "02080002004007ff"),
        guestLog: "[   12.000001] write length: 1 bytes\n[   99.000001] later\n",
        walk: Self.walk("02080002004007ff"))
    #expect(isNew)
    let changes = try Self.changes(page, 0, 0)
    #expect(changes.isNew && changes.epoch == 1)
    let content = changes.content
    let step = try #require(content.machines[0].steps.first)
    #expect(content.strings[step[0]] == "byte 0x41 'A' is hidden")
    func texts(_ part: Int) -> [String] { content.lists[step[part]].map { content.strings[$0] } }
    #expect(texts(9) == ["write length: 1 bytes"])
    #expect(texts(10) == ["MMIO to HIDE and SEEK register detected, len: 1"])
    #expect(texts(8).count == 1)
    #expect(content.lists[step[3]].count == 3)
    #expect(content.lists[step[2]].count == 3 * 9)
    // The walk before has the entry before, and that after has the byte.
    let walks = content.lists[step[4]]
    #expect(walks.count == 2 && walks[0] != walks[1])
  }

  /// A watcher gets only what it has not got yet.
  @Test func changesAreParts() throws {
    var page = Self.page()
    _ = page.take(
      trace: Self.hide("1.000001", "00000002004007ff", "02080002004007ff"), guestLog: "",
      walk: Self.walk("02080002004007ff"))
    let first = try Self.changes(page, 0, 0)
    _ = page.take(
      trace: Self.hide("2.000001", "02080002004007ff", "02080002004007ff"), guestLog: "",
      walk: Self.walk("02080002004007ff"))
    let second = try Self.changes(page, 1, 1)
    #expect(!second.isNew)
    #expect(second.content.machines[0].steps.count == 1)
    let whole = try Self.changes(page, 7, 1)
    #expect(whole.isNew)
    #expect(whole.content.strings == first.content.strings + second.content.strings)
    #expect(whole.content.lists == first.content.lists + second.content.lists)
    #expect(
      whole.content.machines[0].steps
        == first.content.machines[0].steps + second.content.machines[0].steps)
  }

  /// A page of many steps begins anew, and a watcher of the old one gets the whole new one.
  @Test func pageBeginsAnew() throws {
    var page = Self.page()
    for number in 0...LivePage.mostSteps {
      _ = page.take(
        trace: Self.hide("\(number).000001", "00000002004007ff", "02080002004007ff"),
        guestLog: "", walk: Self.walk("02080002004007ff"))
    }
    #expect(page.stepCount == 1)
    #expect(page.epoch == 2)
    let changes = try Self.changes(page, 1, LivePage.mostSteps)
    #expect(changes.isNew && changes.epoch == 2 && changes.content.machines[0].steps.count == 1)
  }

  /// A tree without events has one step, and lines that are no events make none.
  @Test func treeWithoutEvents() {
    var page = Self.page()
    let first = page.take(trace: "", guestLog: "", walk: Self.walk("0000000000000000"))
    let second = page.take(trace: "CPU:0 [LOST 3 EVENTS]\n# tracer\n", guestLog: "", walk: "")
    #expect(first && !second)
    #expect(page.stepCount == 1)
  }

  /// On a real kernel, each event has its own time, and the guest takes interrupts all the time.
  @Test func traceOfARealKernel() throws {
    func lines(_ texts: [String], from time: Int) -> String {
      texts.enumerated().map {
        "            vcpu-33      [000] d..2.     6.\(time + $0.offset): \($0.element)\n"
      }.joined()
    }
    let idle = [
      "kvm_entry: PC: 0xffffffc008355e84",
      "kvm_exit: TRAP: HSR_EC: 0x0001 (WFx), PC: 0xffffffc008355e84",
      "kvm_halt_poll_ns: vcpu 0: halt_poll_ns 0 (shrink 0)",
    ]
    let access = [
      "kvm_entry: PC: 0xffffffc008355e84",
      "kvm_exit: TRAP: HSR_EC: 0x0024 (DABT_LOW), PC: 0xffffffc00037005c",
      "kvm_guest_fault: ipa 0xb000000, hsr 0x93010045, hxfar 0xffffffc0086b1000, pc 0xffffffc00037005c",
    ]
    var page = Self.page()
    _ = page.take(trace: "", guestLog: "", walk: Self.walk("00000002004007ff"))
    var isNew = page.take(trace: lines(idle, from: 100_001), guestLog: "", walk: "")
    #expect(!isNew && page.hasOpenStep)
    isNew = page.take(trace: "", guestLog: "", walk: "")
    #expect(!isNew && !page.hasOpenStep)
    let walk = Self.walk("02180002004007ff")
    // The entry of the access comes later than its exit.
    isNew = page.take(trace: lines(access, from: 200_001), guestLog: "", walk: walk)
    #expect(!isNew)
    isNew = page.take(trace: lines(idle, from: 300_001), guestLog: "", walk: walk)
    #expect(isNew && page.stepCount == 2)
    let content = try Self.changes(page, 0, 0).content
    let title = content.strings[try #require(content.machines[0].steps.last)[0]]
    #expect(title.hasSuffix("at 0xb000000"), "\(title)")
  }

  /// Whatever the texts are, the page stays a page.
  @Test(arguments: [
    "x [000] ..... 1.0: kvm_guest_fault: ipa, hsr 0xzz, hxfar",
    "x [000] ..... 1.0: virt_walker_visit: level 9 table 0x1 index 99999999999999999999 entry -",
    "x [000] ..... 1.0: virt_walker_hide: byte 0x100 entry",
    "x [000] ..... 1.0: </script><script>alert(1)</script>: text",
    "x [000] ..... 1.0: virt_walker_visit: level 3 table 0xffffffffffffffff index 4096 entry ffffffffffffffff",
  ])
  func hostileLines(_ line: String) throws {
    var page = Self.page()
    _ = page.take(
      trace: line + "\n", guestLog: "[nonsense\n]\n[ 1.0]",
      walk: "level  table\n 3 zz 1 zz page\n 9 1 1 1 page\n")
    let html = page.html(controls: LiveControl.all)
    #expect(html.components(separatedBy: "<script").count == 4)
    _ = try Self.changes(page, 0, 0)
  }

  /// The policy of a live page allows connections to its own server only. A page for watching has no lines for control.
  @Test func liveParts() {
    var page = Self.page()
    _ = page.take(trace: "", guestLog: "", walk: Self.walk("0000000000000000"))
    let watching = page.html(controls: [])
    #expect(watching.contains(" connect-src 'self'; style-src"))
    #expect(!watching.contains("host madvise dontneed"))
    #expect(
      page.html(controls: LiveControl.all).contains("host madvise dontneed 0x40000000 0x1000"))
  }
}
