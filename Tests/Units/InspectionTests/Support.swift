import CharacterDeviceServer
import Inspection
import Scenarios
import Stage2Sim
import SystemPackage
import Testing
import VirtWalkerDevice

/// A device in this process, with its files.
final class Device {
  let engine: ModelEngine
  let device: InspectedDevice
  private let clock = Clock()
  private let files: [String: FileTree]

  /// Makes a device on the model.
  convenience init(
    _ configuration: VirtualMachine.Configuration = .init(), node: String = "/dev/test"
  ) throws {
    let model = try Self.boot(configuration)
    self.init(model, model, node: node)
  }

  /// Makes a device on the engine that `wrap` makes of the model, and returns both.
  static func around<NodeEngine: Engine & CharacterDevice<GuestFile>>(
    _ wrap: (ModelEngine) -> NodeEngine
  ) throws -> (Device, NodeEngine) {
    let model = try boot(.init())
    let engine = wrap(model)
    return (Device(model, engine, node: "/dev/test"), engine)
  }

  private static func boot(_ configuration: VirtualMachine.Configuration) throws -> ModelEngine {
    try ModelEngine(MachineDescription(configuration), driver: VirtWalkerDriver.self)
  }

  private init(_ model: ModelEngine, _ engine: any InspectedDevice.NodeEngine, node: String) {
    self.engine = model
    device = InspectedDevice(
      engine, node: node, task: ("virt-walkerd", 4711),
      clock: { [clock] in clock.next() }, cpuClock: { [clock] in clock.next() })
    files = Self.flatten(device.tree, "")
  }

  /// A clock that advances by a microsecond for each operation.
  private final class Clock {
    var time: UInt64 = 12_345_678_000

    func next() -> UInt64 {
      time += 1000
      return time
    }
  }

  /// Advances the clock.
  func wait(seconds: UInt64) { clock.time += seconds * 1_000_000_000 }

  private static func flatten(_ tree: FileTree, _ name: String) -> [String: FileTree] {
    guard case .directory(let entries) = tree else { return [name: tree] }
    var files: [String: FileTree] = [:]
    for (child, entry) in entries {
      files.merge(flatten(entry, name.isEmpty ? child : "\(name)/\(child)")) { $1 }
    }
    return files
  }

  var names: [String] { files.keys.sorted() }

  /// The whole content of a file.
  func read(_ name: String) throws -> String {
    switch files[name] {
    case .text(let make, _)?, .commands(let make?, _)?:
      return String(decoding: make().bytes(), as: UTF8.self)
    default:
      Issue.record("\(name) is not a readable file")
      return ""
    }
  }

  /// The lines of a file.
  func lines(_ name: String) throws -> [Substring] {
    try read(name).split(separator: "\n", omittingEmptySubsequences: false).dropLast()
  }

  /// Makes one write(2), and the close(2) of the file.
  func write(_ text: String, to name: String) throws {
    let writer = try writer(name)
    try write(Array(text.utf8), by: writer)
    try finish(writer.finish())
  }

  /// Makes one write(2).
  func write(_ bytes: [UInt8], by writer: any CommandWriter) throws {
    try finish(writer.write(bytes.span))
  }

  /// Performs all of the work, as a server does if no other request waits.
  func finish(_ work: (any CommandWork)?) throws {
    guard let work else { return }
    while true {
      switch work.proceed() {
      case .unfinished: continue
      case .waiting:
        Issue.record("the test does not use onReady")
        return
      case .finished: return
      case .failed(let error): throw error
      }
    }
  }

  /// Makes one open(2) for writing.
  func writer(_ name: String) throws -> any CommandWriter {
    guard case .commands(_, let makeWriter)? = files[name] else { throw WrongKind() }
    return makeWriter()
  }

  func pipe(_ name: String) throws -> any GrowingText {
    guard case .pipe(let text)? = files[name] else { throw WrongKind() }
    return text
  }

  struct WrongKind: Error {}

  func hide(_ byte: UInt8) throws { _ = try device.write([byte].span) }

  func seek() throws -> UInt8 {
    let bytes = try [UInt8](capacity: 1) { (buffer) throws(Errno) in
      try device.read(into: &buffer)
    }
    return try #require(bytes.first)
  }

  /// The state that a step can change: each word of each table, the reference counts, and the registers.
  var state: [UInt64] {
    let memory = engine.virtualMachine.stage2.memory
    let vcpu = engine.virtualMachine.vcpu
    return memory.words + memory.counts.map(UInt64.init) + (0...30).map { vcpu[$0] }
      + [vcpu.pc.rawValue, vcpu.fault.syndrome.rawValue, vcpu.fault.far.rawValue, vcpu.fault.hpfar]
  }
}

/// An engine around the model. A subclass is the device at the node.
class ModelWrapper: Engine {
  let model: ModelEngine

  init(_ model: ModelEngine) { self.model = model }

  var machine: MachineDescription { model.machine }
  var events: EventStream { model.events }
  var view: any MachineView { model.view }
  var mayGoOn: (() -> Bool)? {
    get { model.mayGoOn }
    set { model.mayGoOn = newValue }
  }

  func perform(
    _ step: Step, completion: @escaping (Result<[Observation], EngineFailure>) -> Void
  ) {
    model.perform(step, completion: completion)
  }

  func reset(completion: @escaping (Result<Void, EngineFailure>) -> Void) {
    model.reset(completion: completion)
  }

  func waitForAnswer() { model.waitForAnswer() }
}

/// The text that can be read now.
func readAll(_ reader: any GrowingTextReader) -> String {
  var bytes: [UInt8] = []
  while reader.hasMore { bytes += reader.next() }
  return String(decoding: bytes, as: UTF8.self)
}
