import Stage2Sim

/// The recorder's virtual machine monitor, on the model: does a step, and says what the recorder would print below it.
///
/// It is a value, as the machine is: a copy of both is a snapshot.
public struct Monitor {
  /// Where a store leaves the guest: the instruction of the step is done.
  private static let left: UInt64 = 0x0c00_0000
  /// Where another does: the guest took an exception.
  private static let exception: UInt64 = 0x0c00_0010
  /// STR XZR, [X9] and STR XZR, [X10]: those stores.
  private static let leave: UInt64 = 0xf900_013f
  private static let leaveByException: UInt64 = 0xf900_015f
  private static let codeSlotNumber = 1

  /// The first address of the slot for the instruction of a step, and the exception vectors.
  private let codeSlot: UInt64
  /// Where that instruction stands.
  private let code: UInt64
  private var trace = Trace()
  private var letters = FrameLetters()
  /// What the VMM wants of the RAM slot.
  private var ram: (ipa: UInt64, isThere: Bool, flags: MemorySlot.Flags)

  /// A monitor of `machine`, which gets a page of the monitor's own, with exception vectors.
  ///
  /// - Parameters:
  ///   - machine: One that has no other monitor.
  ///   - code: Where the instruction of a step stands, a guest physical address; nil for that page.
  /// - Throws: Where that page does not fit into the machine.
  public init(of machine: inout VirtualMachine, code: UInt64? = nil) throws(KernelError) {
    let configuration = machine.configuration
    let end = VirtualMachine.Configuration.memoryBase + configuration.memorySize
    codeSlot =
      end <= MachineDescription.codeSlot ? MachineDescription.codeSlot : Self.codeSlotBelowMemory
    self.code = code ?? codeSlot
    ram = (VirtualMachine.Configuration.memoryBase, true, [])
    try machine.addPrivateMemory(
      slot: Self.codeSlotNumber, at: codeSlot, size: configuration.granule.pageSize)
    let vectors = codeSlot + 0x800
    try machine.write(Self.leaveByException, to: vectors + 0x200, count: 4)
    machine.setVectorBase(vectors)
    machine.setRegister(9, to: Self.left)
    machine.setRegister(10, to: Self.exception)
  }

  /// The slot's place where guest RAM has the usual one.
  private static let codeSlotBelowMemory: UInt64 = 0x0d00_0000

  /// What happened in the hypervisor during the last step.
  var events: [MachineEvent] { trace.events }

  /// Does the step.
  ///
  /// - Parameters:
  ///   - step: What is done.
  ///   - machine: The one that the monitor was made for.
  /// - Returns: The lines of a recording below it, without their two spaces.
  @discardableResult
  public mutating func play(_ step: Step, on machine: inout VirtualMachine) -> [String] {
    defer { letters.forget { !machine.isInUse(frame: $0) } }
    switch step {
    case .guest(let step): return play(step, on: &machine)
    case .host(let step): return play(step, on: &machine)
    }
  }

  /// Does `action`, and looks at the leaves before and after. The order of looking decides over the letters.
  private mutating func observe(
    _ address: UInt64?, on machine: inout VirtualMachine,
    _ action: (inout Monitor, inout VirtualMachine) -> [String]
  ) -> [String] {
    let target = HideSeek.target
    let targetBefore = describeLeaf(target, machine)
    let touched = address.flatMap { address in
      describeLeaf(address, machine).map { (address: address, before: $0) }
    }
    // Not the last step's: a copy of the monitor may have that.
    let observer = machine.observer
    trace = Trace(next: observer)
    machine.observer = trace
    var lines = action(&self, &machine)
    machine.observer = observer
    if let targetBefore { lines.append(leafLine(target, before: targetBefore, machine)) }
    if let (address, before) = touched,
      address & ~(machine.configuration.granule.pageSize - 1) != target
    {
      lines.append(leafLine(address, before: before, machine))
    }
    return lines
  }
}

// MARK: - The guest's steps

extension Monitor {
  private mutating func play(_ step: GuestStep, on machine: inout VirtualMachine) -> [String] {
    let start: UInt64
    let address: UInt64
    switch step {
    case .fetch(let place, let x0):
      machine.setRegister(0, to: x0)
      start = place
      address = place
    case .instruction(let instruction, let place, let x0):
      machine.setRegister(0, to: x0)
      machine.setRegister(1, to: place &- instruction.offset)
      start = code
      address = place
      do throws(KernelError) {
        try write(UInt64(instruction.word), to: start, on: &machine)
        try write(Self.leave, to: start + 4, on: &machine)
      } catch {
        return ["result \(error)"]
      }
    }
    machine.setRegister(2, to: 0)
    machine.setRegister(3, to: 0)
    return observe(address, on: &machine) { monitor, machine in
      let result = machine.run(at: start)
      let line = Self.describe(result, start: start, on: &machine)
      var isHung = false
      if case .livelock = result { isHung = true }
      return [line] + monitor.describeTrace(isHung: isHung)
    }
  }

  private static func describe(
    _ result: RunResult, start: UInt64, on machine: inout VirtualMachine
  ) -> String {
    let moved = Int64(bitPattern: machine.vcpu.pc &- start)
    let x0 = "x0 \(hex(machine.vcpu[0]))"
    let state = "pc \(moved < 0 ? "" : "+")\(moved) \(x0)"
    switch result {
    case .mmio(let mmio) where mmio.isWrite && mmio.address == left:
      machine.completeMMIO()
      return "run retired \(state)"
    case .mmio(let mmio) where mmio.isWrite && mmio.address == exception:
      machine.completeMMIO()
      return "run \(describeException(machine.vcpu)) \(x0)"
    case .mmio(let mmio):
      var line =
        "run mmio \(mmio.isWrite ? "write" : "read") \(hex(mmio.address)) len \(mmio.length)"
      if mmio.isWrite { line += " data \(hex(mmio.data))" }
      line += " \(state)"
      // What the recorder answers to a read.
      machine.completeMMIO(data: 0x8887_8685_8483_8281)
      if !mmio.isWrite { line += " then \(hex(machine.vcpu[0]))" }
      return line
    case .failed(let error): return "run error \(error) \(state)"
    case .livelock: return "run hung \(state)"
    case .notModelled(let word):
      return "run not modelled, instruction \(hex(UInt64(word))) \(state)"
    // KVM_RUN goes on after these.
    case .retired, .guestException: return "run retired \(state)"
    }
  }

  private static func describeException(_ vcpu: VCPU) -> String {
    let syndrome = vcpu.exceptionSyndrome
    let line = "exception esr_el1=\(hexadecimal(syndrome, digits: 8))"
    // An abort has an address.
    guard syndrome >> 26 & 0x38 == 0x20 else { return line }
    return line + " far_el1=\(hexadecimal(vcpu.faultAddress, digits: 16))"
  }
}

// MARK: - The host's steps

extension Monitor {
  private mutating func play(_ step: HostStep, on machine: inout VirtualMachine) -> [String] {
    observe(step.touchedAddress, on: &machine) { monitor, machine in
      var lines: [String] = []
      do throws(KernelError) {
        lines = try monitor.perform(step, on: &machine)
        lines.append("result 0")
      } catch {
        lines.append("result \(error)")
      }
      return lines + monitor.describeTrace(isHung: false)
    }
  }

  /// - Returns: What is seen besides the result.
  private mutating func perform(
    _ step: HostStep, on machine: inout VirtualMachine
  ) throws(KernelError) -> [String] {
    switch step {
    case .write(let address, let value): try write(UInt64(value), to: address, on: &machine)
    case .read(let address):
      let value =
        isCode(address)
        ? try machine.read(address, count: 4)
        : try machine.readRAM(try offset(of: address), count: 4)
      return ["value 0x\(hexadecimal(value, digits: 8))"]
    case .madvise(let advice, let range): try machine.advise(advice, try offsets(of: range))
    case .mprotect(let protection, let range):
      try machine.protect(try offsets(of: range), protection)
    case .munmap(let range): try machine.unmapMemory(try offsets(of: range))
    case .mmap(let range): try machine.mapMemory(try offsets(of: range))
    case .fork: try machine.fork()
    case .endFork: guard machine.endFork() else { throw .noChild }
    case .ksm: try machine.mergeEqualPages()
    case .age(let address): try machine.age(try offset(of: address))
    case .dirtyLog(let step): return try perform(step, on: &machine)
    case .slot(let step): try perform(step, on: &machine)
    }
    return []
  }

  private func isCode(_ address: UInt64) -> Bool {
    address &- codeSlot < 4096
  }

  /// The VMM writes a word of the guest's memory.
  private func write(
    _ value: UInt64, to address: UInt64, on machine: inout VirtualMachine
  ) throws(KernelError) {
    if isCode(address) {
      try machine.write(value, to: address, count: 4)
    } else {
      try machine.writeRAM(value, to: try offset(of: address), count: 4)
    }
  }

  /// Where a guest physical address is in RAM, which counts from where the VMM wants its slot.
  private func offset(of address: UInt64) throws(KernelError) -> UInt64 {
    guard address >= ram.ipa else { throw .badAddress }
    return address - ram.ipa
  }

  private func offsets(of range: AddressRange) throws(KernelError) -> Range<UInt64> {
    let start = try offset(of: range.address)
    return start..<start + range.size
  }

  private mutating func perform(
    _ step: DirtyLogStep, on machine: inout VirtualMachine
  ) throws(KernelError) -> [String] {
    switch step {
    case .on:
      ram.flags.insert(.logDirtyPages)
      try setSlot(of: &machine)
    case .off:
      ram.flags.remove(.logDirtyPages)
      try setSlot(of: &machine)
    case .get:
      return describe(
        dirtyLog: try machine.dirtyLog(ofSlot: VirtualMachine.memorySlot), machine.configuration)
    case .clear(let range):
      let shift = UInt64(machine.configuration.granule.pageShift)
      let start = try offset(of: range.address)
      try machine.clearDirtyLog(
        ofSlot: VirtualMachine.memorySlot, firstPage: Int(start >> shift),
        pageCount: Int(range.size >> shift))
    }
    return []
  }

  private func describe(
    dirtyLog bitmap: [UInt64], _ configuration: VirtualMachine.Configuration
  ) -> [String] {
    var lines: [String] = []
    let shift = UInt64(configuration.granule.pageShift)
    let pages = Int(configuration.memorySize >> shift)
    func isDirty(_ page: Int) -> Bool {
      page < pages && bitmap[page / 64] >> UInt64(page % 64) & 1 != 0
    }
    var page = 0
    while page < pages {
      if page % 64 == 0, bitmap[page / 64] == 0 {
        page += 64
        continue
      }
      let first = page
      while isDirty(page) { page += 1 }
      if page > first {
        let address = ram.ipa + UInt64(first) << shift
        lines.append("dirty \(hex(address))" + (page - first > 1 ? " pages \(page - first)" : ""))
      }
      page += 1
    }
    return lines
  }

  private mutating func perform(
    _ step: SlotStep, on machine: inout VirtualMachine
  ) throws(KernelError) {
    switch step {
    case .delete:
      ram.isThere = false
      ram.flags.remove(.logDirtyPages)
    case .add:
      ram.isThere = true
      ram.flags.remove(.readOnly)
    case .addReadOnly:
      ram.isThere = true
      ram.flags.insert(.readOnly)
    case .move(let address): ram.ipa = address
    }
    try setSlot(of: &machine)
  }

  private func setSlot(of machine: inout VirtualMachine) throws(KernelError) {
    try machine.setMemoryRegion(
      MemorySlot(
        id: VirtualMachine.memorySlot, ipa: ram.ipa,
        size: ram.isThere ? machine.configuration.memorySize : 0,
        userspaceAddress: VirtualMachine.memoryAddress, flags: ram.isThere ? ram.flags : []))
  }
}

// MARK: - What is seen

extension Monitor {
  /// The events of the step, each once where the guest hung, and none of the store that ends a step.
  private func describeTrace(isHung: Bool) -> [String] {
    var lines: [String] = []
    for event in trace.events {
      switch event {
      case .abort(let fault) where fault.pageAddress == Self.left: continue
      case .abort(let fault):
        lines.append(
          "abort esr=\(hexadecimal(fault.syndrome.rawValue, digits: 8)) far=\(hexadecimal(fault.far, digits: 16)) hpfar=\(hexadecimal(fault.hpfar, digits: 10))"
        )
      case .invalidation(let ipa, let level):
        lines.append("tlbi ipa=\(hexadecimal(ipa, digits: 10)) level=\(level)")
      case .invalidationOfAll: lines.append("tlbi all")
      case .dataCacheClean, .instructionCacheInvalidation, .warning, .tracepoint, .visit,
        .hide, .seek:
        continue
      // The trace of the real kernel has what the hook logs.
      case .log(.dataAbortWithoutSyndrome): continue
      case .log(let message): lines.append("log \(message)")
      }
    }
    guard isHung else { return lines }
    var seen: Set<String> = []
    return lines.filter { seen.insert($0).inserted }
  }

  /// The leaf as a recording has it, its frame as letters; nil beyond the IPA range.
  private mutating func describeLeaf(_ address: UInt64, _ machine: VirtualMachine) -> String? {
    guard let leaf = try? machine.leaf(for: address) else { return nil }
    let frame = leaf.descriptor.outputAddress(machine.configuration.granule)
    let digits = hexadecimal(leaf.descriptor.rawValue & ~frame, digits: 16)
    let letter = frame == 0 ? "" : " @\(letters[frame])"
    let counts = machine.stage2.referenceCounts(for: address).map(String.init)
    return "level \(leaf.level) \(digits)\(letter) counts \(counts.joined(separator: " "))"
  }

  private mutating func leafLine(
    _ address: UInt64, before: String, _ machine: VirtualMachine
  ) -> String {
    let after = describeLeaf(address, machine) ?? before
    let change = before == after ? before : "\(before) -> \(after)"
    return "leaf \(hex(address)) \(change)"
  }
}

/// Letters for frames, in the order in which they were first seen.
private struct FrameLetters {
  private var known: [UInt64: String] = [:]
  private var count = 0

  /// A to Z, AA, AB and so on.
  subscript(frame: UInt64) -> String {
    mutating get {
      if let text = known[frame] { return text }
      count += 1
      var number = count
      var text = ""
      while number > 0 {
        number -= 1
        text = "\(UnicodeScalar(UInt8(ascii: "A") + UInt8(number % 26)))\(text)"
        number /= 26
      }
      known[frame] = text
      return text
    }
  }

  /// A frame that was freed and given out again is another one.
  mutating func forget(where isFree: (UInt64) -> Bool) {
    known = known.filter { !isFree($0.key) }
  }
}

/// Keeps all that it hears of, and tells the machine's own observer.
private final class Trace: MachineObserver {
  var events: [MachineEvent] = []
  private let next: (any MachineObserver)?

  init(next: (any MachineObserver)? = nil) { self.next = next }

  func observe(_ event: MachineEvent) {
    events.append(event)
    next?.observe(event)
  }
}
