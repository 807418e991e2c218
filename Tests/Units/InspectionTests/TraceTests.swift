import CharacterDeviceServer
import Inspection
import Stage2Sim
import Testing
import VirtWalkerDevice

@Suite struct TraceTests {
  /// The trace of a hide and a seek. The values are the values of the README and of Tests/Recordings.
  @Test func hideAndSeek() throws {
    let device = try Device(.init(backing: .anonymous))
    try device.hide(0x41)
    #expect(try device.seek() == 0x41)
    let lines = try device.lines("trace").filter { !$0.hasPrefix("#") }
    let events = lines.map { $0.split(separator: ": ", maxSplits: 1)[1] }
    let target = try device.engine.virtualMachine.leaf(for: HideSeek.target).descriptor
    var before = target
    before.hiddenByte = 0
    let tables = device.engine.virtualMachine.stage2.path(to: HideSeek.target)
    func visits(_ leaf: Stage2Descriptor) -> [String] {
      tables.map {
        "virt_walker_visit: level \($0.level) table \($0.table) index \($0.index) entry \($0.level == 3 ? leaf : $0.descriptor)"
      }
    }
    #expect(tables.map(\.level) == [1, 2, 3])
    let fault = "kvm_guest_fault: ipa 0xb000000, hsr 0x930000"
    let exit = "kvm_exit: TRAP: HSR_EC: 0x0024 (DABT_LOW), PC: 0x0000000040200000"
    let entry = "kvm_entry: PC: 0x0000000040200000"
    var expected = [
      exit, "\(fault)45, hxfar 0xffff800008000000, pc 0x00000040200000",
    ]
    let log = "console: MMIO to HIDE and SEEK register detected, len: 1"
    expected += [log] + visits(before)
    expected += ["virt_walker_hide: byte 0x41 entry \(before) -> \(target)", entry, exit]
    expected += ["\(fault)05, hxfar 0xffff800008000001, pc 0x00000040200000"]
    expected += [log] + visits(target)
    expected += ["virt_walker_seek: byte 0x41 entry \(target)", entry]
    #expect(events.map(String.init) == expected)
    // All events of an operation have the time of its start.
    #expect(lines[0].contains(" [000] .....    12.345679: "))
    #expect(lines[lines.count - 1].contains(" [000] .....    12.345680: "))
  }

  /// Linux prints such lines by trace_print_context and print_event_info.
  @Test func eachLineIsInFtracesFormat() throws {
    let device = try Device(.init(cpu: .cortexA76, backing: .anonymous))
    try device.hide(0x0c)
    try device.write(
      """
      guest ldr w0,[0x40001000]
      guest str w0,[0x40001000]
      guest strb w0,[0x0a000000]
      guest ldrsb w0,[0x0a000000]
      guest ldp w0,w2,[0x0a000000]
      host age 0x40001000
      guest ldr w0,[0x40001000]
      host fork
      host write 0x40001000 0x7
      host madvise dontneed 0x40000000 0x2000
      guest fetch 0x40000000

      """, to: "control")
    let lines = try device.lines("trace")
    let head = lines.prefix { $0.hasPrefix("#") }
    let events = lines.dropFirst(head.count)
    #expect(head[0] == "# tracer: nop")
    #expect(
      head[2]
        == "# entries-in-buffer/entries-written: \(events.count)/\(events.count)   #P:1")
    #expect(
      head[head.count - 2] == "#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION")
    var names: Set<Substring> = []
    for line in events {
      let match = try #require(
        line.wholeMatch(
          of:
            /[ ]{4}virt-walkerd-4711[ ]{4}\[000\] [.]{5} +[0-9]+[.][0-9]{6}: (?<name>[a-z_]+): (?<fields>.+)/
        ), "\(line)")
      names.insert(match.output.name)
      let fields = match.output.fields
      let isRight =
        switch match.output.name {
        case "kvm_entry": fields.wholeMatch(of: /PC: 0x[0-9a-f]{16}/) != nil
        case "kvm_exit":
          fields.wholeMatch(
            of:
              /(TRAP: HSR_EC: 0x002[04] \([DI]ABT_LOW\)|IRQ: HSR_EC: 0x0000 \(UNKNOWN\)), PC: 0x[0-9a-f]{16}/
          ) != nil
        case "kvm_guest_fault":
          fields.wholeMatch(
            of:
              /ipa 0x[0-9a-f]+, hsr 0x[0-9a-f]{8}, hxfar 0x[0-9a-f]{6,}, pc 0x[0-9a-f]{14,}/)
            != nil
        case "kvm_mmio":
          fields.wholeMatch(
            of:
              /mmio (unsatisfied-read|read|write) len [1248] gpa 0x[0-9a-f]+ val 0x[0-9a-f]+/)
            != nil
        case "console":
          fields == "MMIO to HIDE and SEEK register detected, len: 1"
            || fields == "more than one byte being read/write, ERROR"
            || fields == "Data abort outside memslots with no valid syndrome info"
        case "kvm_access_fault": fields.wholeMatch(of: /IPA: [0-9a-f]+/) != nil
        case "kvm_userspace_exit":
          fields.wholeMatch(
            of: /reason (KVM_EXIT_MMIO \(6\)|restart \(4\)|error \([0-9]+\))/) != nil
        case "kvm_unmap_hva_range":
          fields.wholeMatch(
            of: /mmu notifier unmap range: 0x[0-9a-f]{14} -- 0x[0-9a-f]{14}/) != nil
        case "kvm_set_spte_hva":
          fields.wholeMatch(of: /mmu notifier set pte hva: 0x[0-9a-f]{14}/) != nil
        case "kvm_age_hva":
          fields.wholeMatch(of: /mmu notifier age hva: 0x[0-9a-f]{14} -- 0x[0-9a-f]{14}/)
            != nil
        default: match.output.name.hasPrefix("virt_walker_")
        }
      #expect(isRight, "\(line)")
    }
    #expect(
      names.isSuperset(of: [
        "kvm_entry", "kvm_exit", "kvm_guest_fault", "kvm_mmio", "kvm_access_fault",
        "kvm_userspace_exit", "kvm_unmap_hva_range", "kvm_age_hva", "virt_walker_visit",
        "virt_walker_hide", "virt_walker_tlbi", "virt_walker_warning", "console",
      ]), "\(names.sorted())")
  }

  @Test func whoIsTooSlowSeesHowManyEventsAreLost() throws {
    let device = try Device(.init(backing: .anonymous))
    let pipe = try device.pipe("trace_pipe")
    let slow = pipe.makeReader()
    #expect(!slow.hasMore)
    let steady = pipe.makeReader()
    var read = ""
    for byte in 0..<4000 {
      try device.hide(UInt8(truncatingIfNeeded: byte))
      read += readAll(steady)
    }
    let lines = read.split(separator: "\n")
    let head = try device.read("trace").firstMatch(of: /entries-written: \d+\/(\d+)[ ]/)
    let written = try #require(head?.output.1)
    #expect(Int(written) == lines.count && lines.count > 4000 * 7 && !read.contains("LOST"))
    let late = readAll(slow).split(separator: "\n")
    let lost = try #require(late[0].wholeMatch(of: /CPU:0 \[LOST ([0-9]+) EVENTS\]/)?.output.1)
    #expect(Int(lost)! + late.count - 1 == lines.count)
    #expect(late.dropFirst().elementsEqual(lines.suffix(late.count - 1)))
    // A new reader begins with the events that are kept, and has lost none.
    #expect(readAll(pipe.makeReader()).split(separator: "\n") == Array(late.dropFirst()))
    #expect(pipe.size >= UInt64(read.utf8.count))
  }

  /// Each line is formatted once. Each text shows the present, whatever was read earlier.
  @Test func eachTextIsOfNow() throws {
    let device = try Device(.init(backing: .anonymous))
    let pipe = try device.pipe("trace_pipe").makeReader()
    var all: [Substring] = []
    for (round, accesses) in [1, 0, 30, 400, 7, 1, 2400, 5000, 3, 36, 37, 1, 900].enumerated() {
      for access in 0..<accesses {
        try device.hide(UInt8(truncatingIfNeeded: access))
        if access % 100 == 0 { all += readAll(pipe).split(separator: "\n") }
      }
      all += readAll(pipe).split(separator: "\n")
      let trace = try device.lines("trace")
      #expect(Array(trace.drop { $0.hasPrefix("#") }) == Array(all.suffix(1 << 14)), "\(round)")
      if round == 9 {
        try device.write("\n", to: "trace")
        all = []
      }
    }
  }

  @Test func aWriteClearsTheTrace() throws {
    let device = try Device()
    try device.hide(1)
    try device.write("\n", to: "trace")
    #expect(try device.read("trace").contains("entries-written: 0/0 "))
    #expect(try device.lines("trace").allSatisfy { $0.hasPrefix("#") })
    try device.hide(2)
    #expect(try device.lines("trace").count { $0.contains("virt_walker_hide: byte 0x02 ") } == 1)
  }

  /// The lines have dmesg(1)'s format `[%5lu.%06lu] `, and the text of the original.
  @Test func logs() throws {
    let device = try Device()
    try device.hide(1)
    _ = try device.seek()
    #expect(
      try device.lines("guest/dmesg") == [
        "[   12.345679] write length: 1 bytes", "[   12.345680] read length: 1 bytes",
      ])
    #expect(
      try device.lines("host/dmesg")
        == (79...80).map {
          "[   12.3456\($0)] MMIO to HIDE and SEEK register detected, len: 1"[...]
        })
    try device.write("guest strh w0,[0x0b000000]", to: "control")
    #expect(
      try device.read("host/dmesg").hasSuffix("] more than one byte being read/write, ERROR\n"))
    // A log is a ring, too.
    let reader = try device.pipe("guest/dmesg_pipe").makeReader()
    for _ in 0..<5000 { try device.hide(0) }
    #expect(try device.lines("guest/dmesg").count == 4096)
    #expect(readAll(reader).hasPrefix("virt-walkerd: 906 lines lost\n["))
  }
}
