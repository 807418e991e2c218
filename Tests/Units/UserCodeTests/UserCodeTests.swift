import CharacterDeviceServer
import Inspection
import Scenarios
import Stage2Sim
import SystemPackage
import Testing
import UserCode
import VirtWalkerDevice

/// The events of a machine. The machine keeps its observer, so this is not the object that keeps the machine.
final class CodeEvents: MachineObserver {
  var host: [String] = []
  var visits: [TableVisit] = []
  var hookEvents: [HookEvent] = []
  var invalidations: [IntermediatePhysicalAddress] = []

  func observe(_ event: MachineEvent) {
    switch event {
    case .visit(let visit): visits.append(visit)
    case .hook(let event): hookEvents.append(event)
    case .invalidation(let ipa, _): invalidations.append(ipa)
    default: break
    }
  }

  func observe(text: String, layer: EventLayer) {
    if layer != .driver { host.append(text) }
  }
}

/// A machine with code of the directory Code in processes of its own, and the two logs.
final class CodeBed: EventListener {
  let launcher: TestLauncher
  let code: UserCode
  let engine: ModelEngine
  var findings: [CodeFinding] = []
  var guest: [String] = []
  private let events = CodeEvents()
  var host: [String] { events.host }
  var visits: [TableVisit] { events.visits }
  var hookEvents: [HookEvent] { events.hookEvents }
  var invalidations: [IntermediatePhysicalAddress] { events.invalidations }

  /// - Parameters:
  ///   - module: The parameter of the module; nil for the driver of the original system.
  ///   - hook: The behaviour of the hook; nil for the hook of the original system.
  init(
    module: String? = nil, hook: String? = nil,
    configuration: VirtualMachine.Configuration = .init(),
    registers: HidingRegisters? = HideSeek().registers
  ) throws {
    launcher = try TestLauncher(
      (module == nil ? [] : [.module]) + (hook == nil ? [] : [.hook]),
      flags: hook.map { ["-DBEHAVIOUR=\($0)"] } ?? [])
    code = UserCode(
      launcher, module: module.map { .init(name: "module.c", parameters: $0) },
      hook: hook.map { _ in .init(name: "hook.c", registers: registers) })
    var early: [CodeFinding] = []
    code.onFinding = { early.append($0) }
    engine = try code.makeEngine(MachineDescription(configuration))
    findings = early
    super.init()
    code.onFinding = { [unowned self] in findings.append($0) }
    engine.events.listener = self
    engine.virtualMachine.observer = events
  }

  deinit {
    // The end of the engine unloads the module, which logs.
    engine.events.listener = nil
    code.onFinding = nil
  }

  override func noteGuestEvent(_ event: MachineEvent) {
    if case .text(let line) = event { guest.append(engine.events.text(of: line)) }
  }

  func read(_ count: Int = 1) throws(Errno) -> [UInt8] {
    try [UInt8](capacity: count) { (buffer) throws(Errno) in try engine.read(into: &buffer) }
  }

  func write(_ bytes: [UInt8]) throws(Errno) -> Int { try engine.write(bytes.span) }

  var entry: Stage2Descriptor? { engine.leaf(for: HideSeek.target)?.descriptor }
}

@Suite struct UserCodeTests {
  // MARK: - The way of a byte

  @Test(arguments: [(true, true), (true, false), (false, true)])
  func byteGoesRoundByCodeInOtherProcesses(hasModule: Bool, hasHook: Bool) throws {
    let bed = try CodeBed(module: hasModule ? "" : nil, hook: hasHook ? "RIGHT" : nil)
    #expect(try bed.read() == [0])
    for byte in [0x41, 0xff, 0, 0x80] as [UInt8] {
      #expect(try bed.write([byte]) == 1)
      #expect(bed.entry?.hiddenByte == byte)
      #expect(try bed.read() == [byte])
    }
    #expect(bed.findings.allSatisfy { $0.text.hasPrefix("a finding of module.c:") })
    #expect(bed.hookEvents.count == 9)
    if hasHook { #expect(bed.host.contains("the hook is called")) }
    if hasModule {
      #expect(bed.guest.prefix(2) == ["loaded", "second line\\x1b[31m"])
      #expect(bed.guest.contains("write of 1 bytes"))
      // The same finding is told once, with its place.
      let finding = try #require(bed.findings.first)
      #expect(bed.findings.count == 1)
      #expect(finding.place?.function == "take_read" && finding.place?.file == "module.c")
      #expect(bed.guest.filter { $0.contains("a finding") }.count == 1)
      #expect(bed.launcher.lookups == 1)
    }
  }

  @Test func otherTablesAreFollowed() throws {
    for granule in [Granule.kib4, .kib16, .kib64] {
      let bed = try CodeBed(
        hook: "RIGHT", configuration: .init(granule: granule, backing: .anonymous))
      #expect(try bed.write([0x5a]) == 1)
      #expect(try bed.read() == [0x5a])
      #expect(bed.findings.isEmpty)
    }
  }

  /// A table that grows gets other memory, and so does a copy of the machine.
  @Test func hookGetsTheMemoryOfTheTablesAnew() throws {
    let bed = try CodeBed(hook: "RIGHT", configuration: .init(backing: .anonymous))
    #expect(try bed.write([1]) == 1)
    #expect(bed.launcher.tables == 1)
    // 40 tables of the last level, more than fit into the first block.
    for index in 0..<40 as Range<UInt64> {
      bed.engine.virtualMachine.run(
        .access(
          .store(.byte, from: 3), address: .init(flat: HideSeek.target + (64 + 2 * index) << 20)))
    }
    #expect(bed.launcher.tables == 2)
    #expect(try bed.read() == [1])
    let copy = bed.engine.virtualMachine
    #expect(try bed.write([2]) == 1)
    #expect(bed.launcher.tables == 3)
    #expect(try copy.leaf(for: HideSeek.target).descriptor.hiddenByte == 1)
    #expect(try bed.read() == [2])
    #expect(bed.findings.isEmpty)
  }

  @Test func visitsAndReportsAreThoseOfTheBuiltInHook() throws {
    let own = try CodeBed(hook: "VISITS")
    let byHand = try CodeBed(hook: "RIGHT")
    let builtIn = try CodeBed(module: "")
    for bed in [own, byHand, builtIn] {
      #expect(try bed.write([0x41]) == 1)
      #expect(try bed.read() == [0x41])
    }
    #expect(own.visits == builtIn.visits && byHand.visits == builtIn.visits)
    #expect(own.hookEvents == builtIn.hookEvents && byHand.hookEvents == builtIn.hookEvents)
  }

  @Test func resetStartsNewProcesses() throws {
    let bed = try CodeBed(module: "", hook: "RIGHT")
    #expect(try bed.write([7]) == 1)
    let before = bed.launcher.running
    try bed.engine.reset()
    #expect(bed.launcher.running.count == 2 && bed.launcher.running.isDisjoint(with: before))
    #expect(bed.guest.contains("unloaded"))
    #expect(try bed.read() == [0])
    bed.engine.end()
    #expect(bed.guest.filter { $0 == "unloaded" }.count == 2)
    #expect(throws: Errno.ioError) { try bed.read() }
  }

  /// Whatever has happened, nothing keeps the engine and its processes when their last user is gone.
  @Test(arguments: ["", "null", "unmapped", "wait"])
  func nothingKeepsTheEngine(behaviour: String) throws {
    weak var engine: ModelEngine?
    let launcher: TestLauncher
    do {
      let bed = try CodeBed(module: behaviour, hook: "RIGHT")
      _ = try? bed.write([1])
      _ = try? bed.read()
      engine = bed.engine
      launcher = bed.launcher
    }
    #expect(engine == nil)
    #expect(launcher.running.isEmpty)
  }

  @Test func endOfTheEngineEndsTheProcesses() throws {
    let launcher = try TestLauncher([.module, .hook])
    do {
      let code = UserCode(launcher, module: .init(name: "m"), hook: .init(name: "h"))
      let engine = try code.makeEngine(MachineDescription(.init()))
      #expect(try engine.write([1].span) == 1)
      #expect(launcher.running.count == 2)
    }
    #expect(launcher.running.isEmpty)
  }

  // MARK: - Modules

  @Test func failedInitIsTheReasonForWhichNothingStarts() throws {
    let launcher = try TestLauncher([.module])
    let code = UserCode(launcher, module: .init(name: "module.c", parameters: "fails"))
    let failure = #expect(throws: CodeFailure.self) {
      try code.makeEngine(MachineDescription(.init()))
    }
    #expect(
      failure?.description == "insmod: the init function of module.c returned -12 (ENOMEM)")
    #expect(launcher.running.isEmpty)
  }

  /// The faults of a module: the parameter, the first line in the log, and a part of the advice.
  @Test(arguments: [
    (
      "null",
      "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000008",
      "writes to a null pointer, or a member"
    ),
    (
      "device", "Unable to handle kernel paging request at virtual address ffff800008000000",
      "use readb() or writeb()"
    ),
    ("bug", "kernel BUG at module.c:1!", "Correct the source"),
    (
      "exit", "Internal error: the process of the module has ended with status 3",
      "ended its own process"
    ),
    ("killed", "Internal error: the process of the module was killed", "all memory"),
    (
      "syscall", "Internal error: Oops: a system call of a program in a kernel's code",
      "functions of the kernel"
    ),
    (
      "length",
      "Internal error: the module has damaged its own runtime: a message has 2147483648 bytes of data",
      "--sanitize"
    ),
    (
      "log", "Internal error: the module has damaged its own runtime: the log has 4294967295 bytes",
      "--sanitize"
    ),
    (
      "record",
      "Internal error: the module has damaged its own runtime: the log has a record that is not one",
      "--sanitize"
    ),
    (
      "long",
      "Internal error: the module has damaged its own runtime: the log has a record that is not one",
      "--sanitize"
    ),
    ("frames", "Internal error: a fault of the unknown kind 99", "does not know"),
  ])
  func faultIsAnOopsAndThenEIO(behaviour: String, line: String, advice: String) throws {
    let bed = try CodeBed(module: behaviour)
    #expect(throws: Errno.ioError) { try bed.write([1]) }
    #expect(bed.engine.guestStop?.result == .crashed(.guest))
    #expect(bed.guest.contains(line), "\(bed.guest)")
    let finding = try #require(bed.findings.last)
    #expect(finding.isFatal && finding.kind == .module && finding.text == line)
    #expect(finding.advice.contains(advice), "\(finding.advice)")
    #expect(bed.launcher.running.isEmpty)
    #expect(throws: Errno.ioError) { try bed.read() }
    #expect(bed.findings.count == 1)
    try bed.engine.reset()
    #expect(bed.engine.guestStop == nil)
    #expect(try bed.read() == [0])
  }

  @Test func faultNamesTheLineOfTheUser() throws {
    let bed = try CodeBed(module: "null")
    #expect(throws: Errno.ioError) { try bed.write([1]) }
    let place = try #require(bed.findings.first?.place)
    #expect(place.function == "crash_in_write" && place.file == "module.c" && place.line > 0)
    #expect(bed.guest.contains("pc : crash_in_write (module.c:\(place.line))"), "\(bed.guest)")
    #expect(bed.guest.contains("Call trace:"))
  }

  @Test func addressInTheTextOfAFaultIsALine() throws {
    let bed = try CodeBed(module: "lock")
    #expect(throws: Errno.ioError) { try bed.write([1]) }
    let text = try #require(bed.findings.first?.text)
    #expect(
      text.hasPrefix("deadlock with the lock at module.c:") && !text.contains("[<"), "\(text)")
  }

  /// A code that does not answer, or only keeps the daemon busy, is ended when its time is over, and others are served until then.
  @Test(arguments: ["hang", "flood"])
  func codeThatDoesNotAnswerIsEnded(behaviour: String) throws {
    let bed = try CodeBed(module: behaviour)
    var calls = 0
    bed.engine.mayGoOn = { [unowned bed] in
      calls += 1
      // A call in the middle of a call is refused, and harms nothing.
      if calls == 1 { #expect(throws: Errno.ioError) { try bed.engine.write([2].span) } }
      // Shortens the time that the code has.
      return false
    }
    #expect(throws: Errno.ioError) { try bed.write([1]) }
    #expect(calls > 1)
    #expect(bed.guest.contains { $0.hasPrefix("watchdog: BUG: soft lockup") }, "\(bed.guest)")
    #expect(bed.launcher.running.isEmpty)
  }

  /// Findings with new addresses, nodes and mappings without an end: each look-up takes milliseconds, and each name takes memory.
  @Test func floodOfReportsIsBounded() throws {
    let bed = try CodeBed(module: "reports")
    #expect(try bed.write([1]) == 1)
    #expect(bed.launcher.lookups <= 150, "\(bed.launcher.lookups) look-ups")
    // The reply to the last request: no memory for the node, no address for the mapping.
    #expect(try bed.read() == [3])
  }

  @Test func memoryThatIsMadeSmallerDoesNotEndTheDaemon() throws {
    let bed = try CodeBed(module: "shrink")
    // The code cannot do it, and goes on.
    #expect(try bed.write([1]) == 1)
    #expect(try bed.read() == [1])
  }

  @Test func unknownRequestIsRefused() throws {
    let bed = try CodeBed(module: "unknown")
    #expect(try bed.write([1]) == 1)
  }

  @Test func accessThatNothingAnswersStopsTheGuest() throws {
    let bed = try CodeBed(module: "unmapped")
    #expect(throws: Errno.ioError) { try bed.write([1]) }
    guard case .guestException? = bed.engine.guestStop?.result else {
      Issue.record("\(String(describing: bed.engine.guestStop))")
      return
    }
    // The module has not crashed.
    #expect(bed.findings.isEmpty)
    #expect(try bed.read() == [0])
  }

  @Test func readThatWaitsIsEAGAINWithoutANode() throws {
    let bed = try CodeBed(module: "wait")
    #expect(throws: Errno.resourceTemporarilyUnavailable) { try bed.read() }
    #expect(bed.guest.last == "interrupted")
    #expect(bed.engine.isStream)
    #expect(try bed.write([9]) == 1)
    #expect(try bed.read() == [9])
  }

  @Test(arguments: [("stream", true), ("other", false)])
  func openTellsWhetherTheFileHasPositions(module: String, isStream: Bool) throws {
    let bed = try CodeBed(module: module)
    #expect(try bed.write([1]) == 1)
    #expect(bed.engine.isStream == isStream)
  }

  @Test func resultsThatAreTooLargeAreCut() throws {
    let more = try CodeBed(module: "more")
    #expect(try more.read(4) == [0, 0, 0])
    let much = try CodeBed(module: "much")
    #expect(try much.read(2) == [0, 0])
    let less = try CodeBed(module: "less")
    #expect(try less.read(2) == [])
    #expect(
      less.findings.first?.text.contains("read returned 0, but has given the program 1 byte")
        == true)
  }

  // MARK: - Hooks

  /// The mistakes of a hook that the daemon sees, by the part of their text that names them.
  @Test(arguments: [
    ("SHIFT_50", "the byte is at bit 50: the shift is 51"),
    ("KEEPS_BITS", "the bits of the byte before were not cleared first"),
    ("OTHER_BITS", "changed bits outside [58:51] of the entry of 0x40000000"),
    ("OTHER_ENTRY", "has changed the entry of 0x40200000 at level 2"),
    ("CLEARS_VALID", "left the tables inconsistent: the entry of 0x40000000 was a block"),
    ("WILD_TABLE", "left the tables inconsistent"),
    ("UNKNOWN_ERROR", "returned -517 (EPROBE_DEFER)"),
    ("RETURNS_ZERO", "returned 0 for the access to 0xb000000"),
    ("NO_INCREMENT", "did not call kvm_incr_pc()"),
  ])
  func mistakeOfAHookIsTold(behaviour: String, text: String) throws {
    let bed = try CodeBed(hook: behaviour)
    _ = try? bed.write([0x15])
    _ = try? bed.write([0x2a])
    let finding = bed.findings.first { $0.text.contains(text) }
    // The place is that of the function.
    let line = finding?.place?.line ?? 0
    #expect(finding != nil && line > 0, "\(bed.findings)")
    #expect(
      bed.host.contains { $0.contains(text) && $0.hasPrefix("hook.c:\(line): handle: ") },
      "\(bed.host)")
    // No mistake makes the views of the tables endless.
    var leaves = 0
    bed.engine.forEachLeaf { _, _ in leaves += 1 }
    #expect(leaves < 1 << 16)
  }

  @Test func readWithMoreBitsIsTold() throws {
    let bed = try CodeBed(hook: "WIDE_READ")
    #expect(try bed.write([0x41]) == 1)
    bed.engine.virtualMachine.stage2.hideTopBit()
    _ = try bed.read()
    #expect(
      bed.findings.contains { $0.text.contains("were not masked: & 0xff") }, "\(bed.findings)")
  }

  @Test func resultsOfAHook() throws {
    let error = try CodeBed(hook: "RETURNS_ERROR")
    #expect(throws: Errno.ioError) { try error.write([1]) }
    #expect(error.engine.guestStop?.result == .failed(.busy))
    #expect(error.findings.isEmpty, "\(error.findings)")
    let livelock = try CodeBed(hook: "NO_INCREMENT")
    #expect(throws: Errno.ioError) { try livelock.write([1]) }
    guard case .livelock? = livelock.engine.guestStop?.result else {
      Issue.record("\(String(describing: livelock.engine.guestStop))")
      return
    }
    // The runtime counts the moves: kvm_skip_instr() of Linux 5.10 twice.
    let two = try CodeBed(hook: "TWO_INCREMENTS")
    let store = GuestInstruction.access(
      .store(.byte, from: 3), address: .init(flat: HideSeek.hideAddress))
    let pc = two.engine.virtualMachine.vcpu.pc
    two.engine.virtualMachine.run(store)
    // The second move comes when the guest goes on.
    #expect(two.engine.virtualMachine.vcpu.pc == pc + 8)
  }

  @Test func accessThatAHookLeavesToTheMonitor() throws {
    let bed = try CodeBed(hook: "RIGHT")
    bed.engine.virtualMachine.setRegister(3, to: 0x1234_5678)
    let result = bed.engine.virtualMachine.run(
      .access(.store(.halfword, from: 3), address: 0x0900_0000))
    #expect(
      result == .mmio(MMIOExit(isWrite: true, address: 0x0900_0000, length: 2, data: 0x5678)))
    bed.engine.virtualMachine.completeMMIO()
    #expect(try bed.write([3]) == 1)
    #expect(bed.findings.isEmpty)
  }

  /// HVC: in the trace, by a hook, and without a hook.
  @Test func hypercall() throws {
    let bed = try CodeBed(hook: "RIGHT")
    let first = bed.engine.events.end
    let values = try bed.engine.virtualMachine.hypercall([0x8600_0000, 2, 3, 4, 5, 6, 0x10])
    #expect(values == (0x8600_0010, 2, 3, 4))
    var trace: [String] = []
    bed.engine.events.ring.forEach(from: first) { entry in
      if case .tracepoint(let tracepoint) = entry.event { trace.append("\(tracepoint)") }
    }
    #expect(
      trace == [
        "TRAP: HSR_EC: 0x0016 (HVC64), PC: 0x0000000040200004",
        "HVC at 0x0000000040200004 (r0: 0x0000000086000000, imm: 0x0)", "PC: 0x0000000040200004",
      ])
    #expect(bed.host.contains("a hypercall"))
    let stopped = #expect(throws: GuestStopped.self) {
      try bed.engine.virtualMachine.hypercall([1])
    }
    #expect(stopped?.result == .crashed(.host))
    var machine = try VirtualMachine.booted()
    #expect(try machine.hypercall([0x8600_0000, 9]) == (.max, 0, 0, 0))
    #expect(try machine.hypercall([0x8000_0000]) == (0x1_0001, 0, 0, 0))
  }

  @Test func invalidationOfAHookIsInTheTrace() throws {
    let bed = try CodeBed(hook: "RIGHT")
    #expect(bed.invalidations.isEmpty)
    #expect(try bed.write([1]) == 1)
    #expect(bed.invalidations == [0x4000_1000])
  }

  @Test(arguments: [
    (
      "CRASHES",
      "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000000"
    ),
    ("EXITS", "Internal error: the process of the hook has ended with status 7"),
  ])
  func crashOfTheHostStopsTheGuest(behaviour: String, line: String) throws {
    let bed = try CodeBed(module: "", hook: behaviour)
    #expect(throws: Errno.ioError) { try bed.write([1]) }
    #expect(bed.engine.guestStop?.result == .crashed(.host))
    #expect(bed.host.contains(line), "\(bed.host)")
    #expect(throws: Errno.ioError) { try bed.read() }
    #expect(bed.findings.filter(\.isFatal).count == 1)
    try bed.engine.reset()
    #expect(bed.engine.guestStop == nil)
  }

  @Test func visitOfNoEntryIsLeftOut() throws {
    let bed = try CodeBed(hook: "WILD_VISIT")
    #expect(try bed.write([1]) == 1)
    #expect(bed.visits.allSatisfy { $0.level <= 3 })
  }

  /// A hook that sets the program counter can make a loop of any two instructions.
  @Test func guestThatAHookLeadsBackForEverIsStopped() throws {
    let bed = try CodeBed(hook: "GOES_BACK")
    var seen: [Observation] = []
    bed.engine.perform(try Step(parsing: "guest strb w0,[0x0b000000] x0=0x5a")) {
      seen = (try? $0.get()) ?? []
    }
    guard case .run(let run)? = seen.first else {
      Issue.record("\(seen)")
      return
    }
    #expect(run.end == .hung)
    #expect(try bed.write([7]) == 1)
  }

  @Test func tableThatIsNoneIsNoReasonToTrap() throws {
    let bed = try CodeBed(hook: "NO_TABLE")
    _ = try? bed.write([1])
    #expect(bed.entry == nil)
    #expect(bed.findings.first?.text.contains("left the tables inconsistent") == true)
    #expect(throws: Errno.ioError) { try bed.read() }
    try bed.engine.reset()
    let failure = #expect(throws: EngineFailure.self) {
      try Explainer(on: bed.engine).explain(0x41)
    }
    #expect("\(failure!)".contains("points to a page that is no table"), "\(failure!)")
  }

  /// A hook of another device changes entries as it wants to, but leaves no damage.
  @Test func hookOfAnotherDeviceIsNotComparedWithHideAndSeek() throws {
    let bed = try CodeBed(hook: "OTHER_BITS", registers: nil)
    #expect(try bed.write([1]) == 1)
    #expect(bed.findings.isEmpty)
    #expect(bed.engine.hidingRegisters == nil)
    let damage = try CodeBed(hook: "CLEARS_VALID", registers: nil)
    _ = try damage.write([1])
    #expect(damage.findings.count == 1)
  }
}

extension Stage2PageTable {
  /// Sets bit 59 of the entry of the target, above the hidden byte.
  fileprivate mutating func hideTopBit() {
    try? walk(address: HideSeek.target, size: granule.pageSize, flags: .leaf) { visit, table in
      table[visit.entry].rawValue |= 1 << 59
    }
  }
}
