import CharacterDeviceServer
import Scenarios
import Stage2Sim
import VirtWalkerDevice

/// Watches a machine: keeps its trace, its two logs and its counters.
///
/// The machine has no clock: what happens in one operation has the time at which the operation began.
final class Inspector {
  let trace: RecordText<TraceRing.Entry>
  let guestLog: RecordText<KernelLogLine<GuestMessage>>
  let hostLog: RecordText<KernelLogLine<HostMessage>>
  /// The last hide or seek.
  private(set) var lastWalk: TraceRing.Entry?
  /// What a line of a log is also given to.
  var onGuestMessage: ((GuestMessage) -> Void)?
  var onHostMessage: ((HostMessage) -> Void)?

  /// Hears of the first access after which the guest does not run any more.
  var onGuestStop: ((String) -> Void)?

  private let format: TraceFormat
  private let ring: TraceRing
  private let clock: () -> UInt64
  private var operations = Counters()
  /// The number of changes besides the operations that the files show.
  private var changes: UInt64 = 0
  /// The reason why the guest has stopped, and the number of accesses until then.
  private var lastStop: (reason: GuestStopped, accesses: UInt64)?
  /// The number of the first event that was not looked at yet.
  private var firstUnseen: UInt64 = 0
  /// The entry with a byte that was hidden in it and not lost or changed since.
  private var hidden: Leaf?
  /// The level of the entry that the hook's walk came to last.
  private var visitedLevel = 0

  /// - Parameters:
  ///   - format: How the trace is printed.
  ///   - traceCapacity: How many events are kept, a power of two; of lines of each log a quarter as many.
  ///   - clock: Nanoseconds since the host was started.
  init(format: TraceFormat, traceCapacity: Int, clock: @escaping () -> UInt64) {
    self.format = format
    self.clock = clock
    ring = TraceRing(capacity: traceCapacity)
    trace = RecordText(ring.ring, line: { format.line($0) }, lostLine: TraceFormat.lostLine)
    guestLog = .kernelLog(capacity: traceCapacity / 4)
    hostLog = .kernelLog(capacity: traceCapacity / 4)
    ring.firstUnseen = 0
    // One operation can have more events than the ring has places. A copy of the machine keeps the ring, and not this.
    ring.onOverrun = { [weak self] in self?.lookAtEvents() }
  }

  /// Where the machine's events go.
  func connect(_ machine: inout VirtualMachine) { machine.trace = ring }

  /// What happens to the machine from outside.
  enum Operation { case read, write, step, reset }

  /// It begins.
  func begin(_ operation: Operation) {
    ring.time = clock()
    switch operation {
    case .read: operations.reads += 1
    case .write: operations.writes += 1
    case .step: operations.steps += 1
    case .reset: operations.resets += 1
    }
  }

  /// It is over, and the target's entry is this by now: the hidden byte is still there, or not.
  func end(_ target: Leaf?) {
    lookAtEvents()
    if let target { look(at: target) }
  }

  /// It is another number once anything has happened that the files say.
  var version: UInt64 {
    operations.reads + operations.writes + operations.steps + operations.resets + changes + ring.end
  }

  /// Something has happened that is no operation.
  func noteChange() { changes += 1 }

  /// A write to the file `trace`.
  func clearTrace() {
    trace.clear()
    noteChange()
  }

  /// The reason why the last access has failed; nil if it has not.
  var stop: GuestStopped? { lastStop?.accesses == accesses ? lastStop?.reason : nil }

  private var accesses: UInt64 { operations.reads + operations.writes }

  var counters: Counters {
    var counters = operations
    counters.isGuestStopped = stop != nil
    counters.events = ring.counts
    return counters
  }

  private func look(at leaf: Leaf) {
    guard let hidden, leaf != hidden else { return }
    if leaf.mapping != hidden.mapping {
      operations.bytesLost += 1
      self.hidden = nil
    } else if leaf.descriptor.hiddenByte != hidden.descriptor.hiddenByte {
      operations.bytesChanged += 1
      self.hidden = nil
    }
  }

  /// The machine is another one.
  func forgetHiddenByte() {
    hidden = nil
    lastStop = nil
  }

  /// The file `trace`.
  var traceText: FileText {
    let header = format.header(kept: trace.kept, written: trace.written)
    return FileText([Array(header.utf8)[...]] + trace.text)
  }

  /// The guest's kernel logs a line.
  func log(_ message: GuestMessage) {
    if case .stopped(let reason) = message {
      operations.failures += 1
      // The host's lines on what stopped it come first.
      lookAtEvents()
      let isFirst = lastStop?.accesses != accesses - 1
      lastStop = (reason, accesses)
      if isFirst { onGuestStop?(GuestStop.describe(reason)) }
    }
    guestLog.ring.append(KernelLogLine(time: ring.time, message: message))
    onGuestMessage?(message)
  }

  /// What has happened since the last look.
  private func lookAtEvents() {
    let end = ring.end
    ring.ring.forEach(from: firstUnseen) { entry in
      switch entry.event {
      case .log(let message):
        hostLog.ring.append(KernelLogLine(time: entry.time, message: message))
        onHostMessage?(message)
      case .visit(let visit): visitedLevel = visit.level
      case .hide(_, let old, let new):
        lastWalk = entry
        look(at: Leaf(descriptor: old, level: visitedLevel))
        hidden = Leaf(descriptor: new, level: visitedLevel)
      case .seek: lastWalk = entry
      default: break
      }
    }
    firstUnseen = end
    ring.firstUnseen = end
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
      ", abort esr=\(hexadecimal($0.syndrome.rawValue, digits: 8)) far=\(hexadecimal($0.far, digits: 16)) hpfar=\(hexadecimal($0.hpfar, digits: 10))"
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
  static func kernelLog<Message>(capacity: Int) -> RecordText
  where Record == KernelLogLine<Message> {
    RecordText(
      Ring(capacity: capacity), line: { "[\(timestamp($0.time))] \($0.message)\n" },
      lostLine: { "virt-walkerd: \($0) lines lost\n" })
  }
}
