import FuzzSupport
import Scenarios

/// Parses a text as a recording, as `virt-walkerd replay` does. A valid text keeps its meaning when it is printed and
/// parsed again. An invalid text gives an error with a place in the text.
@_cdecl("LLVMFuzzerTestOneInput")
func test(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  guard let text = String(validating: bytes, as: UTF8.self) else { return 0 }
  let ends = bytes.count { $0 == UInt8(ascii: "\n") }
  let recording: Recording
  do throws(ScenarioError) {
    recording = try Recording(parsing: text)
  } catch {
    // The place of a missing end is after the last line.
    check((1...ends + 2).contains(error.line), "line of \(error), of \(ends) ends of lines")
    check((1...Scenario.maximumLineLength + 1).contains(error.column), "column of \(error)")
    check(!error.message.utf8.contains { $0 < 0x20 }, "message of \(error)")
    return 0
  }
  let printed = recording.description
  // The texts are compared as bytes, because strings are equal if Unicode calls them equivalent.
  check(
    [bytes, bytes + "\n".utf8].contains(Array(printed.utf8)),
    "the text changes when it is printed")
  checkSame(recording, try? Recording(parsing: printed))
  checkSame(recording.machine, try? MachineDescription(parsing: "\(recording.machine)"))
  for (_, step) in recording.steps { checkSame(step, try? Step(parsing: "\(step)")) }

  let scenario = recording.scenario
  checkSame(scenario, try? Scenario(parsing: "\(scenario)"))
  let hasObservations = recording.lines.contains { !$0.observations.isEmpty }
  checkSame(hasObservations ? nil : scenario, try? Scenario(parsing: text))
  return 0
}

func checkSame<Value: Equatable>(_ value: Value?, _ reread: Value?) {
  check(value == reread, "\(String(describing: value)) is read as \(String(describing: reread))")
}
