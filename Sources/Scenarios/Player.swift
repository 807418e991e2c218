import Stage2Sim

/// The recorder's virtual machine monitor, on the model: does a step, and says what the recorder would print below it.
public struct Player {
  private static let target = HideSeek.target
  /// Where the store goes that ends a step.
  private static let left: UInt64 = 0x0c00_0000
  /// STR XZR, [X9]: that store.
  private static let leave: UInt64 = 0xf900_013f

  private var machine: VirtualMachine
  private let code: UInt64
  private let trace = Trace()
  /// Of frames, by address, in the order of first appearance.
  private var letters: [UInt64: String] = [:]

  /// - Throws: Where the model has no such machine.
  public init(_ description: MachineDescription) throws(UnplayableMachine) {
    let known = MachineDescription()
    func require(_ condition: Bool, _ reason: String) throws(UnplayableMachine) {
      guard condition else { throw UnplayableMachine(reason) }
    }
    try require(description.granule == known.granule, "granules other than 4K")
    try require(description.ipaBits == known.ipaBits, "IPA sizes other than \(known.ipaBits) bits")
    try require(
      [.anonymous, .huge].contains(description.backing), "backing=\(description.backing.rawValue)")
    try require(description.dirtyLog == known.dirtyLog, "dirty-log=")
    do throws(KernelError) {
      machine = try VirtualMachine(
        .init(
          cpu: description.cpu, backing: description.backing, memorySize: description.memory))
    } catch {
      throw UnplayableMachine("such a machine: \(error)")
    }
    machine.register(HideSeek(), at: HideSeek.regions)
    machine.slots.append(
      MemorySlot(
        ipa: MachineDescription.codeSlot, size: 0x1000, userspaceAddress: 0x7e00_0000_0000))
    code = description.code
    machine.observer = trace
  }

  /// Does the step.
  ///
  /// - Returns: The lines of a recording below it, without their two spaces.
  public mutating func play(_ step: Step) -> [String] {
    trace.events = []
    switch step {
    case .host(.write(let address, let value)):
      return observe(step) {
        $0.machine.vmmStore(UInt64(value), to: address, count: 4)
        return "result 0"
      }
    case .guest(.fetch(let address, let x0)):
      return observe(step) { $0.guest(nil, at: address, x0: x0) }
    case .guest(.instruction(let instruction, let address, let x0)):
      if case .access(let access) = instruction.operation {
        switch access.form {
        case .exclusive, .vector: return ["the model has no \(instruction.mnemonic) of this form"]
        case .register, .writeBack, .pair: break
        }
      }
      return observe(step) {
        // The recorder writes each instruction into guest memory, which may be what its slot has no page for yet.
        $0.machine.vmmStore(Self.leave, to: $0.code + 4, count: 4)
        $0.machine.setRegister(1, to: address &- instruction.offset)
        return $0.guest(instruction.at(address), at: $0.code, x0: x0)
      }
    case .host(let step):
      return ["the model has no \(step)"]
    }
  }

  private mutating func observe(
    _ step: Step, _ action: (inout Player) -> String
  ) -> [String] {
    // The recorder looks at the target first: the order decides over the letters.
    let targetBefore = describeLeaf(Self.target)
    let touched = step.touchedAddress.flatMap { address in
      address & ~0xfff == Self.target ? nil : describeLeaf(address).map { (address, $0) }
    }
    let result = action(&self)
    var lines = [result] + describeTrace(isHung: result.hasPrefix("run hung"))
    if let targetBefore { lines.append(leafLine(Self.target, before: targetBefore)) }
    if let (address, before) = touched { lines.append(leafLine(address, before: before)) }
    return lines
  }

  /// Runs one instruction, and the store behind it that leaves the guest; of a fetch only that store, at its address.
  private mutating func guest(
    _ instruction: GuestInstruction?, at address: UInt64, x0: UInt64
  ) -> String {
    machine.setRegister(0, to: x0)
    machine.setRegister(2, to: 0)
    machine.setRegister(3, to: 0)
    var result = RunResult.retired
    var next = address
    if let instruction {
      result = machine.run(instruction, at: address)
      next &+= 4
    }
    guard result == .retired else { return "run \(describe(result, start: address))" }
    let store = LoadStore.store(.doubleword, from: 31)
    let end = machine.run(.access(store, address: Self.left), at: next)
    guard case .mmio = end else { return "run \(describe(end, start: address))" }
    let line = "run \(describe(.retired, start: address))"
    machine.completeMMIO()
    return line
  }

  private mutating func describe(_ result: RunResult, start: UInt64) -> String {
    let moved = Int64(bitPattern: machine.vcpu.pc &- start)
    let state = "pc \(moved < 0 ? "" : "+")\(moved) x0 \(hex(machine.vcpu[0]))"
    switch result {
    case .retired: return "retired \(state)"
    case .failed(let error): return "error \(error) \(state)"
    case .livelock: return "hung \(state)"
    case .guestException: return "exception"
    case .mmio(let mmio):
      let kind = mmio.isWrite ? "write" : "read"
      var line = "mmio \(kind) \(hex(mmio.address)) len \(mmio.length)"
      if mmio.isWrite { line += " data \(hex(mmio.data))" }
      line += " \(state)"
      // What the recorder answers to a read.
      machine.completeMMIO(data: 0x8887_8685_8483_8281)
      if !mmio.isWrite { line += " then \(hex(machine.vcpu[0]))" }
      return line
    }
  }

  /// The events since the step began, each once where the guest hung, and none of the store that ends a step.
  private func describeTrace(isHung: Bool) -> [String] {
    var lines: [String] = []
    for event in trace.events {
      switch event {
      case .abort(let fault) where fault.ipa == Self.left: continue
      case .abort(let fault):
        lines.append(
          "abort esr=\(hexadecimal(fault.syndrome.rawValue, digits: 8)) far=\(hexadecimal(fault.far, digits: 16)) hpfar=\(hexadecimal(fault.hpfar, digits: 10))"
        )
      case .invalidation(let ipa, let level):
        lines.append("tlbi ipa=\(hexadecimal(ipa, digits: 10)) level=\(level)")
      case .invalidationOfAll: lines.append("tlbi all")
      case .dataCacheClean, .instructionCacheInvalidation: continue
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
  private mutating func describeLeaf(_ address: UInt64) -> String? {
    guard let leaf = try? machine.leaf(for: address) else { return nil }
    let frame = leaf.descriptor.outputAddress(.kib4)
    let digits = hexadecimal(
      leaf.descriptor.rawValue & ~Granule.kib4.addressMask, digits: 16)
    let letter = frame == 0 ? "" : " @\(letters(of: frame))"
    let counts = machine.stage2.referenceCounts(for: address).map(String.init)
    return "level \(leaf.level) \(digits)\(letter) counts \(counts.joined(separator: " "))"
  }

  /// A to Z, AA, AB and so on.
  private mutating func letters(of frame: UInt64) -> String {
    if let known = letters[frame] { return known }
    var number = letters.count + 1
    var text = ""
    while number > 0 {
      number -= 1
      text = "\(UnicodeScalar(UInt8(ascii: "A") + UInt8(number % 26)))\(text)"
      number /= 26
    }
    letters[frame] = text
    return text
  }

  private mutating func leafLine(_ address: UInt64, before: String) -> String {
    let after = describeLeaf(address) ?? before
    let change = before == after ? before : "\(before) -> \(after)"
    return "leaf \(hex(address)) \(change)"
  }
}

/// Keeps all that it hears of.
private final class Trace: MachineObserver {
  var events: [MachineEvent] = []

  func observe(_ event: MachineEvent) { events.append(event) }
}

/// The model has no such machine.
public struct UnplayableMachine: Error, Hashable, Sendable, CustomStringConvertible {
  public let description: String

  init(_ reason: String) { description = "the model has no \(reason) yet" }
}
