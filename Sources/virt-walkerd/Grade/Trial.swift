import Scenarios
import Stage2Sim
import SystemPackage
import UserCode

/// A machine that was booted with a submission's code, and the mistakes that were found in it.
protocol Trial: AnyObject {
  /// Whether a hook of the submission answers accesses to registers, as far as is known.
  var hookHasAbort: Bool { get }
  /// The mistakes so far.
  var findings: [CodeFinding] { get }
  /// Whether the guest does not run any more.
  var hasStopped: Bool { get }
  /// The entry of the byte.
  var leaf: Leaf? { get }

  /// Opens the node, and closes it.
  func open() throws(Errno)
  /// Writes with a file that is opened for this, as a shell does.
  func write(_ bytes: [UInt8], hasBadBuffer: Bool) throws(Errno) -> Int
  /// Reads with a file that is opened for this.
  func read(_ count: Int, hasBadBuffer: Bool) throws(Errno) -> [UInt8]
  /// Makes an access of the guest that no driver makes.
  ///
  /// - Returns: The value of a load; nil for a store, or if the load has not ended.
  func make(_ access: GuestAccess) throws(TrialFailure) -> UInt64?
  /// Unloads the module.
  ///
  /// - Returns: The mistakes that this shows.
  func unload() -> [CodeFinding]
  /// Unloads the module, and loads it again.
  func reload() throws(TrialFailure)
  /// Ends the machine.
  func end()
}

/// The reason why a trial cannot go on.
struct TrialFailure: Error, CustomStringConvertible {
  let description: String
}

/// A load or a store of the guest.
struct GuestAccess {
  /// The bytes: 1, 2, 4 or 8.
  var size: Int
  var address: IntermediatePhysicalAddress
  /// The stored value; nil for a load.
  var value: UInt64?

  /// The step of a scenario.
  var text: String {
    let name =
      switch size {
      case 1: "b"
      case 2: "h"
      default: ""
      }
    let access =
      "\(value == nil ? "ldr" : "str")\(name) \(size == 8 ? "x0" : "w0"),[0x0\(String(address.rawValue, radix: 16))]"
    return "guest " + access + (value.map { " x0=0x\(String($0, radix: 16))" } ?? "")
  }
}

extension Trial {
  /// The mistake that has ended the code.
  var fatal: CodeFinding? { findings.first { $0.isFatal } }

  func write(_ bytes: [UInt8]) throws(Errno) -> Int { try write(bytes, hasBadBuffer: false) }

  func read(_ count: Int = 1) throws(Errno) -> [UInt8] { try read(count, hasBadBuffer: false) }

  /// The reason why a call has failed, for people.
  func reason(_ error: Errno) -> String {
    if let fatal {
      return "the call fails with \(error), as the \(fatal.kind.rawValue) has ended: \(fatal.text)"
    }
    if hasStopped { return "the call fails with \(error), as the guest has stopped in it" }
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

  /// The bits of the hidden byte.
  private static let byteMask: UInt64 = 0xff << 51

  var isRight: Bool { lostByte == nil && wrongEntry == nil }

  /// Writes each byte and reads it back. It ends at the first call that fails.
  init(_ trial: any Trial) {
    let first = trial.leaf
    level = first?.level ?? 0
    for byte in UInt8.min...UInt8.max {
      var action = "write of \(byteText(byte))"
      do throws(Errno) {
        let count = try trial.write([byte])
        if count != 1, lostByte == nil { lostByte = (action, "write returns \(count)") }
        check(byte, first, trial, action)
        action = "write of \(byteText(byte)), then read"
        let bytes = try trial.read()
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

  private mutating func check(_ byte: UInt8, _ first: Leaf?, _ trial: any Trial, _ action: String) {
    guard wrongEntry == nil, let first else { return }
    let right = first.descriptor.rawValue & ~Self.byteMask | UInt64(byte) << 51
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
