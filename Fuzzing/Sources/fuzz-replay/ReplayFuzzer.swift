import FuzzSupport
import Scenarios
import VirtWalkerDevice

/// - Throws: `UnplayableMachine` if the model has no such machine.
private func engine(_ recording: Recording) throws -> ModelEngine {
  try ModelEngine(recording.machine, eventCapacity: 1 << 10)
}

/// Plays a text, as `virt-walkerd replay` does. The model does the same each time, and `--check` finds no difference between
/// it and itself.
@_cdecl("LLVMFuzzerTestOneInput")
func test(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  guard let text = String(validating: bytes, as: UTF8.self),
    let recording = try? Recording(parsing: text),
    let played = try? recording.played(on: engine(recording))
  else { return 0 }
  check(played.scenario == recording.scenario, "what was played is another scenario")
  check(
    (try? Recording(parsing: played.description)) == played, "what was played cannot be read")
  do {
    if let difference = try played.firstDifference(on: engine(recording)) {
      fatalError(difference.sideBySide().joined(separator: "\n"))
    }
    // The text's own observations: any.
    if let difference = try recording.firstDifference(on: engine(recording)) {
      check(difference.kernel != difference.model, "a difference that is none")
      check(!difference.sideBySide(width: 80).isEmpty, "a difference of no lines")
    }
  } catch {
    fatalError("played before, and now \(error)")
  }
  return 0
}
