import Scenarios
import Stage2Sim
import VirtWalkerDevice

/// A change of one entry of a translation table.
public struct EntryWrite: Hashable, Sendable {
  /// The physical address of the entry.
  public let address: PhysicalAddress
  /// The level of the table; nil if no walk came to the entry.
  public let level: Int?
  /// The entry before.
  public let old: Stage2Descriptor
  /// The entry after.
  public let new: Stage2Descriptor
}

/// An event inside of a step of a scenario, at which `replay --step` stops.
public struct TracedEvent: Hashable, Sendable {
  /// A kind of event.
  public enum Kind: Hashable, Sendable {
    /// The step begins.
    case step(Step)
    /// The machine emits an event.
    case event(MachineEvent)
    /// A kernel logs a line with a text of its own.
    case line(String, EventLayer)
    /// A function of KVM is called. Only a tracer that ``StepTracer/recordsCalls`` has these stops.
    case call(KernelFunction)
    /// A walk of KVM begins, comes to an entry, or ends.
    case walk(WalkPart)
    /// An entry is written.
    case write(EntryWrite)
    /// The page of a table is cleared, because it becomes a new table (`kvm_pgtable_mm_ops.zalloc_page`).
    case zeroed(PhysicalAddress)
    /// A change of an entry breaks a rule of break-before-make.
    case violation(BreakBeforeMake.Violation)
    /// The step has ended with an observation.
    case observation(Observation)
    /// The step has more events, which are not kept.
    case more(Int)
  }

  /// The kind.
  public let kind: Kind
  /// The number of the step, from 1.
  public let step: Int
  /// The entries that have changed since the stop before.
  public let changes: [EntryWrite]
  /// The guest physical address that the event is about, or the one of the event before.
  public let address: IntermediatePhysicalAddress
  /// The number of KVM's functions and walks that the event is inside of.
  public let depth: Int
}

/// A recorder of each event inside of the steps of a scenario: aborts, walks of KVM's own operations and of the hook, each write of an
/// entry, and TLB invalidations, in their order.
///
/// The tracer compares entries with what they were at the stop before. KVM and the hook write only to an entry that their walk has come
/// to, so that each write is found at the next event, and in the right order.
public final class StepTracer: MachineObserver {
  /// The most stops of one step. An unmapping of much memory has more.
  public static let mostStops = 1 << 17

  /// The engine that performs the steps.
  public let engine: ModelEngine
  /// The stops so far.
  public private(set) var stops: [TracedEvent] = []
  /// Whether the calls of KVM's functions are stops.
  public var recordsCalls = false
  /// The number of steps so far.
  public private(set) var stepCount = 0
  /// The entries that are not zero, as they were after the last stop.
  public private(set) var state: TableState

  private let tables: ObservedTables
  private var checker: BreakBeforeMake
  /// The entries that visitors have not left yet, the innermost one at the end.
  private var visits: [TableVisit] = []
  /// The entry that a walk of the hook came to last.
  private var hookVisit: TableVisit?
  private var address = HideSeek.target
  private var left = 0
  private var depth = 0
  private var firstOfStep = 0

  /// A machine at its start, with the hook of the original.
  ///
  /// - Parameter machine: The machine.
  /// - Throws: As ``ModelEngine``.
  public convenience init(_ machine: MachineDescription) throws {
    try self.init { try ModelEngine(machine, ModelEngine.Parts(tables: $0.source())) }
  }

  /// A machine at its start.
  ///
  /// - Parameter makeEngine: Makes an engine whose tables are the given ones.
  /// - Throws: An error of the function.
  public init(makeEngine: (ObservedTables) throws -> ModelEngine) throws {
    tables = ObservedTables()
    engine = try makeEngine(tables)
    state = TableState(of: engine.virtualMachine.stage2)
    checker = BreakBeforeMake(of: engine.virtualMachine.stage2)
  }

  /// Performs a step, and records its stops.
  ///
  /// - Throws: As the engine.
  public func perform(_ step: Step) throws(EngineFailure) {
    stepCount += 1
    (firstOfStep, left, depth) = (stops.count, 0, 0)
    visits = []
    hookVisit = nil
    if let touched = step.touchedAddress { address = touched }
    add(.step(step))
    // Only for the step: the machine would keep this object, which keeps the machine.
    engine.virtualMachine.observer = self
    defer { engine.virtualMachine.observer = nil }
    let observations = try engine.perform(step)
    depth = 0
    noteWrites()
    noteOtherWrites()
    if left > 0 { add(.more(left)) }
    for observation in observations { add(.observation(observation)) }
  }

  // MARK: - Events

  public var followsWalks: Bool { true }

  public func observe(_ event: MachineEvent) {
    noteWrites()
    switch event {
    case .abort(let fault): address = fault.ipa
    case .visit(let visit): hookVisit = visit
    case .invalidation(let ipa, _), .localInvalidation(let ipa, _),
      .invalidationOfRange(let ipa, _):
      address = ipa
    default: break
    }
    checker.note(event)
    add(.event(event))
  }

  public func observe(text: String, layer: EventLayer) {
    noteWrites()
    add(.line(text, layer))
  }

  public func observe(_ part: WalkPart) {
    noteWrites()
    switch part {
    case .begin(_, let start, _): address = start
    case .visit(let visit, _, let visited):
      noteZeroed(visit)
      visits.append(visit)
      address = visited
    case .endOfVisit:
      if !visits.isEmpty { visits.removeLast() }
      return
    case .end:
      depth -= 1
      return
    }
    add(.walk(part))
    if case .begin = part { depth += 1 }
  }

  public func observe(_ call: KernelCall) {
    guard recordsCalls else { return }
    noteWrites()
    switch call {
    case .enter(let function):
      add(.call(function))
      depth += 1
    case .leave: depth -= 1
    }
  }

  /// The stops since the last call of this function, which the tracer does not keep any longer.
  public func takeStops() -> [TracedEvent] {
    defer { stops = [] }
    return stops
  }

  private func add(_ kind: TracedEvent.Kind, _ changes: [EntryWrite] = []) {
    append(
      TracedEvent(
        kind: kind, step: stepCount, changes: changes, address: address, depth: depth))
  }

  private func append(_ stop: TracedEvent) {
    guard stops.count - firstOfStep < Self.mostStops || !stop.changes.isEmpty || stop.isOfStep
    else {
      left += 1
      return
    }
    stops.append(stop)
  }

  // MARK: - Writes

  /// Looks for writes to the entries at which visitors and the hook are.
  private func noteWrites() {
    for visit in visits + (hookVisit.map { [$0] } ?? []) {
      let entry = visit.table &+ UInt64(visit.index) << 3
      guard let new = tables.entry(at: entry) else { continue }
      note(EntryWrite(address: entry, level: visit.level, old: state[entry], new: new))
    }
  }

  /// A table is cleared before its first entry is written. An entry that is not as it was shows this.
  private func noteZeroed(_ visit: TableVisit) {
    let entry = visit.table &+ UInt64(visit.index) << 3
    if state[entry] != visit.descriptor { noteZeroed(visit.table) }
  }

  private func noteZeroed(_ page: PhysicalAddress) {
    let changes = state.entries(inPage: page).compactMap { address, old -> EntryWrite? in
      guard let new = tables.entry(at: address), new != old else { return nil }
      return EntryWrite(address: address, level: nil, old: old, new: new)
    }
    guard !changes.isEmpty else { return }
    for change in changes { state[change.address] = change.new }
    add(.zeroed(page), changes)
  }

  private func note(_ write: EntryWrite) {
    guard write.old != write.new else { return }
    // A new table is cleared before an entry points to it.
    if let level = write.level, write.new.isTable(level: level) {
      noteZeroed(state.table(below: write.new))
    }
    state[write.address] = write.new
    add(.write(write), [write])
    if let violation = checker.note(write) { add(.violation(violation)) }
  }

  /// Looks at all entries, for writes that belong to no walk.
  private func noteOtherWrites() {
    var writes: [EntryWrite] = []
    engine.virtualMachine.stage2.withTableWords { words in
      for (index, word) in words.enumerated() {
        let entry = TableMemory.base &+ UInt64(index) << 3
        let old = state[entry]
        if old.rawValue != word {
          writes.append(
            EntryWrite(
              address: entry, level: nil, old: old, new: Stage2Descriptor(rawValue: word)))
        }
      }
    }
    for write in writes { note(write) }
  }
}

extension TracedEvent {
  /// Whether the stop is the beginning or a result of a step.
  var isOfStep: Bool {
    switch kind {
    case .step, .observation, .more: true
    default: false
    }
  }
}

/// The entries of a translation table at a stop.
public struct TableState: Sendable {
  /// The entries that are not zero.
  private var entries: [PhysicalAddress: UInt64] = [:]
  private let root: PhysicalAddress
  private let startLevel: Int
  private let granule: Granule
  private let ipaBits: Int

  /// The present entries of a table.
  init(of table: Stage2PageTable) {
    root = table.baseAddress
    startLevel = table.startLevel
    granule = table.granule
    ipaBits = table.ipaBits
    table.withTableWords { words in
      for (index, word) in words.enumerated() where word != 0 {
        entries[TableMemory.base &+ UInt64(index) << 3] = word
      }
    }
  }

  /// The entry at a physical address.
  public internal(set) subscript(address: PhysicalAddress) -> Stage2Descriptor {
    get { Stage2Descriptor(rawValue: entries[address] ?? 0) }
    set { entries[address] = newValue.rawValue == 0 ? nil : newValue.rawValue }
  }

  /// The entries that are not zero, by their physical addresses.
  var allEntries: [PhysicalAddress: UInt64] { entries }

  /// Goes forward over the changes of a stop.
  public mutating func apply(_ stop: TracedEvent) {
    for change in stop.changes { self[change.address] = change.new }
  }

  /// Goes back over the changes of a stop.
  public mutating func revert(_ stop: TracedEvent) {
    for change in stop.changes.reversed() { self[change.address] = change.old }
  }

  /// The entries on the way to the one that maps an address, from the start level down; empty for an address beyond the IPA range.
  public func path(to address: IntermediatePhysicalAddress) -> [TableVisit] {
    guard address.rawValue >> UInt64(ipaBits) == 0 else { return [] }
    var path: [TableVisit] = []
    var table = root
    var level = startLevel
    while true {
      let shift = UInt64(granule.shift(level: level))
      var index = address.rawValue >> shift
      if level != startLevel { index &= UInt64(granule.entriesPerTable - 1) }
      let entry = table &+ index << 3
      let descriptor = self[entry]
      path.append(
        TableVisit(
          level: level, table: entry.aligned(to: granule.pageSize),
          index: Int(index) & (granule.entriesPerTable - 1), descriptor: descriptor))
      guard descriptor.isTable(level: level) else { return path }
      table = self.table(below: descriptor)
      level += 1
    }
  }

  /// The table that an entry points to.
  func table(below descriptor: Stage2Descriptor) -> PhysicalAddress {
    descriptor.outputAddress(granule)
  }

  /// The entries of a page that are not zero.
  func entries(inPage page: PhysicalAddress) -> [(PhysicalAddress, Stage2Descriptor)] {
    (0..<UInt64(granule.entriesPerTable)).compactMap { index in
      let address = page &+ index << 3
      return entries[address].map { (address, Stage2Descriptor(rawValue: $0)) }
    }
  }
}
