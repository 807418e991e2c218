import Glibc
import Scenarios
import Stage2Sim
import SystemPackage
import UserCode
import VirtWalkerDevice

/// A machine that was booted with a submission's code, and the mistakes that were found in it.
final class Trial {
  let engine: ModelEngine
  /// Whether a hook of the submission answers accesses to registers.
  let hookHasAbort: Bool
  private let list: List

  private final class List { var findings: [CodeFinding] = [] }

  static let target: IntermediatePhysicalAddress = 0x4000_0000

  /// Boots a machine.
  init(_ submission: Submission, _ builder: CodeBuilderClient, backing: Backing) throws {
    let sources = submission.sources
    let code = UserCode(
      builder, module: sources.module.map { .init(name: $0) },
      hook: (sources.hook ?? sources.patch).map { .init(name: $0) })
    let list = List()
    code.onFinding = { list.findings.append($0) }
    self.list = list
    engine = try code.makeEngine(MachineDescription(.init(backing: backing)))
    hookHasAbort = code.hookHasAbort
  }

  var findings: [CodeFinding] { list.findings }

  /// The mistake that has ended the code.
  var fatal: CodeFinding? { list.findings.first { $0.isFatal } }

  /// The entry of the byte.
  var leaf: Leaf? { engine.leaf(for: Self.target) }

  /// The bits of the hidden byte.
  static let byteMask: UInt64 = 0xff << 51

  /// Performs a step of a scenario.
  func step(_ text: String) throws -> [Observation] {
    try engine.perform(Step(parsing: text))
  }

  /// Writes with a file that is opened for this, as a shell does.
  func writeAnew(_ bytes: [UInt8]) throws(Errno) -> Int {
    var file = try engine.openFile()
    defer { engine.closeFile(&file) }
    return try engine.write(bytes, to: &file)
  }

  /// Reads with a file that is opened for this.
  func readAnew(_ count: Int = 1) throws(Errno) -> [UInt8] {
    var file = try engine.openFile()
    defer { engine.closeFile(&file) }
    return try engine.read(count, from: &file)
  }

  /// The reason why a call has failed, for people.
  func reason(_ error: Errno) -> String {
    if let fatal {
      return "the call fails with \(error), as the \(fatal.kind.rawValue) has ended: \(fatal.text)"
    }
    if engine.guestStop != nil {
      return "the call fails with \(error), as the guest has stopped in it"
    }
    return "the call fails with \(error)"
  }

  /// The place of the last mistake.
  var place: String { (fatal ?? findings.last)?.placeText ?? "" }
}

extension CodeFinding {
  /// `virt_walker.c:41: function`
  var placeText: String {
    place.map { $0.position + ($0.function.isEmpty ? "" : ": \($0.function)") } ?? ""
  }
}

/// The bytes that have gone through a trial.
struct ByteTrip {
  /// The first byte that did not come back, with the thing that came.
  var lostByte: (tried: String, came: String)?
  /// The first byte that was not in its bits.
  var wrongEntry: (tried: String, came: String, expected: String)?
  /// The levels of the entry.
  var level = 0
  var place = ""

  var isRight: Bool { lostByte == nil && wrongEntry == nil }

  /// Writes each byte and reads it back. It ends at the first call that fails.
  init(_ trial: Trial) {
    let first = trial.leaf
    level = first?.level ?? 0
    for byte in UInt8.min...UInt8.max {
      var action = "write of \(byteText(byte))"
      do throws(Errno) {
        let count = try trial.writeAnew([byte])
        if count != 1, lostByte == nil { lostByte = (action, "write returns \(count)") }
        check(byte, first, trial, action)
        action = "write of \(byteText(byte)), then read"
        let bytes = try trial.readAnew()
        if bytes != [byte], lostByte == nil {
          lostByte = (action, bytes.isEmpty ? "read returns 0" : "the byte \(byteText(bytes[0]))")
        }
      } catch {
        if lostByte == nil { lostByte = (action, trial.reason(error)) }
        if wrongEntry == nil {
          wrongEntry = (action, trial.reason(error), "the byte \(byteText(byte)) in bits [58:51]")
        }
        break
      }
    }
    if !isRight { place = trial.place }
  }

  private mutating func check(_ byte: UInt8, _ first: Leaf?, _ trial: Trial, _ action: String) {
    guard wrongEntry == nil, let first else { return }
    let right = first.descriptor.rawValue & ~Trial.byteMask | UInt64(byte) << 51
    let now = trial.leaf
    if now?.descriptor.rawValue != right || now?.level != first.level {
      wrongEntry = (
        action, "the entry \(now.map { "\($0.descriptor)" } ?? "is gone")",
        "the entry \(Stage2Descriptor(rawValue: right))"
      )
    }
  }
}

func byteText(_ byte: UInt8) -> String { "0x\(byte < 16 ? "0" : "")\(String(byte, radix: 16))" }
