import Inspection
import Stage2Sim
import Testing

@Suite struct CounterTests {
  /// The counters, by name.
  private func stats(_ device: Device) throws -> [Substring: Int] {
    try Dictionary(
      device.lines("stats").map { line in
        let words = line.split(separator: " ")
        return (words[0], try #require(Int(words[1])))
      },
      uniquingKeysWith: { first, _ in
        Issue.record("a name appears twice")
        return first
      })
  }

  @Test func whatIsCounted() throws {
    let device = try Device(.init(backing: .anonymous))
    #expect(try stats(device).values.allSatisfy { $0 == 0 })
    try device.hide(0x41)
    for _ in 0..<3 { _ = try device.seek() }
    try device.write(
      "guest ldr w0,[0x40001000]\nguest str w0,[0x40001000]\n# nothing\nguest ldr w0,[0x0a000000]\n",
      to: "control")
    let stats = try stats(device)
    #expect(stats["reads"] == 3 && stats["writes"] == 1 && stats["failures"] == 0)
    #expect(stats["walks"] == 4 && stats["visits"] == 12)
    #expect(stats["steps"] == 3 && stats["resets"] == 0)
    let faults = stats.filter { $0.key.hasPrefix("faults_") }
    #expect(faults.values.reduce(0, +) == stats["aborts"])
    #expect(stats["faults_permission"]! >= 1 && stats["faults_access_flag"] == 0)
    // Two steps end in a store that the VMM gets, and the last step in a load that the VMM answers.
    #expect(stats["mmio_exits"] == 3)
    #expect(stats["bytes_lost"] == 0 && stats["bytes_changed"] == 0)
  }

  /// A lost byte is counted once, whatever happens later.
  @Test func bytesLostAndChanged() throws {
    let device = try Device(.init(backing: .anonymous))
    func play(_ line: String) throws { try device.write(line, to: "control") }
    try device.hide(0x48)
    try play("host write 0x40000000 0xf900013f\nguest fetch 0x40000000\n")
    // The guest has executed, and KVM has cleared XN[1].
    #expect(try stats(device)["bytes_changed"] == 1)
    #expect(try device.seek() == 0x40)
    try device.hide(0x41)
    try play("host dirty-log on\nhost age 0x40000000\n")
    #expect(try stats(device)["bytes_lost"] == 0)
    try play("host madvise dontneed 0x40000000 0x1000\n")
    #expect(try stats(device)["bytes_lost"] == 1)
    try play("guest ldr w0,[0x40000000]\nhost madvise dontneed 0x40000000 0x1000\n")
    #expect(try stats(device)["bytes_lost"] == 1)
    #expect(try stats(device)["bytes_changed"] == 1)
    // A byte that is overwritten is not counted as lost, and a byte that a reset removes is not, either.
    try device.hide(0x42)
    try device.hide(0x43)
    try device.write("1\n", to: "reset")
    #expect(try stats(device)["bytes_lost"] == 1)
    #expect(try stats(device)["resets"] == 1)
    #expect(try device.seek() == 0)
  }

  /// The owner of a node chooses its name, so the name is made printable.
  @Test func theNodesNameIsPrintable() throws {
    let device = try Device(node: "/tmp/a\u{1b}[2J\"\\\n")
    let text = try device.read("metrics")
    #expect(text.contains(#"{node="/tmp/a\\x1b[2J\"\\\n"}"#), "\(text.prefix(300))")
  }

  /// The metrics are in Prometheus' text format 0.0.4: HELP and TYPE stand once before the samples of a metric, and no
  /// sample is there twice.
  @Test func metrics() throws {
    let device = try Device()
    try device.hide(0x41)
    var typed: [Substring: Substring] = [:]
    var helped: Substring = ""
    var samples: Set<Substring> = []
    for line in try device.lines("metrics") {
      if let help = line.wholeMatch(of: /# HELP ([a-z_]+) [A-Z].*[.]/) {
        helped = help.output.1
      } else if let type = line.wholeMatch(of: /# TYPE ([a-z_]+) (counter|gauge)/) {
        #expect(type.output.1 == helped && typed[helped] == nil)
        typed[helped] = type.output.2
      } else {
        let sample = try #require(
          line.wholeMatch(
            of: /(virt_walker_[a-z_]+)\{node="\/dev\/test"(,[a-z]+="[a-z_]+")?\} ([0-9]+)/),
          "\(line)")
        #expect(sample.output.1 == helped)
        #expect((typed[helped] == "counter") == sample.output.1.hasSuffix("_total"))
        #expect(samples.insert(line.split(separator: " ")[0]).inserted)
      }
    }
    let text = try device.read("metrics")
    #expect(text.contains("\nvirt_walker_writes_total{node=\"/dev/test\"} 1\n"))
    #expect(text.contains("\nvirt_walker_hidden_byte{node=\"/dev/test\"} 65\n"))
    #expect(
      text.contains("\nvirt_walker_faults_total{node=\"/dev/test\",kind=\"translation\"} 1\n"))
    #expect(try samples.count == stats(device).count + 4)
  }
}
