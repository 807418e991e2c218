/// The stream of a machine's events, in the order in which they happen.
///
/// A ring keeps the last events, as ftrace's ring buffer does (kernel/trace/ring_buffer.c), for a later look. Lines of the
/// guest's kernel are in no trace of the host, and so not in the ring: the ``listener`` gets each. A ``MachineObserver`` is called for
/// each event.
public final class EventStream {
  /// An event with its time and its CPU.
  public struct Entry: Sendable {
    /// The value of ``EventStream/time`` when the event happened.
    public let time: UInt64
    /// The event.
    public let event: MachineEvent
    /// The number of the vCPU. Machines have one vCPU, 0.
    public let cpu: UInt8

    @inlinable
    init(time: UInt64, event: MachineEvent, cpu: UInt8) {
      self.time = time
      self.event = event
      self.cpu = cpu
    }
  }

  /// The events that are kept.
  public let ring: Ring<Entry>
  /// The state that changes with an event besides the ring: the numbers of events, and the time. ``EventSink`` uses the
  /// pointer for the reason that ``Ring`` gives.
  let state: UnsafeMutablePointer<State>

  @usableFromInline struct State {
    /// The owner of the state.
    @usableFromInline let stream: Unmanaged<EventStream>
    @usableFromInline let ring: UnsafeMutablePointer<Ring<Entry>.State>
    @usableFromInline var time: UInt64 = 0
    @usableFromInline var counts = EventCounts()
  }

  /// A ring without an event. It takes memory as events come.
  ///
  /// - Parameter capacity: The number of events that are kept, a power of two.
  public init(capacity: Int) {
    self.capacity = capacity
    ring = Ring(capacity: capacity)
    state = .allocate(capacity: 1)
    state.initialize(to: State(stream: .passUnretained(self), ring: ring.state))
  }

  deinit { state.deallocate() }

  /// The number of events that are kept.
  public let capacity: Int

  /// The number of the next event; the first one has 0.
  public var end: UInt64 { ring.end }

  /// The number of the first event that is still there.
  public var start: UInt64 { ring.start }

  /// The event of a number from ``start`` up to, but not, ``end``.
  public subscript(number: UInt64) -> Entry { ring[number] }

  /// The time of the next events. The machine has no clock, so its caller sets the time.
  public var time: UInt64 {
    get { state.pointee.time }
    set { state.pointee.time = newValue }
  }

  /// The numbers of events of each kind. A machine that counts outside of this stream sets them.
  public var counts: EventCounts {
    get { state.pointee.counts }
    set { state.pointee.counts = newValue }
  }

  /// The listener that is called in the middle of an operation of the machine. Events that came before the listener was set, such as lines
  /// of a driver's start, are given to the listener when it is set.
  ///
  /// The stream does not keep the listener. The owner of the listener takes it back before the listener's end.
  public var listener: EventListener? {
    get { unownedListener?.takeUnretainedValue() }
    set {
      unownedListener = newValue.map(Unmanaged.passUnretained)
      guard let newValue else { return }
      let events = earlyGuestEvents
      earlyGuestEvents = []
      for event in events { newValue.noteGuestEvent(event) }
    }
  }

  // A check of exclusive access at each event would cost more than the event. A counted reference would cost two atomic operations.
  @exclusivity(unchecked) private var unownedListener: Unmanaged<EventListener>?

  /// The first events of the guest's kernel, as long as there is no ``listener``.
  private var earlyGuestEvents: [MachineEvent] = []
  private static let mostEarlyGuestEvents = 256

  /// Whether events came before the ``listener`` was set, so that the listener gets them.
  public var hasEarlyGuestEvents: Bool { !earlyGuestEvents.isEmpty }

  /// The texts of the last ``MachineEvent/text(_:)``: as many as events. It takes memory as texts come.
  private lazy var texts = Ring<String>(capacity: capacity)

  /// Keeps a text for ``text(of:)``.
  func keep(_ text: String, _ layer: EventLayer) -> LoggedText {
    texts.append(text)
    return LoggedText(layer: layer, number: texts.end - 1)
  }

  /// The text of an event. A text is kept as long as there are no more than ``capacity`` later ones.
  public func text(of line: LoggedText) -> String {
    guard line.number >= texts.start, line.number < texts.end else { return "(a line is lost)" }
    return texts[line.number]
  }

  /// Gives the ``listener`` a line of a kernel's log, for an engine whose kernels are real. The line is in no trace, because the real trace
  /// does not have it.
  ///
  /// - Parameters:
  ///   - text: The line without its newline.
  ///   - layer: ``EventLayer/kvm`` for the host's kernel, ``EventLayer/driver`` for the guest's.
  public func append(log text: String, _ layer: EventLayer) {
    unownedListener?._withUnsafeGuaranteedRef { $0.noteLine(text, layer) }
  }

  /// Puts a line of the host's trace into the stream, for an engine whose kernels are real.
  public func append(trace line: String) { state.append(.traced(keep(line, .kvm))) }

  /// Tells the ``listener`` that the guest does not run any more, for an engine whose kernels are real.
  public func appendGuestStopped() { state.append(.guestStopped) }

  @usableFromInline @inline(never)
  func tellEvent(_ event: MachineEvent) {
    unownedListener?._withUnsafeGuaranteedRef { $0.noteEvent(event) }
  }

  @usableFromInline @inline(never)
  func tellGuestEvent(_ event: MachineEvent) {
    if let unownedListener {
      unownedListener._withUnsafeGuaranteedRef { $0.noteGuestEvent(event) }
    } else if earlyGuestEvents.count < Self.mostEarlyGuestEvents {
      earlyGuestEvents.append(event)
    }
  }
}

/// The listener of an ``EventStream``.
open class EventListener {
  /// A listener that does nothing.
  public init() {}

  /// Takes an event of the guest's kernel (``EventLayer/driver``), in the middle of an operation of the machine.
  open func noteGuestEvent(_ event: MachineEvent) {}

  /// Takes a line of the log of a real kernel.
  open func noteLine(_ text: String, _ layer: EventLayer) {}

  /// Takes a line of the host's log, or an event of the hook, in the middle of an operation of the machine. The event is the last one in the
  /// stream.
  open func noteEvent(_ event: MachineEvent) {}
}

extension UnsafeMutablePointer<EventStream.State> {
  // A function of the pointer and not of the state, because the listener reads the state, too.
  @inlinable @inline(__always)
  func append(_ event: MachineEvent) {
    pointee.counts.count(event)
    guard !event.isOfGuest else {
      pointee.stream._withUnsafeGuaranteedRef { $0.tellGuestEvent(event) }
      return
    }
    guard event.isTraced else { return }
    pointee.ring.pointee.append(EventStream.Entry(time: pointee.time, event: event, cpu: 0))
    if event.isTold { pointee.stream._withUnsafeGuaranteedRef { $0.tellEvent(event) } }
  }
}

extension MachineEvent {
  /// Whether the event is in a trace. An abort is not. `kvm_guest_fault` is, if KVM handles an abort.
  @inlinable @inline(__always)
  var isTraced: Bool {
    if case .abort = self { false } else { true }
  }

  /// Whether ``EventListener/noteEvent(_:)`` gets the event, if it is no event of the guest's kernel.
  @inlinable @inline(__always)
  var isTold: Bool {
    switch self {
    case .log, .text, .hook: true
    default: false
    }
  }

  /// Whether the event is an event of the guest's kernel.
  @inlinable @inline(__always)
  var isOfGuest: Bool {
    switch self {
    case .log(let message): message.layer == .driver
    case .text(let text): text.layer == .driver
    case .guestStopped: true
    default: false
    }
  }
}

/// The numbers of events of each kind.
public struct EventCounts: Hashable, Sendable {
  /// `kvm_entry`
  public var entries: UInt64 = 0
  /// Stage-2 aborts taken to EL2.
  public var aborts: UInt64 = 0
  /// Aborts of ``FaultStatus/translation``.
  public var translationFaults: UInt64 = 0
  /// Aborts of ``FaultStatus/accessFlag``.
  public var accessFlagFaults: UInt64 = 0
  /// Aborts of ``FaultStatus/permission``.
  public var permissionFaults: UInt64 = 0
  /// Aborts of ``FaultStatus/addressSize``, and aborts that stage 2 does not raise.
  public var addressSizeFaults: UInt64 = 0
  /// Accesses that KVM left to the VMM.
  public var mmioExits: UInt64 = 0
  /// Hides and seeks of the hook.
  public var walks: UInt64 = 0
  /// Entries that the hook's walks came to.
  public var visits: UInt64 = 0
  /// TLB invalidations of one IPA.
  public var invalidations: UInt64 = 0
  /// TLB invalidations of all of the VM's.
  public var invalidationsOfAll: UInt64 = 0
  /// ``Stage2Warning``
  public var warnings: UInt64 = 0

  /// Nothing has happened.
  public init() {}

  /// Counts an event: one addition if the compiler knows the kind.
  @inlinable @inline(__always)
  mutating func count(_ event: MachineEvent) {
    switch event {
    case .abort(let fault):
      aborts &+= 1
      switch fault.syndrome.faultStatus {
      case .translation: translationFaults &+= 1
      case .accessFlag: accessFlagFaults &+= 1
      case .permission: permissionFaults &+= 1
      case .addressSize, nil: addressSizeFaults &+= 1
      }
    case .invalidation, .localInvalidation, .invalidationOfRange: invalidations &+= 1
    case .invalidationOfAll: invalidationsOfAll &+= 1
    case .visit: visits &+= 1
    case .hook: walks &+= 1
    case .tracepoint(.entry): entries &+= 1
    case .tracepoint(.userspaceExit(.mmio)): mmioExits &+= 1
    case .warning: warnings &+= 1
    case .tracepoint, .log, .text, .traced, .guestStopped,
      .dataCacheClean, .instructionCacheInvalidation:
      break
    }
  }
}
