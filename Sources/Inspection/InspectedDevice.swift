import CharacterDeviceServer
import Scenarios
import Stage2Sim
import SystemPackage
import VirtWalkerDevice

/// /dev/virt_walker with its machine, which can be watched and steered by files.
public final class InspectedDevice: SimpleDevice {
  private let configuration: VirtualMachine.Configuration
  private let node: String
  private let inspector: Inspector
  private var driver: VirtWalkerDriver
  private var monitor: Monitor
  private let clock: () -> UInt64
  /// What the control file says: the last steps with what was seen, or what was wrong.
  private var lastResult = FileText("")
  private(set) var boots = 0
  private var checkpoint: Checkpoint?
  /// Asked in the middle of a step of the control file.
  private var goesOn: () -> Bool = { true }

  /// Boots a machine, and loads the driver there.
  ///
  /// - Parameters:
  ///   - configuration: What the machine is made of.
  ///   - node: Names the device in `metrics`.
  ///   - traceCapacity: How many events are kept, a power of two; of lines of each log a quarter as many.
  ///   - task: The name that the trace has for the process, at most 15 characters, and its number.
  ///   - clock: Nanoseconds since the host was started.
  /// - Throws: Where there is no such machine.
  public init(
    _ configuration: VirtualMachine.Configuration, node: String, traceCapacity: Int = 1 << 14,
    task: (name: String, pid: Int32), clock: @escaping () -> UInt64
  ) throws {
    self.configuration = configuration
    self.node = node
    self.clock = clock
    inspector = Inspector(
      format: TraceFormat(task: task.name, pid: task.pid), traceCapacity: traceCapacity,
      clock: clock)
    (driver, monitor) = try Self.boot(configuration, inspector)
    checkpoint = Checkpoint { [unowned self] in onLongStep?() ?? true && goesOn() }
    driver.machine.checkpoint = checkpoint
  }

  private static func boot(
    _ configuration: VirtualMachine.Configuration, _ inspector: Inspector
  ) throws -> (VirtWalkerDriver, Monitor) {
    var machine = try VirtualMachine.booted(configuration)
    let monitor = try Monitor(of: &machine)
    inspector.connect(&machine)
    let driver = try VirtWalkerDriver(loadedIn: machine, guestLog: { inspector.log($0) })
    return (driver, monitor)
  }

  /// Hears of each line that the guest's kernel logs.
  public var onGuestMessage: ((GuestMessage) -> Void)? {
    get { inspector.onGuestMessage }
    set { inspector.onGuestMessage = newValue }
  }

  /// Hears of each line that the host's kernel logs.
  public var onHostMessage: ((HostMessage) -> Void)? {
    get { inspector.onHostMessage }
    set { inspector.onHostMessage = newValue }
  }

  /// Hears that the guest has stopped, and by what. It hears so again only after an access that the guest has done.
  public var onGuestStop: ((String) -> Void)? {
    get { inspector.onGuestStop }
    set { inspector.onGuestStop = newValue }
  }

  /// Called in the middle of a step of the control file that takes long, again and again: others may be served, but
  /// neither this device nor its files. Where it gives false, the step ends.
  public var onLongStep: (() -> Bool)?

  /// The machine as it is now.
  public var machine: VirtualMachine { driver.machine }

  public var givesTheSameAgain: Bool { driver.givesTheSameAgain }

  public func read(into buffer: inout OutputSpan<UInt8>) throws(Errno) {
    inspector.begin(.read)
    defer { end() }
    try driver.read(into: &buffer)
  }

  public func write(_ bytes: Span<UInt8>) throws(Errno) -> Int {
    inspector.begin(.write)
    defer { end() }
    return try driver.write(bytes)
  }

  /// An operation is over.
  private func end() {
    // By reference: a property of an object is copied to be looked at, and a machine is large.
    func leaf(_ machine: inout VirtualMachine) -> Leaf? { try? machine.leaf(for: HideSeek.target) }
    inspector.end(leaf(&driver.machine))
  }

  // MARK: - The files

  /// The files that show the machine, and those that steer it.
  public var tree: FileTree {
    let inspector = inspector
    /// A text that is made anew where anything has happened since.
    func latest(_ make: @escaping () -> FileText) -> () -> FileText {
      var made: (version: UInt64, text: FileText)?
      return {
        if let made, made.version == inspector.version { return made.text }
        let text = make()
        made = text.count <= Self.largestTextToKeep ? (inspector.version, text) : nil
        return text
      }
    }
    func text(_ make: @escaping (InspectedDevice) -> String) -> FileTree {
      .text(read: latest { [unowned self] in FileText(make(self)) })
    }
    func log<Message>(_ log: RecordText<KernelLogLine<Message>>) -> FileTree {
      .directory([
        // dmesg -F maps it.
        "dmesg": .text(read: latest { FileText(log.text) }, [.mappable, .always]),
        "dmesg_pipe": .pipe(log),
      ])
    }
    return .directory([
      "control": .commands(
        read: { [unowned self] in result },
        makeWriter: { [unowned self] in ControlWriter(self) }),
      "guest": log(inspector.guestLog),
      "host": log(inspector.hostLog),
      "ipa_range": text { padded("\($0.machine.stage2.ipaBits)", to: 2) + "\n" },
      "metrics": text { $0.metrics },
      "pte": text { "\($0.walk.entry)\n" },
      "reset": .commands(
        read: nil,
        makeWriter: { [unowned self] in
          SingleCommandWriter { [unowned self] (bytes) throws(Errno) in try reset(bytes) }
        }),
      "stage2_levels": text { "\(Granule.lastLevel + 1 - $0.machine.stage2.startLevel)\n" },
      "stage2_page_tables": text { $0.machine.stage2.dump },
      "stats": .text(read: latest { FileText(inspector.counters.stats) }, .always),
      "trace": .commands(
        read: latest { inspector.traceText },
        makeWriter: { SingleCommandWriter { _ in inspector.clearTrace() } }),
      "trace_pipe": .pipe(inspector.trace),
      "walk": text { $0.walk.text },
      "walk.svg": text { $0.walk.drawing },
    ])
  }

  /// Longer ones, which only page tables of an unusual size have, are made anew each time.
  private static let largestTextToKeep = 4 << 20

  private var walk: WalkReport {
    WalkReport(of: machine, last: inspector.lastWalk, stop: inspector.stop)
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
          UInt64(machine.stage2.memory.pagesInUse)
        ),
        (
          "guest_stopped", "Whether the guest has stopped, so that reads and writes fail.",
          inspector.stop == nil ? 0 : 1
        ),
      ])
  }

  /// A machine as at the start. Logs, trace and counters go on.
  private func reset(_ bytes: Span<UInt8>) throws(Errno) {
    let text = (0..<min(bytes.count, 3)).map { bytes[$0] }
    guard text == Array("1".utf8) || text == Array("1\n".utf8) else { throw .invalidArgument }
    inspector.begin(.reset)
    do {
      (driver, monitor) = try Self.boot(configuration, inspector)
    } catch {
      // It was made before.
      throw .ioError
    }
    driver.machine.checkpoint = checkpoint
    boots += 1
    inspector.forgetHiddenByte()
  }
}

extension InspectedDevice: ControlTarget {
  var now: UInt64 { clock() }

  func play(_ step: Step, while goesOn: @escaping () -> Bool) -> [String] {
    self.goesOn = goesOn
    checkpoint?.begin()
    inspector.begin(.step)
    defer {
      end()
      inspector.noteChange()
    }
    return monitor.play(step, on: &driver.machine)
  }

  func show(_ result: FileText) {
    lastResult = result
    inspector.noteChange()
  }
}
