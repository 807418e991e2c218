import Testing

@testable import Stage2Sim

/// Tests of the limits of the host: a machine of any size stays within them, gets the kernel's own errors, and
/// continues.
@Suite struct LimitTests {
  /// A machine with large pages, so that a few pages reach a limit.
  private func machine(
    _ backing: Backing, granule: Granule = .kib64
  ) throws -> VirtualMachine {
    try VirtualMachine(.init(granule: granule, backing: backing, memorySize: 1023 << 30))
  }

  @Test(arguments: Backing.allCases) func physicalMemory(backing: Backing) throws {
    var machine = try machine(backing)
    #expect(throws: KernelError.outOfMemory) {
      try machine.advise(.populateWrite, 0..<HostLimits.memory + 1 << 30)
    }
    let used = machine.host.physical.inUse
    #expect(used <= HostLimits.memory)
    #expect(used > HostLimits.memory - 2 * Granule.kib64.blockSize)
    // The mapped pages remain usable, and no further page can be mapped.
    try machine.writeRAM(1, to: 0, count: 4)
    #expect(throws: KernelError.badAddress) { try machine.writeRAM(1, to: 512 << 30, count: 4) }
    let address = VirtualMachine.Configuration.memoryBase + 512 << 30
    let store = GuestInstruction.access(.store(.word, from: 0), address: .init(flat: address))
    machine.run(.nop, at: .init(flat: VirtualMachine.Configuration.memoryBase))
    #expect(machine.run(store) == .failed(.badAddress))

    // madvise does not free the pages of a file in memory.
    guard ![.memfd, .file].contains(backing) else { return }
    try machine.advise(.dontNeed, 0..<HostLimits.memory + 1 << 30)
    try machine.writeRAM(1, to: 512 << 30, count: 4)
    #expect(machine.host.physical.inUse < used)
  }

  /// Pages that were only read take no memory, but their tables do.
  @Test(arguments: [Backing.anonymous, .huge]) func tables(backing: Backing) throws {
    var machine = try machine(backing)
    let block = Granule.kib64.blockSize
    let most = UInt64(HostLimits.entries / Granule.kib64.entriesPerTable)
    for number in 0..<most {
      #expect(try machine.readRAM(number * block, count: 4) == 0)
    }
    #expect(throws: KernelError.badAddress) { try machine.readRAM(most * block, count: 4) }
    #expect(try machine.readRAM(0, count: 4) == 0)
  }

  @Test func children() throws {
    var machine = try machine(.anonymous)
    for _ in 0..<HostLimits.children { try machine.fork() }
    #expect(throws: KernelError.tryAgain) { try machine.fork() }
    machine.endFork()
    try machine.fork()
  }

  /// The tables of a child count, too.
  @Test func tablesOfChildren() throws {
    var machine = try machine(.anonymous)
    let half = HostLimits.entries / Granule.kib64.entriesPerTable / 2
    for number in 0..<UInt64(half) {
      try machine.writeRAM(1, to: number * Granule.kib64.blockSize, count: 4)
    }
    try machine.fork()
    #expect(throws: KernelError.outOfMemory) { try machine.fork() }
    #expect(machine.host.children.count == 1)
    machine.endFork()
    try machine.fork()
  }

  @Test func areas() throws {
    var machine = try VirtualMachine(.init(backing: .anonymous, memorySize: 1 << 30))
    let page = machine.configuration.granule.pageSize
    // The areas after protect was called for every other page.
    let ram = try #require(machine.host.areas.firstIndex { $0.flags.contains(.write) })
    let area = machine.host.areas[ram]
    let pages = (0..<UInt64(KernelVersion.standard.mostAreas - machine.host.areas.count)).map {
      number in
      var part = area
      part.start = area.start + number * page
      part.end = part.start + page
      if number % 2 == 1 { part.flags.remove(.write) }
      return part
    }
    var rest = area
    rest.start = pages[pages.count - 1].end
    machine.host.areas.replaceSubrange(ram...ram, with: pages + [rest])
    #expect(machine.host.areas.count == KernelVersion.standard.mostAreas)

    let last = (1 << 30) - 2 * page..<(1 << 30) - page
    #expect(throws: KernelError.outOfMemory) { try machine.protect(last, .none) }
    #expect(throws: KernelError.outOfMemory) { try machine.unmapMemory(last) }
    #expect(throws: KernelError.outOfMemory) { try machine.mapMemory(last) }
    #expect(machine.host.areas.count == KernelVersion.standard.mostAreas)
    // Two areas become one, which makes room for another one.
    try machine.protect(0..<2 * page, .readOnly)
    #expect(machine.host.areas.count < KernelVersion.standard.mostAreas)
  }

  /// The scanner looks at present pages only, not at all possible pages.
  @Test func mergingInALargeMachine() throws {
    var machine = try machine(.anonymous, granule: .kib4)
    try machine.advise(.mergeable, 0..<1023 << 30)
    for offset in [0, 512 << 30] as [UInt64] { try machine.writeRAM(7, to: offset, count: 4) }
    try machine.mergeEqualPages()
    let frames = [0, 512 << 30].map {
      machine.host.physicalAddress(of: VirtualMachine.memoryAddress + $0)
    }
    #expect(frames[0] != nil)
    #expect(frames[0] == frames[1])
  }

  /// A slot has less than 2^31 pages.
  @Test func slots() throws {
    let most = VirtualMachine.Configuration.mostMemory
    #expect(most >> 12 < 1 << 31)
    #expect(throws: KernelError.invalidArgument) {
      try VirtualMachine(.init(cpu: .max, ipaBits: 48, memorySize: most + 4 << 20))
    }
    var machine = try VirtualMachine(.init(cpu: .max, ipaBits: 48, memorySize: most))
    try machine.setMemoryRegion(
      MemorySlot(
        id: VirtualMachine.memorySlot, ipa: VirtualMachine.Configuration.memoryBase, size: most,
        userspaceAddress: VirtualMachine.memoryAddress, flags: .logDirtyPages))
    #expect(try machine.dirtyLog(ofSlot: VirtualMachine.memorySlot).count == Int(most >> 18))
  }
}
