import FuzzSupport
import Scenarios
import VirtWalkerDevice

/// - Throws: `UnplayableMachine` if the model has no such machine.
private func engine(_ recording: Recording) throws -> ModelEngine {
  try ModelEngine(recording.machine, eventCapacity: 1 << 10)
}

/// Runs a text as `virt-walkerd replay` does. Each run gives the same result, and `--check` finds no difference between
/// two runs.
@_cdecl("LLVMFuzzerTestOneInput")
func test(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  guard let text = String(validating: bytes, as: UTF8.self),
    let recording = try? Recording(parsing: text),
    let played = try? recording.played(on: engine(recording))
  else { return 0 }
  check(played.scenario == recording.scenario, "the played recording has another scenario")
  check(
    (try? Recording(parsing: played.description)) == played, "the played recording cannot be read")
  do {
    if let difference = try played.firstDifference(on: engine(recording)) {
      fatalError(difference.sideBySide().joined(separator: "\n"))
    }
    // The observations in the text are arbitrary.
    if let difference = try recording.firstDifference(on: engine(recording)) {
      check(difference.kernel != difference.model, "the two sides of a difference are equal")
      check(!difference.sideBySide(width: 80).isEmpty, "a difference has no lines")
    }
  } catch {
    fatalError("the second run fails: \(error)")
  }
  return 0
}
