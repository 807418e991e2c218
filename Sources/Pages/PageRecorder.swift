import Inspection
import Scenarios
import Stage2Sim
import VirtWalkerDevice

/// A recorder of the steps of one machine for a page.
public struct PageRecorder {
  /// The most events, writes and aborts of one step on the page.
  static let mostEvents = 400

  private let tracer: StepTracer
  private let configuration: VirtualMachine.Configuration

  /// A recorder of the steps of a tracer's machine, which has performed none.
  public init(_ tracer: StepTracer) {
    self.tracer = tracer
    tracer.recordsCalls = true
    configuration = tracer.engine.machine.configuration
  }

  /// Performs a step, and adds it to the last machine of a page.
  ///
  /// - Parameters:
  ///   - step: The step.
  ///   - line: The number of its line in the scenario; 0 if there is none.
  ///   - content: The content of the page.
  /// - Throws: As the engine.
  public func perform(
    _ step: Step, line: Int = 0, into content: inout PageContent
  ) throws(EngineFailure) {
    let before = tracer.state
    try tracer.perform(step)
    let stops = tracer.takeStops()
    var page = PageStep(text: "\(step)", line: line)
    // The recorder ends a run of the guest by a store of its own, whose abort is no observation.
    let observed = Set(
      stops.compactMap { stop -> Observation? in
        if case .observation(let observation) = stop.kind { observation } else { nil }
      })
    for stop in stops { add(stop, observed, to: &page) }
    let touched = step.touchedAddress.map { $0.aligned(to: configuration.granule.pageSize) }
    for address in [HideSeek.target]
      + (touched == HideSeek.target ? [] : [touched].compactMap { $0 })
    {
      guard let first = walk(to: address, in: before),
        let last = walk(to: address, in: tracer.state)
      else { continue }
      page.walks.append((first, last))
    }
    content.add(page)
  }

  private func add(
    _ stop: TracedEvent, _ observed: Set<Observation>, to page: inout PageStep
  ) {
    switch stop.kind {
    case .step: return
    case .observation(let observation):
      page.results.append("\(observation)")
      return
    case .event(.abort(let fault)):
      let observation = Observation.abort(
        syndrome: fault.syndrome.rawValue, far: fault.far, hpfar: fault.hpfar)
      if !observed.contains(observation) {
        addEvent(
          stop.depth, "step ends",
          "the guest leaves by a store of the recorder to \(hex(fault.ipa))",
          to: &page)
      } else if page.aborts.count < Self.mostEvents {
        page.aborts.append(
          PageStep.Abort(
            syndrome: DecodedWord(fault.syndrome), far: DecodedWord(far: fault.far),
            hpfar: DecodedWord(hpfar: fault.hpfar, of: fault)))
      }
    case .event(.invalidation), .event(.localInvalidation), .event(.invalidationOfRange),
      .event(.invalidationOfAll):
      page.invalidations.append(stop.text)
    case .event(.warning), .violation: page.warnings.append(stop.text)
    case .event(.log(let message)):
      log(stop.text, message.layer, &page)
    case .line(let text, let layer): log(text, layer, &page)
    case .write(let write):
      if page.writes.count < Self.mostEvents { page.writes.append(decoded(write)) }
    default: break
    }
    addEvent(stop.depth, stop.word, stop.text, to: &page)
  }

  private func addEvent(_ depth: Int, _ word: String, _ text: String, to page: inout PageStep) {
    if page.events.count < Self.mostEvents {
      page.events.append(PageStep.Event(depth: depth, word: word, text: text))
    } else if page.events.count == Self.mostEvents {
      page.events.append(
        PageStep.Event(
          depth: 0, word: "left out", text: "more events: virt-walkerd replay --step shows them"))
    }
  }

  private func log(_ line: String, _ layer: EventLayer, _ page: inout PageStep) {
    if layer == .driver { page.guestLog.append(line) } else { page.hostLog.append(line) }
  }

  private func decoded(_ write: EntryWrite) -> PageStep.Write {
    let page = configuration.granule.pageSize
    let table = write.address.aligned(to: page)
    // An entry that no walk came to is that of a last table, as the entries of a table that was cleared.
    let level = write.level ?? Granule.lastLevel
    func decoded(_ entry: Stage2Descriptor) -> DecodedWord {
      let visit = TableVisit(
        level: level, table: table, index: Int((write.address - table) >> 3), descriptor: entry)
      return DecodedWord(visit, isLast: !entry.isTable(level: level), on: configuration)
    }
    return PageStep.Write(
      place: "\(write.level.map { "level \($0), " } ?? "")\(hex(write.address))",
      old: decoded(write.old), new: decoded(write.new))
  }

  private func walk(
    to address: IntermediatePhysicalAddress, in state: TableState
  ) -> PageStep.Walk? {
    let path = state.path(to: address)
    return path.isEmpty ? nil : PageStep.Walk(path, to: address, on: configuration)
  }
}

extension PageStep.Walk {
  /// A walk.
  ///
  /// - Parameters:
  ///   - path: The entries from the start level down, at least one.
  ///   - address: The address.
  ///   - configuration: The machine.
  init(
    _ path: [TableVisit], to address: IntermediatePhysicalAddress,
    on configuration: VirtualMachine.Configuration
  ) {
    self.address = DecodedWord(address, walked: path, on: configuration)
    entries = path.indices.map { index in
      let visit = path[index]
      return (
        visit.level, hex(visit.table), visit.index,
        DecodedWord(visit, isLast: index == path.count - 1, on: configuration)
      )
    }
  }
}
