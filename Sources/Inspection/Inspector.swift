import Scenarios
import Stage2Sim
import VirtWalkerDevice

/// Watches a machine: keeps its trace, its two logs and its counters.
///
/// The machine has no clock: what happens in one operation has the time at which the operation began.
final class Inspector: MachineObserver {
  let trace: RecordText<TracedEvent>
  let guestLog: RecordText<KernelLogLine<GuestMessage>>
  let hostLog: RecordText<KernelLogLine<HostMessage>>
  let format: TraceFormat
  private(set) var counters = Counters()
  /// The last hide or seek, as the trace has it.
  private(set) var lastWalk: TracedEvent?
  /// What a line of a log is also given to.
  var onGuestMessage: ((GuestMessage) -> Void)?
  var onHostMessage: ((HostMessage) -> Void)?

  private let clock: () -> UInt64
  private var now: UInt64 = 0
  /// The entry with a byte that was hidden in it and not lost or changed since.
  private var hidden: Leaf?
  /// The entry that the hook's walk came to last.
  private var visited: TableVisit?

  /// - Parameters:
  ///   - format: How the trace is printed.
  ///   - clock: Nanoseconds since the host was started.
  init(format: TraceFormat, clock: @escaping () -> UInt64) {
    self.format = format
    self.clock = clock
    trace = RecordText(
      capacity: 1 << 14, line: { format.line($0) }, lostLine: TraceFormat.lostLine)
    guestLog = .kernelLog()
    hostLog = .kernelLog()
  }

  /// Something begins that happens to the machine.
  func begin(_ operation: WritableKeyPath<Counters, UInt64>) {
    now = clock()
    counters[keyPath: operation] += 1
  }

  /// What began is over, and the target's entry is this by now: the hidden byte is still there, or not.
  func look(at leaf: Leaf) {
    guard let hidden, leaf != hidden else { return }
    if leaf.mapping != hidden.mapping {
      counters.bytesLost += 1
      self.hidden = nil
    } else if leaf.descriptor.hiddenByte != hidden.descriptor.hiddenByte {
      counters.bytesChanged += 1
      self.hidden = nil
    }
  }

  /// The machine is another one.
  func forgetHiddenByte() { hidden = nil }

  /// The file `trace`.
  var traceText: String {
    format.header(kept: trace.kept, written: trace.written) + trace.text
  }

  func log(_ message: GuestMessage) {
    guestLog.append(KernelLogLine(time: now, message: message))
    if case .stopped = message { counters.failures += 1 }
    onGuestMessage?(message)
  }

  func observe(_ event: MachineEvent) {
    count(event)
    if case .log(let message) = event {
      hostLog.append(KernelLogLine(time: now, message: message))
      onHostMessage?(message)
    }
    if event.isTraced { trace.append(TracedEvent(time: now, event: event)) }
  }

  private func countWalk(_ event: MachineEvent) {
    counters.walks += 1
    lastWalk = TracedEvent(time: now, event: event)
  }

  private func count(_ event: MachineEvent) {
    switch event {
    case .abort(let fault):
      counters.aborts += 1
      switch fault.syndrome.faultStatus {
      case .translation: counters.translationFaults += 1
      case .accessFlag: counters.accessFlagFaults += 1
      case .permission: counters.permissionFaults += 1
      case .addressSize, nil: counters.addressSizeFaults += 1
      }
    case .invalidation: counters.invalidations += 1
    case .invalidationOfAll: counters.invalidationsOfAll += 1
    case .visit(let visit):
      counters.visits += 1
      visited = visit
    case .hide(_, let old, let new):
      countWalk(event)
      look(at: Leaf(descriptor: old, level: visited?.level ?? 0))
      hidden = Leaf(descriptor: new, level: visited?.level ?? 0)
    case .seek: countWalk(event)
    case .tracepoint(.entry): counters.entries += 1
    case .tracepoint(.userspaceExit(.mmio)): counters.mmioExits += 1
    case .warning: counters.warnings += 1
    case .tracepoint, .log, .dataCacheClean, .instructionCacheInvalidation: break
    }
  }
}

/// A line of a kernel's log.
struct KernelLogLine<Message: CustomStringConvertible> {
  /// Since the host was started, in nanoseconds.
  let time: UInt64
  let message: Message
}

extension RecordText {
  /// Lines as dmesg(1) prints them.
  static func kernelLog<Message>() -> RecordText where Record == KernelLogLine<Message> {
    RecordText(
      capacity: 1 << 12, line: { "[\(timestamp($0.time))] \($0.message)\n" },
      lostLine: { "virt-walkerd: \($0) lines lost\n" })
  }
}
