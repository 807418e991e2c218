import Stage2Sim
import Testing
import VirtWalkerDevice

struct EventStreamTests {
  private final class Everything: MachineObserver {
    var events: [MachineEvent] = []
    func observe(_ event: MachineEvent) { events.append(event) }
  }

  /// The ring and an observer get the same events, except for aborts, which the ring only counts.
  @Test func keepsWhatAnObserverHears() throws {
    var machine = try VirtualMachine.bootedWithHideSeek(.init(backing: .anonymous))
    let heard = Everything()
    let ring = EventStream(capacity: 1 << 16)
    machine.observer = heard
    machine.events = ring
    ring.time = 7
    let memory = VirtualMachine.Configuration.memoryBase
    let mapped = machine.ioremap(HideSeek.hideAddress, size: 2)
    let registers = try #require(mapped)
    for byte: UInt8 in [0x41, 0x08, 0xff] {
      try machine.writeb(byte, to: registers)
      #expect(try machine.readb(registers + 1) == byte)
      machine.run(.access(.store(.word, from: 0), address: .init(flat: memory)))
      try machine.advise(.dontNeed, 0..<0x2000)
    }
    let kept = (ring.start..<ring.end).map { ring[$0] }
    let aborts = heard.events.count { if case .abort = $0 { true } else { false } }
    #expect(
      kept.map(\.event) == heard.events.filter { if case .abort = $0 { false } else { true } })
    #expect(kept.allSatisfy { $0.time == 7 } && kept.count > 60)
    #expect(ring.counts.aborts == UInt64(aborts) && aborts > 6)
    #expect(ring.counts.walks == 6)
  }

  @Test func keepsTheLastEvents() throws {
    var table = Stage2PageTable()
    let ring = EventStream(capacity: 8)
    table.stream = ring
    for page: UInt64 in 0..<20 {
      try table.map(
        address: .init(page << 12), size: 1 << 12, physical: .init(page << 12), protection: [.read])
      ring.time = page
      try table.relaxPermissions(address: .init(page << 12), protection: [.write])
    }
    let invalidations = (ring.start..<ring.end).map { ring[$0] }.filter {
      if case .invalidation = $0.event { true } else { false }
    }
    #expect(ring.end - ring.start == 8)
    #expect(ring.counts.invalidations == 20)
    #expect(invalidations.last?.time == 19)
    #expect(invalidations.last?.event == .invalidation(ipa: .init(19 << 12), level: 3))
  }

  private final class Reader: EventListener {
    private(set) var seen: [MachineEvent] = []

    override func noteEvent(_ event: MachineEvent) { seen.append(event) }
  }

  /// A listener gets each event of the hook, also if an operation has more events than the stream keeps.
  @Test func listenerGetsEventsOfTheHook() throws {
    var machine = try VirtualMachine.bootedWithHideSeek()
    let stream = EventStream(capacity: 1)
    machine.events = stream
    let reader = Reader()
    stream.listener = reader
    defer { stream.listener = nil }
    let mapped = machine.ioremap(HideSeek.hideAddress, size: 2)
    let registers = try #require(mapped)
    let old = try machine.leaf(for: HideSeek.target).descriptor
    try machine.writeb(0x41, to: registers)
    let byte = try machine.readb(registers + 1)
    #expect(byte == 0x41)
    let new = try machine.leaf(for: HideSeek.target).descriptor
    let events = reader.seen.filter { if case .hook = $0 { true } else { false } }
    #expect(
      events == [.hook(.byteWritten(0x41, old: old, new: new)), .hook(.byteRead(0x41, new))])
    // The others are the lines of the host's log.
    #expect(
      reader.seen.count > events.count
        && reader.seen.allSatisfy {
          switch $0 {
          case .hook, .log: true
          default: false
          }
        })
    #expect(stream.end > UInt64(reader.seen.count))
  }

  /// A copy of the machine puts its events into the same ring.
  @Test func copiesShareTheRing() throws {
    var machine = try VirtualMachine.bootedWithHideSeek()
    let ring = EventStream(capacity: 64)
    machine.events = ring
    var copy = machine
    machine.run(.nop)
    let end = ring.end
    copy.run(.nop)
    #expect(copy.events === ring)
    copy.events = nil
    copy.run(.nop)
    #expect(ring.end >= end && machine.events === ring)
  }
}
