import Scenarios
import Stage2Sim

/// The recorder of the oracle, for the model. It performs a step as the virtual machine monitor, and returns the observations that a
/// recording has below the step.
struct ModelRecorder {
  /// The address whose store leaves the guest after the instruction of a step.
  fileprivate static let left: IntermediatePhysicalAddress = 0x0c00_0000
  /// The address whose store leaves the guest after an exception.
  fileprivate static let exception: IntermediatePhysicalAddress = 0x0c00_0010
  /// STR XZR, [X9]: the store to ``left``.
  private static let leave: UInt64 = 0xf900_013f
  /// STR XZR, [X10]: the store to ``exception``.
  private static let leaveByException: UInt64 = 0xf900_015f
  private static let codeSlotNumber = 1

  /// The first address of the slot for the instruction of a step, and the exception vectors.
  private let codeSlot: IntermediatePhysicalAddress
  /// The address of the instruction of a step.
  private let code: IntermediatePhysicalAddress
  private var seen = StepEvents()
  private var letters = FrameLetters()
  /// The machine's count of frees after the last step.
  private var freeCount = 0
  /// The settings that the VMM has chosen for the RAM slot.
  private var ram: (ipa: IntermediatePhysicalAddress, isThere: Bool, flags: MemorySlot.Flags)

  /// A recorder for `machine`. The machine gets an additional page for the recorder's code and exception vectors.
  ///
  /// - Parameters:
  ///   - machine: A machine without another recorder.
  ///   - code: The guest physical address of the instruction of a step; nil for an address in the additional page.
  /// - Throws: `EINVAL`, `EEXIST` or `EFAULT` if the machine has no room for the page.
  init(of machine: inout VirtualMachine, code: IntermediatePhysicalAddress? = nil)
    throws(KernelError)
  {
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
    machine.setVectorBase(GuestVirtualAddress(flat: vectors))
    machine.setRegister(9, to: Self.left.rawValue)
    machine.setRegister(10, to: Self.exception.rawValue)
  }

  /// The first address of the slot if guest RAM covers the usual one.
  private static let codeSlotBelowMemory: IntermediatePhysicalAddress = 0x0d00_0000

  /// Performs a step.
  ///
  /// - Parameters:
  ///   - step: The step.
  ///   - machine: The machine of the recorder.
  /// - Returns: The lines of a recording below the step.
  mutating func perform(_ step: Step, on machine: inout VirtualMachine) -> [Observation] {
    defer {
      letters.forget(onlyNew: machine.freeCount == freeCount) { !machine.isInUse(frame: $0) }
      freeCount = machine.freeCount
    }
    switch step {
    case .guest(let step): return perform(step, on: &machine)
    case .host(let step): return perform(step, on: &machine)
    }
  }

  /// Calls `action`, and looks at the leaves before and after it. The order of the looks determines the letters of frames.
  private mutating func observe(
    _ address: IntermediatePhysicalAddress?, on machine: inout VirtualMachine,
    _ action: (inout ModelRecorder, inout VirtualMachine) -> [Observation]
  ) -> [Observation] {
    let target = HideSeek.target
    let targetBefore = observedLeaf(target, &machine)
    var touchedBefore: ObservedLeaf?
    if let address { touchedBefore = observedLeaf(address, &machine) }
    let observer = machine.observer
    seen = StepEvents(next: observer)
    machine.observer = seen
    var observations = action(&self, &machine)
    machine.observer = observer
    seen.next = nil
    if let targetBefore { observations.append(leaf(target, before: targetBefore, &machine)) }
    if let address, let touchedBefore,
      address.aligned(to: machine.configuration.granule.pageSize) != target
    {
      observations.append(leaf(address, before: touchedBefore, &machine))
    }
    return observations
  }
}

// MARK: - The guest's steps

extension ModelRecorder {
  private mutating func perform(
    _ step: GuestStep, on machine: inout VirtualMachine
  ) -> [Observation] {
    let start: GuestVirtualAddress
    switch step {
    case .fetch(let place, let x0):
      machine.setRegister(0, to: x0)
      start = place
    case .instruction(let instruction, let place, let x0):
      machine.setRegister(0, to: x0)
      machine.setRegister(1, to: place.rawValue &- instruction.offset)
      start = GuestVirtualAddress(flat: code)
      do throws(KernelError) {
        try write(UInt64(instruction.word), to: code, on: &machine)
        try write(Self.leave, to: code + 4, on: &machine)
      } catch {
        return [.result(error)]
      }
    }
    machine.setRegister(2, to: 0)
    machine.setRegister(3, to: 0)
    return observe(Step.guest(step).touchedAddress, on: &machine) { recorder, machine in
      let run = Self.run(from: start, on: &machine)
      return [.run(run)] + recorder.observedEvents(isHung: run.end == .hung)
    }
  }

  /// Lets the guest run, and completes the exit as the recorder of the oracle does.
  private static func run(from start: GuestVirtualAddress, on machine: inout VirtualMachine)
    -> GuestRun
  {
    let result = machine.run(at: start)
    let moved = Int64(bitPattern: machine.vcpu.pc &- start)
    let x0 = machine.vcpu[0]
    switch result {
    case .mmio(let mmio) where mmio.isWrite && mmio.address == left:
      machine.completeMMIO()
      return GuestRun(.retired, moved: moved, x0: x0)
    case .mmio(let mmio) where mmio.isWrite && mmio.address == exception:
      machine.completeMMIO()
      let syndrome = machine.vcpu.exceptionSyndrome
      // Only an abort has an address.
      let address = syndrome >> 26 & 0x38 == 0x20 ? machine.vcpu.faultAddress : nil
      return GuestRun(.exception(syndrome: syndrome, address: address), moved: nil, x0: x0)
    case .mmio(let mmio):
      // The oracle's recorder answers each read with this value.
      machine.completeMMIO(data: 0x8887_8685_8483_8281)
      return GuestRun(
        .mmio(
          address: mmio.address, length: mmio.length, data: mmio.isWrite ? mmio.data : nil,
          then: mmio.isWrite ? nil : machine.vcpu[0]), moved: moved, x0: x0)
    case .failed(let error): return GuestRun(.failed(error), moved: moved, x0: x0)
    case .livelock: return GuestRun(.hung, moved: moved, x0: x0)
    case .notModelled(let word): return GuestRun(.notModelled(word), moved: moved, x0: x0)
    // The thread of KVM_RUN ends with the kernel's oops. The log has the reason.
    case .crashed, .lost: return GuestRun(.hung, moved: moved, x0: x0)
    // KVM_RUN goes on after these.
    case .retired, .guestException: return GuestRun(.retired, moved: moved, x0: x0)
    }
  }
}

// MARK: - The host's steps

extension ModelRecorder {
  private mutating func perform(
    _ step: HostStep, on machine: inout VirtualMachine
  ) -> [Observation] {
    observe(step.touchedAddress, on: &machine) { recorder, machine in
      var observations: [Observation] = []
      do throws(KernelError) {
        observations = try recorder.attempt(step, on: &machine)
        observations.append(.result(nil))
      } catch {
        observations.append(.result(error))
      }
      return observations + recorder.observedEvents(isHung: false)
    }
  }

  /// - Returns: The observations besides the result.
  private mutating func attempt(
    _ step: HostStep, on machine: inout VirtualMachine
  ) throws(KernelError) -> [Observation] {
    switch step {
    case .write(let address, let value): try write(UInt64(value), to: address, on: &machine)
    case .read(let address):
      let value =
        isCode(address)
        ? try machine.read(address, count: 4)
        : try machine.readRAM(try offset(of: address), count: 4)
      return [.value(UInt32(truncatingIfNeeded: value))]
    case .madvise(let advice, let range): try machine.advise(advice, try offsets(of: range))
    case .mprotect(let protection, let range):
      try machine.protect(try offsets(of: range), protection)
    case .munmap(let range): try machine.unmapMemory(try offsets(of: range))
    case .mmap(let range): try machine.mapMemory(try offsets(of: range))
    case .fork: try machine.fork()
    case .endFork: guard machine.endFork() else { throw .noChild }
    case .ksm: try machine.mergeEqualPages()
    case .age(let address): try machine.age(try offset(of: address))
    case .dirtyLog(let step): return try attempt(step, on: &machine)
    case .slot(let step): try attempt(step, on: &machine)
    }
    return []
  }

  private func isCode(_ address: IntermediatePhysicalAddress) -> Bool {
    address &- codeSlot < 4096
  }

  /// The VMM writes a word of the guest's memory.
  private func write(
    _ value: UInt64, to address: IntermediatePhysicalAddress, on machine: inout VirtualMachine
  ) throws(KernelError) {
    if isCode(address) {
      try machine.write(value, to: address, count: 4)
    } else {
      try machine.writeRAM(value, to: try offset(of: address), count: 4)
    }
  }

  /// The offset of a guest physical address from the first address that the VMM has chosen for the RAM slot.
  private func offset(of address: IntermediatePhysicalAddress) throws(KernelError) -> UInt64 {
    guard address >= ram.ipa else { throw .badAddress }
    return address - ram.ipa
  }

  private func offsets(of range: AddressRange) throws(KernelError) -> Range<UInt64> {
    let start = try offset(of: range.address)
    return start..<start + range.size
  }

  private mutating func attempt(
    _ step: DirtyLogStep, on machine: inout VirtualMachine
  ) throws(KernelError) -> [Observation] {
    switch step {
    case .on:
      ram.flags.insert(.logDirtyPages)
      try setSlot(of: &machine)
    case .off:
      ram.flags.remove(.logDirtyPages)
      try setSlot(of: &machine)
    case .get:
      return observed(
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

  private func observed(
    dirtyLog bitmap: [UInt64], _ configuration: VirtualMachine.Configuration
  ) -> [Observation] {
    var ranges: [Observation] = []
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
        ranges.append(.dirty(address: address, pages: page - first))
      }
      page += 1
    }
    return ranges
  }

  private mutating func attempt(
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

// MARK: - Observations

extension ModelRecorder {
  /// The events of the step that a recording contains. If the guest hung, each event is there once. The events of the store that ends a
  /// step are left out.
  private func observedEvents(isHung: Bool) -> [Observation] {
    var observations: [Observation] = []
    for record in seen.records {
      guard case .event(let event) = record else {
        if case .line(let text) = record { observations.append(.log(text)) }
        continue
      }
      switch event {
      case .abort(let fault) where fault.pageAddress == Self.left: continue
      case .abort(let fault):
        observations.append(
          .abort(syndrome: fault.syndrome.rawValue, far: fault.far, hpfar: fault.hpfar))
      case .invalidation(let ipa, let level):
        observations.append(.invalidation(ipa: ipa, level: level))
      case .localInvalidation(let ipa, let level):
        observations.append(.localInvalidation(ipa: ipa, level: level))
      case .invalidationOfRange(let ipa, let pages):
        observations.append(.invalidationOfRange(ipa: ipa, pages: pages))
      case .invalidationOfAll: observations.append(.invalidationOfAll)
      // The trace of the real kernel contains the hook's lines only.
      case .log(let message) where message.layer == .hook:
        observations.append(.log("\(message)"))
      case .dataCacheClean, .instructionCacheInvalidation, .warning, .tracepoint, .visit, .hook,
        .log, .text, .traced, .guestStopped:
        continue
      }
    }
    guard isHung else { return observations }
    var known: Set<Observation> = []
    return observations.filter { known.insert($0).inserted }
  }

  /// A leaf in the form of a recording, with letters for its frame; nil beyond the IPA range.
  private mutating func observedLeaf(
    _ address: IntermediatePhysicalAddress, _ machine: inout VirtualMachine
  ) -> ObservedLeaf? {
    guard let leaf = try? machine.leaf(for: address) else { return nil }
    return letters.observed(
      leaf, for: address, machine.configuration.granule,
      counts: machine.stage2.referenceCounts(for: address))
  }

  private mutating func leaf(
    _ address: IntermediatePhysicalAddress, before: ObservedLeaf, _ machine: inout VirtualMachine
  ) -> Observation {
    .leaf(address, before: before, after: observedLeaf(address, &machine) ?? before)
  }
}

extension IntermediatePhysicalAddress {
  /// Whether a store to the address is the recorder's, by which the guest leaves at the end of a step.
  package var isOfRecorder: Bool { self == ModelRecorder.left || self == ModelRecorder.exception }
}

/// The receiver of a step's events, which passes each on to the machine's own observer.
private final class StepEvents: MachineObserver {
  enum Record {
    case event(MachineEvent)
    /// A line of the hook with a text of its own.
    case line(String)
  }

  var records: [Record] = []
  /// The machine's own observer, during the step. It may own the engine, which owns this object.
  var next: (any MachineObserver)?

  init(next: (any MachineObserver)? = nil) { self.next = next }

  func observe(_ event: MachineEvent) {
    records.append(.event(event))
    next?.observe(event)
  }

  func observe(text: String, layer: EventLayer) {
    // As for messages: the trace of the real kernel contains the hook's lines only.
    if layer == .hook { records.append(.line(text)) }
    next?.observe(text: text, layer: layer)
  }

  var followsWalks: Bool { next?.followsWalks ?? false }

  func observe(_ part: WalkPart) { next?.observe(part) }

  func observe(_ call: KernelCall) { next?.observe(call) }
}
