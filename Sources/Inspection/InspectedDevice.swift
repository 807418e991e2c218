import CharacterDeviceServer
import Scenarios
import Stage2Sim
import SystemPackage
import VirtWalkerDevice

/// An engine behind a node, with the files that show it and control it.
public final class InspectedDevice: SimpleDevice {
  /// The engine, which is also the device at the node.
  public typealias NodeEngine = Engine & CharacterDevice<GuestFile>

  private let engine: any NodeEngine
  private let view: any MachineView
  /// The engine, if it answers each request at once.
  private let immediate: (any SimpleDevice)?
  private let node: String
  private let inspector: Inspector
  private let clock: () -> UInt64
  private let cpuClock: () -> UInt64
  /// The content of the control file: the last steps with their observations, or an error.
  private var lastResult = FileText("")
  private(set) var boots = 0
  /// Whether the current step of the control file may go on.
  private var goesOn: () -> Bool = { true }

  /// Puts files around an engine.
  ///
  /// - Parameters:
  ///   - engine: The engine.
  ///   - node: The name of the device in `metrics`.
  ///   - task: The name that the trace has for the process, at most 15 characters, and its number.
  ///   - clock: Nanoseconds since the host was started.
  ///   - cpuClock: The CPU time of the calling thread in nanoseconds. It limits a write to the control file, so that a
  ///     busy machine does not end a write early.
  ///   - onGuestLine: A function that is called for each line of the guest's kernel log, also for the lines of a driver's start.
  ///   - onHostLine: A function that is called for each line of the host's kernel log.
  public init(
    _ engine: any NodeEngine, node: String, task: (name: String, pid: Int32),
    clock: @escaping () -> UInt64, cpuClock: @escaping () -> UInt64,
    onGuestLine: ((String) -> Void)? = nil, onHostLine: ((String) -> Void)? = nil
  ) {
    self.engine = engine
    view = engine.view
    immediate = engine as? any SimpleDevice
    self.node = node
    self.clock = clock
    self.cpuClock = cpuClock
    inspector = Inspector(
      of: engine, format: TraceFormat(task: task.name, pid: task.pid), clock: clock,
      onGuestLine: onGuestLine, onHostLine: onHostLine)
    engine.mayGoOn = { [unowned self] in onLongStep?() ?? true && goesOn() }
  }

  /// A function that is called with the reason when the guest has stopped. It is called again only if an access has succeeded
  /// since.
  public var onGuestStop: ((String) -> Void)? {
    get { inspector.onGuestStop }
    set { inspector.onGuestStop = newValue }
  }

  /// A function that is called with the reason when the machine cannot be booted anew.
  public var onBootFailure: ((EngineFailure) -> Void)?

  /// A function that is called again and again during a long step of the control file. It may serve other devices, but neither
  /// this device nor its files. The step ends if the function returns false.
  public var onLongStep: (() -> Bool)?

  /// A function that is called before a text of ``tree`` is made. It may let this device handle the requests that are there, so that
  /// the text shows each call that has returned, the close(2) of a file too.
  public var onRead: (() -> Void)?

  public var givesTheSameAgain: Bool { engine.givesTheSameAgain }

  public func open(_ request: consuming OpenRequest<GuestFile>) {
    inspector.begin(.otherCall)
    engine.open(request)
    end()
  }

  public func release(_ file: OpenFile<GuestFile>) {
    inspector.begin(.otherCall)
    engine.release(file)
    end()
  }

  public func read(_ request: consuming ReadRequest, _ file: OpenFile<GuestFile>) {
    inspector.begin(.read)
    engine.read(request, file)
    end()
  }

  public func write(
    _ request: consuming WriteRequest, _ bytes: Span<UInt8>, _ file: OpenFile<GuestFile>
  ) {
    inspector.begin(.write)
    engine.write(request, bytes, file)
    end()
  }

  public func ioctl(
    _ request: consuming IoctlRequest, _ input: Span<UInt8>, _ file: OpenFile<GuestFile>
  ) {
    inspector.begin(.otherCall)
    engine.ioctl(request, input, file)
    end()
  }

  public func ioctlAreas(_ command: IoctlCommand, argument: UInt64) -> IoctlAreas {
    engine.ioctlAreas(command, argument: argument)
  }

  public func poll(_ events: PollEvents, _ file: OpenFile<GuestFile>) -> PollEvents? {
    inspector.begin(.otherCall)
    defer { end() }
    return engine.poll(events, file)
  }

  public var isStream: Bool { engine.isStream }

  public var wantsFlush: Bool { engine.wantsFlush }

  public func flush(_ request: consuming SyncRequest, _ file: OpenFile<GuestFile>) {
    engine.flush(request, file)
  }

  public func fsync(
    _ request: consuming SyncRequest, dataOnly: Bool, _ file: OpenFile<GuestFile>
  ) {
    engine.fsync(request, dataOnly: dataOnly, file)
  }

  public func seek(_ request: consuming SeekRequest, _ file: OpenFile<GuestFile>) {
    inspector.begin(.otherCall)
    engine.seek(request, file)
    end()
  }

  public var size: Int? { engine.size }

  /// A read without a server, for an engine that answers at once.
  ///
  /// - Throws: `ENOTSUP` for another engine.
  public func read(into buffer: inout OutputSpan<UInt8>) throws(Errno) {
    guard let immediate else { throw .notSupported }
    inspector.begin(.read)
    defer { end() }
    try immediate.read(into: &buffer)
  }

  /// A write without a server, for an engine that answers at once.
  ///
  /// - Throws: `ENOTSUP` for another engine.
  public func write(_ bytes: Span<UInt8>) throws(Errno) -> Int {
    guard let immediate else { throw .notSupported }
    inspector.begin(.write)
    defer { end() }
    return try immediate.write(bytes)
  }

  /// Lets the engine go on with calls that wait in it, by a function that the caller knows.
  public func goOn(_ body: () -> Void) {
    inspector.begin(.otherCall)
    body()
    end()
  }

  /// The content of the file `code` of the tree, which tells of the user's own code. Set it before ``tree`` is used. Without it, there is no
  /// such file.
  public var codeReport: (() -> String)?

  /// Ends an operation.
  private func end() { inspector.end(view.leaf(for: HideSeek.target)) }

  // MARK: - The files

  /// The files that show the machine and control it.
  public var tree: FileTree {
    let inspector = inspector
    /// A text that is made again only if something has happened since the last time.
    func latest(_ make: @escaping () -> FileText) -> () -> FileText {
      var made: (version: UInt64, text: FileText)?
      return { [unowned self] in
        onRead?()
        if let made, made.version == inspector.version { return made.text }
        let text = make()
        made = text.count <= Self.largestTextToKeep ? (inspector.version, text) : nil
        return text
      }
    }
    func text(_ make: @escaping (InspectedDevice) -> String) -> FileTree {
      .text(read: latest { [unowned self] in FileText(make(self)) })
    }
    func log(_ log: RingText<KernelLogLine>) -> FileTree {
      .directory([
        // dmesg -F maps this file into memory.
        "dmesg": .text(read: latest { FileText(log.text) }, [.mappable, .always]),
        "dmesg_pipe": .pipe(log),
      ])
    }
    var entries: FileTree.Entries = [
      "control": .commands(
        read: { [unowned self] in result },
        makeWriter: { [unowned self] in ControlWriter(self) }),
      "guest": log(inspector.guestLog),
      "host": log(inspector.hostLog),
      "ipa_range": text { padded("\($0.engine.machine.configuration.ipaBits)", to: 2) + "\n" },
      "metrics": text { $0.metrics },
      "pte": text { "\($0.walk.entry)\n" },
      "reset": .commands(
        read: nil,
        makeWriter: { [unowned self] in
          SingleCommandWriter { [unowned self] (bytes) throws(Errno) in try reset(bytes) }
        }),
      "stage2_levels": text { "\(Granule.lastLevel + 1 - $0.view.startLevel)\n" },
      "stage2_page_tables": text { $0.view.dump },
      "stats": .text(read: latest { FileText(inspector.counters.stats) }, .always),
      "trace": .commands(
        read: latest { inspector.traceText },
        makeWriter: { SingleCommandWriter { _ in inspector.clearTrace() } }),
      "trace_pipe": .pipe(inspector.trace),
      "walk": text { $0.walk.text },
      "walk.svg": text { $0.walk.drawing },
    ]
    if let codeReport {
      let read = { [unowned self] in
        onRead?()
        return FileText(codeReport())
      }
      entries.append("code", .text(read: read, .always))
    }
    return .directory(entries)
  }

  /// A longer text is made again each time. Only page tables of unusual size have such a text.
  private static let largestTextToKeep = 4 << 20

  private var walk: WalkReport {
    WalkReport(of: engine, last: inspector.lastWalk, stop: inspector.stop)
  }

  /// The file `control`.
  private var result: FileText {
    guard let stop = inspector.stop else { return lastResult }
    let note = GuestStop.lines(stop).map { "# \($0)\n" }.joined()
    return FileText([lastResult.bytes()[...], Array(note.utf8)[...]])
  }

  private var metrics: String {
    let leaf = walk.leaf
    return inspector.counters.metrics(
      node: node,
      gauges: [
        (
          "hidden_byte", "Bits [58:51] of the entry of 0x40000000.",
          UInt64(leaf.descriptor.hiddenByte)
        ),
        ("entry_level", "The level of that entry.", UInt64(leaf.level)),
        ("entry_valid", "Whether that entry is valid.", leaf.descriptor.isValid ? 1 : 0),
        (
          "table_pages", "Pages that hold stage-2 tables.",
          // A page that was freed twice counts twice.
          UInt64(max(0, view.tablePages))
        ),
        (
          "guest_stopped", "Whether the guest has stopped, so that reads and writes fail.",
          inspector.stop == nil ? 0 : 1
        ),
      ])
  }

  /// The file `reset`: boots the machine anew. Logs, trace and counters go on.
  private func reset(_ bytes: Span<UInt8>) throws(Errno) {
    let text = (0..<min(bytes.count, 3)).map { bytes[$0] }
    guard text == Array("1".utf8) || text == Array("1\n".utf8) else { throw .invalidArgument }
    try bootAnew()
  }

  /// Boots the machine anew, as a write to the file `reset` does.
  ///
  /// - Throws: `EIO` if the machine does not boot.
  public func bootAnew() throws(Errno) {
    inspector.begin(.reset)
    inspector.forgetHiddenByte()
    do throws(EngineFailure) {
      try engine.reset()
    } catch {
      onBootFailure?(error)
      throw .ioError
    }
    boots += 1
  }
}

extension InspectedDevice: ControlTarget {
  var now: UInt64 { clock() }

  var cpuTime: UInt64 { cpuClock() }

  func perform(
    _ step: Step, while goesOn: @escaping () -> Bool,
    completion: @escaping (Result<[Observation], EngineFailure>) -> Void
  ) {
    self.goesOn = goesOn
    inspector.begin(.step)
    engine.perform(step) { [self] result in
      // The time of a step does not bound the calls of programs.
      self.goesOn = { true }
      end()
      inspector.noteChange()
      completion(result)
    }
  }

  func show(_ result: FileText) {
    lastResult = result
    inspector.noteChange()
  }
}
