/// Something that happens in the hypervisor, in the order in which the kernel does it.
public enum MachineEvent: Hashable, Sendable {
  /// A stage-2 abort is taken to EL2.
  case abort(FaultInfo)
  /// KVM invalidates TLB entries for one IPA (`__kvm_tlb_flush_vmid_ipa`). Level 0 is any level.
  case invalidation(ipa: IntermediatePhysicalAddress, level: Int)
  /// KVM invalidates TLB entries for one IPA, on this CPU only (`__kvm_tlb_flush_vmid_ipa_nsh`, of 6.3 and later). Level 0 is any
  /// level.
  case localInvalidation(ipa: IntermediatePhysicalAddress, level: Int)
  /// KVM invalidates the TLB entries of a range of pages (`__kvm_tlb_flush_vmid_range`, of 6.6 and later).
  case invalidationOfRange(ipa: IntermediatePhysicalAddress, pages: UInt64)
  /// KVM invalidates all TLB entries of the VM (`__kvm_tlb_flush_vmid`).
  case invalidationOfAll
  /// KVM cleans and invalidates the data cache (`dcache_clean_inval_poc`).
  case dataCacheClean(physical: PhysicalAddress, size: UInt64)
  /// KVM invalidates the instruction cache (`icache_inval_pou`).
  case instructionCacheInvalidation(physical: PhysicalAddress, size: UInt64)
  /// A tracepoint of the kernel is passed.
  case tracepoint(Tracepoint)
  /// A walk of a hook comes to an entry.
  case visit(TableVisit)
  /// A hook reports its work on an entry.
  case hook(HookEvent)
  /// A change was made that breaks a rule which the kernel does not check.
  case warning(Stage2Warning)
  /// A kernel logs a line.
  case log(LogMessage)
  /// A kernel logs a line whose text was made as the program ran.
  case text(LoggedText)
  /// A line of the trace of a real kernel, in the kernel's own form.
  case traced(LoggedText)
  /// The guest does not run any more, and the driver cannot complete an access.
  case guestStopped
}

/// The layer of the system that an event belongs to.
public enum EventLayer: String, CaseIterable, Sendable {
  /// The CPU takes an abort.
  case cpu
  /// The host's kernel: KVM, and KVM's maintenance of TLBs and caches.
  case kvm
  /// A hook in KVM's MMIO path.
  case hook
  /// A driver in the guest's kernel.
  case driver
  /// The checks of the model: no kernel has them.
  case checker
}

extension MachineEvent {
  /// The layer that the event belongs to.
  public var layer: EventLayer {
    switch self {
    case .abort: .cpu
    case .invalidation, .localInvalidation, .invalidationOfRange, .invalidationOfAll,
      .dataCacheClean, .instructionCacheInvalidation, .tracepoint:
      .kvm
    case .visit, .hook: .hook
    case .warning: .checker
    case .log(let message): message.layer
    case .text(let text), .traced(let text): text.layer
    case .guestStopped: .driver
    }
  }
}

/// A report of a hook about an entry.
public enum HookEvent: Hashable, Sendable {
  /// The hook has written a byte into an entry: the entry before and after.
  case byteWritten(UInt8, old: Stage2Descriptor, new: Stage2Descriptor)
  /// The hook has read a byte from an entry.
  case byteRead(UInt8, Stage2Descriptor)
}

/// A receiver of each event of a machine. It changes nothing.
public protocol MachineObserver: AnyObject {
  /// Takes one event, in the middle of an operation of the machine.
  func observe(_ event: MachineEvent)

  /// Takes a line that a kernel logs with a text of its own. The default does nothing.
  func observe(text: String, layer: EventLayer)

  /// Whether the observer follows the walks of KVM's own operations. The default is false, because walks are slower if somebody
  /// follows them.
  var followsWalks: Bool { get }

  /// Takes a part of a walk of KVM's own, if ``followsWalks``. The default does nothing.
  func observe(_ part: WalkPart)

  /// Takes the beginning or the end of a call of one of KVM's functions, if ``followsWalks``. The default does nothing.
  func observe(_ call: KernelCall)
}

extension MachineObserver {
  public func observe(text: String, layer: EventLayer) {}
  public var followsWalks: Bool { false }
  public func observe(_ part: WalkPart) {}
  public func observe(_ call: KernelCall) {}
}

/// A part of a walk of one of KVM's own operations on the stage-2 table, such as `kvm_pgtable_stage2_map`.
public enum WalkPart: Hashable, Sendable {
  /// The walk begins (`kvm_pgtable_walk`).
  ///
  /// - Parameters:
  ///   - visitor: The name of the kernel's visitor.
  ///   - address: The first address.
  ///   - end: The end of the walk, exclusive.
  case begin(
    visitor: String, address: IntermediatePhysicalAddress, end: IntermediatePhysicalAddress)
  /// The walk calls its visitor for an entry, for exactly one of the flags (`kvm_pgtable_visitor_cb`).
  case visit(TableVisit, WalkFlags, address: IntermediatePhysicalAddress)
  /// The visitor has returned, with or without an error.
  case endOfVisit
  /// The walk has ended, with or without an error.
  case end
}

/// The end of an event stream into which KVM, hooks and drivers put their events.
@usableFromInline
struct EventSink {
  @usableFromInline var observer: (any MachineObserver)?
  var stream: EventStream? { didSet { state = stream?.state } }
  /// The state of ``stream``, which owns it.
  @usableFromInline var state: UnsafeMutablePointer<EventStream.State>?

  init() {}

  /// Whether events go anywhere.
  @inlinable
  var isConnected: Bool { state != nil || observer != nil }

  /// Puts an event into the stream.
  ///
  /// The kind of the event is known in each place that calls this function, so that the compiler leaves little of the
  /// function there.
  ///
  /// - Parameter event: The event, which is made in its place in the ring.
  @inlinable @inline(__always)
  func emit(_ event: @autoclosure () -> MachineEvent) {
    if let state { state.append(event()) }
    if let observer { Self.tell(observer, event()) }
  }

  /// Reports that a function of the kernel begins. The caller ends the call by ``leave()``.
  @inline(__always)
  func enter(_ function: KernelFunction) {
    if let observer { Self.tell(observer, .enter(function)) }
  }

  /// Reports that the function ends whose call began last.
  @inline(__always)
  func leave() {
    if let observer { Self.tell(observer, .leave) }
  }

  @inline(never)
  private static func tell(_ observer: any MachineObserver, _ call: KernelCall) {
    if observer.followsWalks { observer.observe(call) }
  }

  /// Puts a line with a text of its own into the stream.
  @inline(never)
  func log(_ text: String, _ layer: EventLayer) {
    if let stream { state?.append(.text(stream.keep(text, layer))) }
    observer?.observe(text: text, layer: layer)
  }

  @usableFromInline @inline(never)
  static func tell(_ observer: any MachineObserver, _ event: MachineEvent) {
    observer.observe(event)
  }
}

/// An entry that a walk comes to.
public struct TableVisit: Hashable, Sendable {
  /// The level of the table, 0 to 3.
  public let level: Int
  /// The physical address of the table.
  public let table: PhysicalAddress
  /// The index of the entry in the table.
  public let index: Int
  /// The entry.
  public let descriptor: Stage2Descriptor

  /// A visit of the entry with an index in a table.
  @inlinable
  public init(level: Int, table: PhysicalAddress, index: Int, descriptor: Stage2Descriptor) {
    self.level = level
    self.table = table
    self.index = index
    self.descriptor = descriptor
  }
}

/// A line that a kernel logs with a text of its own. The text is in the stream: ``EventStream/text(of:)``.
public struct LoggedText: Hashable, Sendable {
  /// The layer that logs, as for ``LogMessage/layer``.
  public let layer: EventLayer
  /// The number of the text in its stream.
  let number: UInt64
}

/// A line that a kernel logs: `printk` with a format and at most one number.
///
/// A message holds no text of its own, so that it can be kept without an allocation.
public struct LogMessage: Sendable {
  /// The layer that logs: ``EventLayer/kvm`` and ``EventLayer/hook`` log into the host's kernel log, ``EventLayer/driver`` into
  /// the guest's.
  public let layer: EventLayer
  private let format: StaticString
  private let value: Int32

  /// A message.
  ///
  /// - Parameters:
  ///   - layer: The layer that logs.
  ///   - format: The text. The first `%d` in it stands for the number.
  ///   - value: The number.
  public init(_ layer: EventLayer, _ format: StaticString, _ value: Int = 0) {
    self.layer = layer
    self.format = format
    self.value = Int32(truncatingIfNeeded: value)
  }
}

extension LogMessage: CustomStringConvertible {
  /// The line without its time.
  public var description: String {
    let text = "\(format)"
    guard let percent = text.utf8.firstIndex(of: UInt8(ascii: "%")),
      text[percent...].hasPrefix("%d")
    else { return text }
    return text[..<percent] + "\(value)" + text[percent...].dropFirst(2)
  }
}

extension LogMessage: Hashable {
  public static func == (left: LogMessage, right: LogMessage) -> Bool {
    left.layer == right.layer && left.description == right.description
  }

  public func hash(into hasher: inout Hasher) {
    hasher.combine(layer)
    hasher.combine(description)
  }
}
