/// Something that happens in the hypervisor, in the order in which the kernel does it.
public enum MachineEvent: Hashable, Sendable {
  /// A stage-2 abort is taken to EL2.
  case abort(FaultInfo)
  /// KVM invalidates TLB entries for one IPA (`__kvm_tlb_flush_vmid_ipa`). Level 0 is any level.
  case invalidation(ipa: UInt64, level: Int)
  /// KVM invalidates all TLB entries of the VM (`__kvm_tlb_flush_vmid`).
  case invalidationOfAll
  /// KVM cleans and invalidates the data cache (`dcache_clean_inval_poc`).
  case dataCacheClean(physical: UInt64, size: UInt64)
  /// KVM invalidates the instruction cache (`icache_inval_pou`).
  case instructionCacheInvalidation(physical: UInt64, size: UInt64)
  /// A tracepoint of the kernel is passed.
  case tracepoint(Tracepoint)
  /// The hook's walk comes to an entry.
  case visit(TableVisit)
  /// The hook hides a byte: the entry before and after.
  case hide(UInt8, old: Stage2Descriptor, new: Stage2Descriptor)
  /// The hook has found a byte in an entry.
  case seek(UInt8, Stage2Descriptor)
  /// Something was done that nothing in the kernel checks.
  case warning(Stage2Warning)
  /// The host's kernel logs a line.
  case log(HostMessage)
}

/// Who watches a machine. It sees; it changes nothing.
public protocol MachineObserver: AnyObject {
  /// Hears of one event, in the middle of what the machine does.
  func observe(_ event: MachineEvent)
}

/// Where a machine's events go.
struct EventSink {
  var observer: (any MachineObserver)?
  var trace: TraceRing? { didSet { state = trace?.state } }
  /// That of ``trace``, which owns it.
  private var state: UnsafeMutablePointer<TraceRing.State>?

  /// Somebody hears of events.
  var isConnected: Bool { state != nil || observer != nil }

  /// Something happens.
  ///
  /// In each place that calls it the event is known by its kind, so that little of this is left there.
  ///
  /// - Parameter event: Made in the place where it is kept, if it is.
  @inline(__always)
  func emit(_ event: @autoclosure () -> MachineEvent) {
    if let state { state.append(event()) }
    if let observer { Self.tell(observer, event()) }
  }

  @inline(never)
  private static func tell(_ observer: any MachineObserver, _ event: MachineEvent) {
    observer.observe(event)
  }
}

/// An entry that a walk comes to.
public struct TableVisit: Hashable, Sendable {
  /// Of the table, 0 to 3.
  public let level: Int
  /// The physical address of the table.
  public let table: UInt64
  /// Of the entry in the table.
  public let index: Int
  /// What stands there.
  public let descriptor: Stage2Descriptor
}

/// A line that the host's kernel logs.
public enum HostMessage: Hashable, Sendable {
  /// The hook: an access in its window.
  case hideSeekDetected(length: Int)
  /// The hook: an access longer than one byte.
  case hideSeekTooLong
  /// `io_mem_abort`: an access outside memory that the syndrome does not describe.
  case dataAbortWithoutSyndrome
}

extension HostMessage: CustomStringConvertible {
  public var description: String {
    switch self {
    case .hideSeekDetected(let length):
      "MMIO to HIDE and SEEK register detected, len: \(length)"
    case .hideSeekTooLong: "more than one byte being read/write, ERROR"
    case .dataAbortWithoutSyndrome:
      "Data abort outside memslots with no valid syndrome info"
    }
  }
}
