import CharacterDeviceServer
import Scenarios
import Stage2Sim
import VirtWalkerDevice

/// The observer of a machine, which keeps its trace, its two logs and its counters.
///
/// The machine has no clock. All events of one operation have the time at which the operation began.
final class Inspector: EventListener {
  let trace: RingText<EventStream.Entry>
  let guestLog: RingText<KernelLogLine>
  let hostLog: RingText<KernelLogLine>
  /// The last hide or seek, and its time.
  private(set) var lastWalk: (time: UInt64, event: HookEvent)?
  private let onGuestLine: ((String) -> Void)?
  private let onHostLine: ((String) -> Void)?

  /// A function that is called at the first access after which the guest does not run any more.
  var onGuestStop: ((String) -> Void)?

  private let format: TraceFormat
  private let engine: any Engine
  private let events: EventStream
  // The rings of the stream and of the two logs stand here, too: an access through the log takes a reference.
  private let ring: Ring<EventStream.Entry>
  private let guestRing: Ring<KernelLogLine>
  private let hostRing: Ring<KernelLogLine>
  private let clock: () -> UInt64
  private var operations = Counters()
  /// The number of changes besides the operations that the files show.
  private var changes: UInt64 = 0
  /// The reason why the guest has stopped, and the number of accesses until then.
  private var lastStop: (reason: GuestStopped, accesses: UInt64)?
  /// The entry with the last hidden byte; nil if there is none, or if the byte was lost or changed.
  private var hidden: Leaf?

  /// - Parameters:
  ///   - engine: The engine. Each log keeps a quarter as many lines as the stream of the engine keeps events.
  ///   - format: The form of the trace.
  ///   - clock: Nanoseconds since the host was started.
  ///   - onGuestLine: A function that is called for each line of the guest's log, also for the lines of a driver's start.
  ///   - onHostLine: A function that is called for each line of the host's log.
  init(
    of engine: any Engine, format: TraceFormat, clock: @escaping () -> UInt64,
    onGuestLine: ((String) -> Void)?, onHostLine: ((String) -> Void)?
  ) {
    self.engine = engine
    self.format = format
    self.clock = clock
    self.onGuestLine = onGuestLine
    self.onHostLine = onHostLine
    events = engine.events
    trace = RingText(
      events.ring, line: { [events] in format.line($0, of: events) },
      lostLine: TraceFormat.lostLine)
    guestLog = .kernelLog(capacity: events.capacity / 4)
    hostLog = .kernelLog(capacity: events.capacity / 4)
    ring = events.ring
    guestRing = guestLog.ring
    hostRing = hostLog.ring
    // The lines of a driver's start come when the function below is set.
    if events.hasEarlyGuestEvents { events.time = clock() }
    super.init()
    events.listener = self
  }

  deinit { events.listener = nil }

  /// An operation on the machine from outside.
  enum Operation {
    case read, write, step, reset
    /// A call that no counter counts: open, ioctl and others.
    case otherCall
  }

  /// Notes the time at which an operation begins, and counts it.
  func begin(_ operation: Operation) {
    events.time = clock()
    switch operation {
    case .read: operations.reads += 1
    case .write: operations.writes += 1
    case .step: operations.steps += 1
    case .reset: operations.resets += 1
    case .otherCall: break
    }
  }

  /// Compares the hidden byte with the entry of the target at the end of an operation.
  func end(_ target: Leaf?) {
    if let target { compare(target) }
  }

  /// A number that changes with each change of a file.
  var version: UInt64 {
    operations.reads + operations.writes + operations.steps + operations.resets + changes
      + events.end
  }

  /// Notes a change of a file without an operation.
  func noteChange() { changes += 1 }

  /// Clears the file `trace`.
  func clearTrace() {
    trace.clear()
    noteChange()
  }

  /// The reason why the last access has failed; nil if it has succeeded.
  var stop: GuestStopped? { lastStop?.accesses == accesses ? lastStop?.reason : nil }

  private var accesses: UInt64 { operations.reads + operations.writes }

  var counters: Counters {
    var counters = operations
    counters.isGuestStopped = stop != nil
    counters.events = events.counts
    return counters
  }

  /// Counts the hidden byte as lost or changed if the entry does not hold it any more.
  private func compare(_ leaf: Leaf) {
    guard let hidden, leaf != hidden else { return }
    if leaf.mapping != hidden.mapping {
      operations.bytesLost += 1
      self.hidden = nil
    } else if leaf.descriptor.hiddenByte != hidden.descriptor.hiddenByte {
      operations.bytesChanged += 1
      self.hidden = nil
    }
  }

  /// Forgets the state of a machine that was booted anew.
  func forgetHiddenByte() {
    hidden = nil
    lastStop = nil
  }

  /// The file `trace`.
  var traceText: FileText {
    let header = format.header(kept: trace.kept, written: trace.written)
    return FileText([Array(header.utf8)[...]] + trace.text)
  }

  /// Takes an event of the guest's kernel.
  override func noteGuestEvent(_ event: MachineEvent) {
    switch event {
    case .log(let message):
      guestRing.append(KernelLogLine(time: events.time, content: .message(message)))
      onGuestLine?("\(message)")
    case .text(let line):
      let text = events.text(of: line)
      guestRing.append(KernelLogLine(time: events.time, content: .text(text)))
      onGuestLine?(text)
    case .guestStopped:
      guard let reason = engine.view.guestStop else { return }
      operations.failures += 1
      // An open can fail for the same reason, and is no access.
      let isFirst = lastStop.map { $0.accesses + 1 < accesses } ?? true
      lastStop = (reason, accesses)
      if isFirst { onGuestStop?(GuestStop.describe(reason)) }
      let line = KernelLogLine(time: events.time, content: .stopped(reason.result))
      guestRing.append(line)
      onGuestLine?("\(line.content)")
    default: break
    }
  }

  override func noteLine(_ text: String, _ layer: EventLayer) {
    changes += 1
    let isGuest = layer == .driver
    (isGuest ? guestRing : hostRing).append(
      KernelLogLine(time: events.time, content: .text(text)))
    (isGuest ? onGuestLine : onHostLine)?(text)
  }

  /// Takes a line of the host's kernel, or a hide or a seek.
  override func noteEvent(_ event: MachineEvent) {
    switch event {
    case .log(let message):
      hostRing.append(KernelLogLine(time: events.time, content: .message(message)))
      onHostLine?("\(message)")
    case .text(let line):
      let text = events.text(of: line)
      hostRing.append(KernelLogLine(time: events.time, content: .text(text)))
      onHostLine?(text)
    case .hook(let event):
      lastWalk = (events.time, event)
      guard case .byteWritten(_, let old, let new) = event else { return }
      let level = visitedLevel
      compare(Leaf(descriptor: old, level: level))
      hidden = Leaf(descriptor: new, level: level)
    default: break
    }
  }

  /// The level of the last entry that a walk of the hook has visited: the visit stands shortly before the event of the hook.
  private var visitedLevel: Int {
    var number = ring.end
    while number > ring.start {
      number -= 1
      if case .visit(let visit) = ring[number].event { return visit.level }
    }
    return 0
  }
}

/// The lines of the files about a guest that does not run any more.
enum GuestStop {
  /// The reason, and how to go on.
  static func lines(_ stop: GuestStopped) -> [String] {
    [
      "The guest has stopped: \(describe(stop)).",
      "Each read and write of the node fails with EIO. To boot the machine anew: echo 1 > reset",
    ]
  }

  /// The result of the guest's last access.
  static func describe(_ stop: GuestStopped) -> String {
    let abort = stop.abort.map {
      ", abort esr=\(hexadecimal($0.syndrome.rawValue, digits: 8)) far=\(hexadecimal($0.far.rawValue, digits: 16)) hpfar=\(hexadecimal($0.hpfar, digits: 10))"
    }
    return reason(stop.result) + (abort ?? "")
  }

  private static func reason(_ result: RunResult) -> String {
    switch result {
    case .retired: "the instruction was done"
    case .mmio(let mmio):
      "nothing is at \(hex(mmio.address)), where its kernel \(mmio.isWrite ? "writes" : "reads")"
    case .failed(let error): "KVM_RUN failed with \(error)"
    case .guestException(let exception):
      "its kernel took an exception, esr_el1=\(hexadecimal(exception.syndrome, digits: 8))"
    case .livelock(let fault): "the same abort comes again and again at \(hex(fault.ipa))"
    case .notModelled(let word): "its kernel came to the unknown instruction \(hex(UInt64(word)))"
    case .crashed(.guest): "its kernel has crashed in the module: the file guest/dmesg says why"
    case .crashed(.host): "the host's kernel has crashed in the hook: the file host/dmesg says why"
    case .lost:
      "its kernel or the host's does not run any more: the files guest/dmesg and host/dmesg say why"
    }
  }
}

/// A line of a kernel's log.
struct KernelLogLine {
  enum Content {
    case message(LogMessage)
    /// A line with a text of its own.
    case text(String)
    /// A line of this program: the guest does not run any more.
    case stopped(RunResult)
  }

  /// Nanoseconds since the host was started.
  let time: UInt64
  let content: Content
}

extension KernelLogLine.Content: CustomStringConvertible {
  var description: String {
    switch self {
    case .message(let message): "\(message)"
    case .text(let text): text
    case .stopped(.crashed(.guest)): "the guest has stopped: its kernel has crashed"
    case .stopped(.crashed(.host)): "the guest has stopped: the host's kernel has crashed"
    case .stopped(.lost): "the guest has stopped: its kernel or the host's does not run any more"
    case .stopped(let result): "the guest has stopped: \(result)"
    }
  }
}

extension RingText {
  /// Lines as dmesg(1) prints them.
  static func kernelLog(capacity: Int) -> RingText where Record == KernelLogLine {
    RingText(
      Ring(capacity: capacity), line: { "[\(timestamp($0.time))] \($0.content)\n" },
      lostLine: { "virt-walkerd: \($0) lines lost\n" })
  }
}
