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
    private let ring: EventStream
    private(set) var seen: [MachineEvent] = []

    init(_ ring: EventStream) {
      self.ring = ring
      super.init()
    }

    override func noteEvents() {
      for number in (ring.firstUnseen ?? 0)..<ring.end { seen.append(ring[number].event) }
      ring.firstUnseen = ring.end
    }
  }

  /// A reader that needs each event is called before events are overwritten, even in the middle of an operation.
  @Test func callsBeforeAnUnseenEventIsOverwritten() throws {
    var table = Stage2PageTable()
    let ring = EventStream(capacity: 4)
    table.stream = ring
    let reader = Reader(ring)
    ring.listener = reader
    defer { ring.listener = nil }
    ring.firstUnseen = 0
    try table.map(address: 0, size: 1 << 20, physical: 0, protection: [.read], canAllocate: true)
    try table.unmap(address: 0, size: 1 << 20)
    reader.noteEvents()
    #expect(UInt64(reader.seen.count) == ring.end && reader.seen.count >= 256)
    let invalidated = reader.seen.compactMap { event -> IntermediatePhysicalAddress? in
      if case .invalidation(let ipa, 3) = event { ipa } else { nil }
    }
    #expect(invalidated == (0..<256).map { IntermediatePhysicalAddress($0 << 12) })
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
