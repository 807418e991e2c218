import CharacterDeviceServer
import Inspection
import SeededRandom
import Stage2Sim
import SystemPackage
import Testing

@Suite struct ControlTests {
  @Test func theResultIsARecording() throws {
    let device = try Device(.init(backing: .anonymous))
    try device.hide(0x5a)
    #expect(try device.read("control") == "")
    try device.write("host madvise dontneed 0x40000000 0x1000", to: "control")
    let lines = try device.lines("control")
    #expect(lines.prefix(2) == ["host madvise dontneed 0x40000000 0x1000", "  result 0"])
    let last = try #require(lines.last)
    #expect(
      last.wholeMatch(
        of:
          /[ ]{2}leaf 0x40000000 level 3 02d00000000007[0-9a-f]{2} @A counts [0-9 ]+ -> level [23] 0000000000000000 counts [0-9 ]+/
      ) != nil, "\(last)")
    #expect(try device.seek() == 0)
  }

  /// With the largest guest RAM, there is still room for the VMM itself.
  @Test(arguments: [32, 40, 48], Backing.allCases)
  func theLargestMachine(ipaBits: Int, backing: Backing) throws {
    let sizes = VirtualMachine.Configuration.memorySizes(ipaBits: ipaBits)
    let device = try Device(
      .init(cpu: .max, ipaBits: ipaBits, backing: backing, memorySize: sizes.upperBound))
    try device.hide(0x5a)
    let last = VirtualMachine.Configuration.memoryBase + sizes.upperBound - 8
    try device.write("guest ldr x0,[\(last)]\n", to: "control")
    #expect(try device.lines("control")[1] == "  run retired pc +4 x0 0x0")
    #expect(try device.seek() == 0x5a)
  }

  /// A store of the guest to HIDE changes the byte of the device.
  @Test func theGuestCanHide() throws {
    let device = try Device()
    try device.write("guest strb w0,[0x0b000000] x0=0x77\n", to: "control")
    #expect(try device.seek() == 0x77)
    try device.hide(0x41)
    try device.write("guest ldrb w0,[0x0b000001]\n", to: "control")
    #expect(try device.lines("control")[1] == "  run retired pc +4 x0 0x41")
  }

  /// A guest that hangs is interrupted, as in the recorder, and the device continues.
  @Test func theGuestCanHang() throws {
    let device = try Device(.init(cpu: .cortexA76, backing: .anonymous))
    try device.hide(0x04)
    try device.write("guest fetch 0x40000000\n", to: "control")
    #expect(try device.lines("control")[1].hasPrefix("  run hung "))
    #expect(try device.seek() == 0x04)
    #expect(try device.read("trace").contains("virt_walker_warning: the guest hangs: "))
  }

  @Test func manyLines() throws {
    let device = try Device()
    let text = "# a comment\n\nhost fork\nhost end-fork\n"
    try device.write(text, to: "control")
    #expect(
      try device.lines("control").filter { !$0.hasPrefix("  ") } == [
        "# a comment", "", "host fork", "host end-fork",
      ])
    try device.write("", to: "control")
  }

  @Test(arguments: [
    ("host fork\nhost spoon\n", "2:6: expected "),
    ("host madvise dontneed 0x40000000", "1:33: expected a size"),
    ("guest strb w0;[0x0b000000]", "1:"), ("\nnothing", "2:1: expected guest or host"),
    ("host fork \n", "1:10: expected"), ("host\tfork", "1:5: expected printable ASCII"),
    ("machine cpu=max", "1:1: expected guest or host: the machine runs already"),
    ("  result 0", "1:1: expected"), (String(repeating: "x", count: 300), "1:255: expected"),
    ("host fork\n#" + String(repeating: " ", count: 254), "2:255: expected the end of the line"),
  ])
  func aBadLineChangesNothing(text: String, message: String) throws {
    let device = try Device(.init(backing: .anonymous))
    try device.hide(0x41)
    let state = device.state
    let files = ["trace", "stats", "guest/dmesg", "host/dmesg", "metrics"]
    let before = try files.map(device.read)
    #expect(throws: Errno.invalidArgument) { try device.write(text, to: "control") }
    #expect(device.state == state)
    #expect(try files.map(device.read) == before)
    let result = try device.read("control")
    #expect(result.hasPrefix(message), "\(result)")
    #expect(try device.lines("control").count == 1)
  }

  /// A client that writes buffers of whole pages divides the text at any place.
  @Test(arguments: [4096, 8192, 65_536])
  func longTexts(buffer: Int) throws {
    let device = try Device()
    let lines = (0..<20_000).map { "host read 0x\(String(0x4000_0000 + 4 * $0, radix: 16))\n" }
    var rest = Array(lines.joined().utf8)[...]
    let writer = try device.writer("control")
    var addresses: [Substring] = []
    while !rest.isEmpty {
      let part = rest.prefix(buffer)
      rest = rest.dropFirst(buffer)
      try device.write(Array(part), by: writer)
      addresses += try device.lines("control").filter { !$0.hasPrefix("  ") }
    }
    try device.finish(writer.finish())
    #expect(addresses.map { "\($0)\n" } == lines)
  }

  /// The last line has no newline, and fills the buffer.
  @Test func theLastLineOfAFullBuffer() throws {
    let device = try Device()
    let line = "host fork"
    let text = String(repeating: "#\n", count: (4096 - line.utf8.count - 1) / 2) + "\n" + line
    #expect(text.utf8.count == 4096)
    let writer = try device.writer("control")
    try device.write(Array(text.utf8), by: writer)
    #expect(try !device.read("control").contains("fork"))
    try device.finish(writer.finish())
    let lines = try device.lines("control")
    #expect(lines.prefix(2) == ["host fork", "  result 0"])
  }

  // MARK: - Long writes

  /// Between the steps of a long write, the device and the files answer.
  @Test func othersAreServedBetweenTheSteps() throws {
    let device = try Device()
    let lines = (0..<3000).map { _ in "host read 0x40000000\n" }.joined()
    let work = try #require(try device.writer("control").write(Array(lines.utf8).span))
    var turns = 0
    var progress = work.proceed()
    while progress == .unfinished {
      turns += 1
      try device.hide(UInt8(turns))
      #expect(try device.seek() == UInt8(turns))
      // The file still has the result of the last finished write.
      #expect(try device.read("control") == "")
      // No step is performed before all lines were read.
      if turns == 1 { #expect(try device.read("stats").contains("\nsteps 0\n")) }
      progress = work.proceed()
    }
    #expect(turns > 20)
    #expect(progress == .finished)
    #expect(try device.lines("control").count == 12_000)
  }

  @Test func theTimeLimit() throws {
    let device = try Device()
    let lines = "# first\n" + (0..<2000).map { _ in "host read 0x40000000\n" }.joined()
    let work = try #require(try device.writer("control").write(Array(lines.utf8).span))
    while try device.read("stats").contains("\nsteps 0\n") {
      #expect(work.proceed() == .unfinished)
    }
    device.wait(seconds: 11)
    #expect(work.proceed() == .failed(.timedOut))
    let steps = try #require(
      try device.read("stats").firstMatch(of: /\nsteps ([0-9]+)/).flatMap { Int($0.output.1) })
    #expect((1..<2000).contains(steps))
    #expect(
      try device.lines("control").last
        == "# The write has ended early: a write may take 10 s of CPU time at most. Steps done: \(steps) of 2000. The first line that was not done is line \(steps + 2): write the rest once more."
    )
    #expect(try device.lines("control").first == "# first")
  }

  /// The longest steps can be interrupted, and the machine continues afterwards.
  @Test(arguments: ["host ksm", "host madvise populate-write 0x40000000 0x2000000"])
  func aLongStepIsInterrupted(step: String) throws {
    let device = try Device(.init(backing: .anonymous))
    if step == "host ksm" {
      try device.write(
        "host madvise populate-write 0x40000000 0x2000000\nhost madvise mergeable 0x40000000 0x2000000\n",
        to: "control")
    }
    let text = Array("\(step)\nhost fork\n".utf8)
    let work = try #require(try device.writer("control").write(text.span))
    var asked = 0
    device.device.onLongStep = {
      asked += 1
      if asked == 3 { work.interrupt() }
      return true
    }
    #expect(work.proceed() == .unfinished)
    #expect(work.proceed() == .failed(.interrupted))
    #expect(asked == 3)
    let lines = try device.lines("control")
    #expect(lines.prefix(2) == [step[...], "  result EINTR"])
    #expect(
      lines.last
        == "# The write has ended early: its writer was interrupted. Steps done: 1 of 2. The first line that was not done is line 2: write the rest once more."
    )
    // The answer false means that the daemon ends.
    device.device.onLongStep = { false }
    try device.write(step, to: "control")
    #expect(try device.lines("control")[1] == "  result EINTR")
    device.device.onLongStep = nil
    try device.write("host madvise populate-write 0x40000000 0x2000000", to: "control")
    #expect(try device.lines("control")[1] == "  result 0")
    try device.hide(0x41)
    #expect(try device.seek() == 0x41)
  }

  /// The rest of a write, which begins a line of the next write, is dropped if the write fails.
  @Test func nothingIsLeftOfAFailedWrite() throws {
    let device = try Device()
    for first in ["host spoon", "host fork"] {
      let writer = try device.writer("control")
      let text = first + "\n" + String(repeating: "#\n", count: (4096 - first.utf8.count - 10) / 2)
      let filled = text + String(repeating: "h", count: 4096 - text.utf8.count)
      let work = try #require(try writer.write(Array(filled.utf8).span))
      if first == "host fork" {
        #expect(work.proceed() == .unfinished)
        work.interrupt()
      } else {
        #expect(throws: Errno.invalidArgument) { try device.finish(work) }
      }
      #expect(writer.finish() == nil)
    }
  }

  @Test func aResetEndsAWrite() throws {
    let device = try Device()
    let lines = (0..<2000).map { _ in "host fork\nhost end-fork\n" }.joined()
    let work = try #require(try device.writer("control").write(Array(lines.utf8).span))
    while try device.read("stats").contains("\nsteps 0\n") {
      #expect(work.proceed() == .unfinished)
    }
    try device.write("1", to: "reset")
    #expect(work.proceed() == .failed(.canceled))
    #expect(try device.read("control").contains("ended early: the machine was booted anew. "))
  }

  /// The result of many steps can exceed the maximum size of the file.
  @Test func theResultHasASize() throws {
    var machine = VirtualMachine.Configuration(backing: .anonymous, memorySize: 64 << 20)
    // With manual protection, reading the log does not clear it.
    machine.dirtyLogProtection = .manual
    let device = try Device(machine)
    let stores = stride(from: 0x4000_0000, to: 0x4200_0000, by: 0x2000).map {
      "guest str w0,[0x\(String($0, radix: 16))]\n"
    }
    try device.write("host dirty-log on\n" + stores.joined(), to: "control")
    try device.write(String(repeating: "host dirty-log get\n", count: 120), to: "control")
    let text = try device.read("control")
    #expect(text.utf8.count <= 8 << 20 + 100)
    let end = String(text.suffix(100))
    #expect(end.contains(/\n# [0-9]+ more lines are left out: this file has at most 8 MiB[.]\n$/))
  }

  // MARK: - Text of other users

  /// A comment is shown, but its control characters do not reach the terminal.
  @Test(arguments: [
    ("# \u{1b}]0;title\u{7}\u{1b}[2J", "# \\x1b]0;title\\x07\\x1b[2J"),
    ("#\ttab\r", "#\\x09tab\\x0d"), ("# \u{9b}31m", "# \\x9b31m"), ("# \u{7f}\0", "# \\x7f\\x00"),
    ("# \u{202e}drow", "# \\u{202e}drow"), ("# Grüße, 世界", "# Grüße, 世界"),
  ])
  func commentsArePrintable(comment: String, shown: String) throws {
    let device = try Device()
    try device.write("\(comment)\nhost fork\n", to: "control")
    #expect(try device.lines("control").first == shown[...])
    #expect(throws: Errno.invalidArgument) {
      try device.write("\(comment)\nhost f\u{1b}[31mork\n", to: "control")
    }
    let error = try device.read("control")
    #expect(error.utf8.allSatisfy { $0 == 0x0a || 0x20...0x7e ~= $0 }, "\(error)")
  }

  // MARK: - A guest that has stopped

  @Test func whatAStoppedGuestLeaves() throws {
    let device = try Device(.init(backing: .anonymous))
    var stops: [String] = []
    device.device.onGuestStop = { stops.append($0) }
    func expect(stopped isStopped: Bool) throws {
      for name in ["walk", "control"] {
        let text = try device.read(name)
        #expect(text.contains("The guest has stopped: ") == isStopped)
        #expect(text.contains(" abort esr=") == isStopped)
        #expect(text.contains("echo 1 > reset\n") == isStopped)
      }
      #expect(try device.lines("stats").last == (isStopped ? "guest_stopped 1" : "guest_stopped 0"))
      let gauge = "virt_walker_guest_stopped{node=\"/dev/test\"} \(isStopped ? 1 : 0)\n"
      #expect(try device.read("metrics").contains(gauge))
    }
    try expect(stopped: false)
    try device.write("host slot delete", to: "control")
    for _ in 0..<3 { #expect(throws: Errno.ioError) { try device.seek() } }
    try expect(stopped: true)
    #expect(stops.count == 1 && stops[0].contains(", abort esr="), "\(stops)")
    // The slot exists again, so the guest continues.
    try device.write("host slot add", to: "control")
    _ = try device.seek()
    try expect(stopped: false)
    try device.write("host slot delete", to: "control")
    #expect(throws: Errno.ioError) { try device.hide(1) }
    #expect(stops.count == 2)
    try device.write("1", to: "reset")
    try expect(stopped: false)
    _ = try device.seek()
  }

  /// Thousands of mutations of lines of the language. A refused line changes nothing, and the message has the place of
  /// the error.
  @Test func malformedInput() throws {
    let device = try Device(.init(backing: .anonymous))
    try device.hide(0x41)
    let lines = [
      "guest strb w0,[0x0b000000] x0=0x5a", "guest ldr x0,[0x40001000]", "guest fetch 0x40000000",
      "host write 0x40000000 0xf900013f", "host madvise dontneed 0x40000000 0x1000",
      "host mprotect ro 0x40000000 0x1000", "host dirty-log clear 0x40000000 0x40000",
      "host slot move 0x40400000", "host age 0x40000000", "host fork",
    ]
    var random = SplitMix64(seed: 5)
    var refused = 0
    for _ in 0..<20_000 {
      var text = Array(lines.randomElement(using: &random)!.utf8)
      for _ in 0...Int.random(in: 0..<3, using: &random) {
        let place = Int.random(in: 0...text.count, using: &random)
        switch Int.random(in: 0..<5, using: &random) {
        case 0: text.insert(UInt8.random(in: 0...255, using: &random), at: place)
        case 1: text.insert(0x20, at: place)
        case 2 where place < text.count: text.remove(at: place)
        case 3 where place < text.count: text[place] = UInt8.random(in: 0...255, using: &random)
        case 4:
          text += Array("\n".utf8) + lines.randomElement(using: &random)!.utf8.dropLast(place % 5)
        default: text.removeLast(text.count - place)
        }
      }
      let state = device.state
      let stats = try device.read("stats")
      do {
        try device.write(String(decoding: text, as: UTF8.self), to: "control")
        try device.write("1", to: "reset")
      } catch let error as Errno {
        refused += 1
        #expect(error == .invalidArgument)
        #expect(device.state == state)
        #expect(try device.read("stats") == stats)
        let result = try device.read("control")
        #expect(result.wholeMatch(of: /[0-9]+:[0-9]+: expected [^\n]*\n/) != nil, "\(result)")
      }
    }
    #expect((5_000...19_900).contains(refused), "\(refused)")
  }

  @Test func reset() throws {
    let device = try Device(.init(backing: .anonymous))
    let start = device.state
    try device.hide(0x41)
    try device.write("host slot delete\nguest ldr w0,[0x40000000]\n", to: "control")
    #expect(throws: Errno.ioError) { try device.seek() }
    for text in ["", "0", "2\n", "11", "1 ", "yes"] {
      let state = device.state
      #expect(throws: Errno.invalidArgument) { try device.write(text, to: "reset") }
      #expect(device.state == state)
    }
    try device.write("1\n", to: "reset")
    #expect(device.state == start)
    #expect(try device.seek() == 0)
    #expect(try device.read("stats").contains("failures 1\n"))
  }
}
