import CharacterDeviceServer
import FuzzSupport
import Inspection
import Scenarios
import SystemPackage
import VirtWalkerDevice

@testable import Stage2Sim

/// A device with the files of its tree, in this process. Its clock stands still.
struct Device {
  private let engine: ModelEngine
  private let device: InspectedDevice
  private let files: [String: FileTree]

  init(_ configuration: VirtualMachine.Configuration) {
    do {
      engine = try ModelEngine(
        MachineDescription(configuration), driver: VirtWalkerDriver.self, eventCapacity: 1 << 9)
      device = InspectedDevice(
        engine, node: "/dev/fuzz", task: ("fuzz", 1), clock: { 1_000_000_000 }, cpuClock: { 0 })
    } catch {
      fatalError("there is no such machine: \(error)")
    }
    files = Self.flatten(device.tree, "")
  }

  private static func flatten(_ tree: FileTree, _ name: String) -> [String: FileTree] {
    guard case .directory(let entries) = tree else { return [name: tree] }
    return entries.reduce(into: [:]) { files, entry in
      files.merge(flatten(entry.value, "\(name)\(name.isEmpty ? "" : "/")\(entry.key)")) { $1 }
    }
  }

  /// Returns the whole content of a file.
  func read(_ name: String) -> String {
    switch files[name] {
    case .text(let make, _), .commands(let make?, _):
      String(decoding: make().bytes(), as: UTF8.self)
    case nil, .directory, .commands, .pipe: fatalError("\(name) is not a readable file")
    }
  }

  /// The state that a step can change: each word of each table, the reference counts, the registers and the counters.
  var state: State {
    let machine = engine.virtualMachine
    return State(
      words: machine.stage2.memory.words, counts: machine.stage2.memory.counts,
      registers: (0...30).map { machine.vcpu[$0] } + [machine.vcpu.pc.rawValue],
      fault: machine.vcpu.fault,
      slots: machine.slots, counters: read("stats"))
  }

  struct State: Equatable {
    let words: [UInt64]
    let counts: [UInt32]
    let registers: [UInt64]
    let fault: FaultInfo
    let slots: [MemorySlot]
    let counters: String
  }

  /// Reads each file once.
  func readAll() {
    for (name, file) in files {
      switch file {
      case .text, .commands(_?, _): _ = read(name)
      case .pipe(let text): readToEnd(text.makeReader())
      case .directory, .commands: break
      }
    }
  }

  private func readToEnd(_ reader: any GrowingTextReader) {
    while reader.hasMore {
      check(!reader.next().isEmpty, "a pipe has more lines, but a read returns nothing")
    }
  }

  func makeControlWriter() -> any CommandWriter { makeWriter("control") }

  private func makeWriter(_ name: String) -> any CommandWriter {
    guard case .commands(_, let makeWriter) = files[name] else { fatalError("no file \(name)") }
    return makeWriter()
  }

  /// Reads a byte of the node.
  func seek() throws(Errno) -> UInt8? {
    let bytes = try [UInt8](capacity: 1) { (buffer) throws(Errno) in
      try device.read(into: &buffer)
    }
    return bytes.first
  }

  /// Boots the machine again.
  func reset() {
    do {
      _ = try makeWriter("reset").write([UInt8(ascii: "1")].span)
    } catch {
      fatalError("the reset fails: \(error)")
    }
  }
}
