import CharacterDeviceServer
import Scenarios
import Stage2Sim
import SystemPackage
import VirtWalkerDevice

/// /dev/virt_walker with its machine, which can be watched and steered by files.
public final class InspectedDevice: CharacterDevice {
  private let configuration: VirtualMachine.Configuration
  private let node: String
  private let inspector: Inspector
  private var driver: VirtWalkerDriver
  private var monitor: Monitor
  /// What the control file says: the last steps with what was seen, or what was wrong.
  private var lastResult = ""

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
    inspector = Inspector(
      format: TraceFormat(task: task.name, pid: task.pid), traceCapacity: traceCapacity,
      clock: clock)
    (driver, monitor) = try Self.boot(configuration, inspector)
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
    func text(_ make: @escaping (InspectedDevice) -> String) -> FileTree {
      .text { [unowned self] in Array(make(self).utf8) }
    }
    func log<Message>(_ log: RecordText<KernelLogLine<Message>>) -> FileTree {
      .directory(["dmesg": .text { Array(log.text.utf8) }, "dmesg_pipe": .pipe(log)])
    }
    return .directory([
      "control": .commands(
        read: { [unowned self] in Array(lastResult.utf8) },
        makeWriter: { [unowned self] in ControlWriter { [unowned self] in control($0) } }),
      "guest": log(inspector.guestLog),
      "host": log(inspector.hostLog),
      "ipa_range": text { padded("\($0.machine.stage2.ipaBits)", to: 2) + "\n" },
      "metrics": text { $0.metrics },
      "pte": text { "\(WalkReport(of: $0.machine, last: nil).entry)\n" },
      "reset": .commands(
        read: nil,
        makeWriter: { [unowned self] in
          SingleCommandWriter { [unowned self] (bytes) throws(Errno) in try reset(bytes) }
        }),
      "stage2_levels": text { "\(Granule.lastLevel + 1 - $0.machine.stage2.startLevel)\n" },
      "stage2_page_tables": text { $0.machine.stage2.dump },
      "stats": text { $0.inspector.counters.stats },
      "trace": .commands(
        read: { Array(inspector.traceText.utf8) },
        makeWriter: { SingleCommandWriter { _ in inspector.trace.clear() } }),
      "trace_pipe": .pipe(inspector.trace),
      "walk": text { $0.walk.text },
      "walk.svg": text { $0.walk.drawing },
    ])
  }

  private var walk: WalkReport { WalkReport(of: machine, last: inspector.lastWalk) }

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
      ])
  }

  /// Does the steps that somebody wrote, or keeps what was wrong with them.
  private func control(_ lines: Result<[Scenario.Line], ScenarioError>) {
    switch lines {
    case .failure(let error): lastResult = "\(error)\n"
    case .success(let lines):
      var result = ""
      for line in lines {
        result += "\(line.text)\n"
        guard case .step(let step) = line.content else { continue }
        inspector.begin(.step)
        for line in monitor.play(step, on: &driver.machine) { result += "  \(line)\n" }
        end()
      }
      lastResult = result
    }
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
    inspector.forgetHiddenByte()
  }
}
