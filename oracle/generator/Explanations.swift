import Scenarios
import Stage2Sim

/// The events that `virt-walkerd explain` tries, and its hide into an entry that maps nothing, on the machine that it explains.
func explanationScenarios() -> [ScenarioFile] {
  Backing.allCases.flatMap { backing in
    let machine = MachineDescription(.cortexA76, backing)
    let events = ExplainedEvent.all(on: machine).filter { !ExplainedEvent.accesses.contains($0) }
    return events.map { explanation(of: $0, on: machine) }
      + [.cortexA72, .max].map {
        explanation(of: .executeNeighbour(.kib4), on: MachineDescription($0, backing))
      } + [
        explanation(
          "invalid-entry", Explanation.invalidEntryRecording(for: machine), on: machine,
          after: Explainer.invalidation(on: machine), hiding: 0xb1, then: [])
      ]
  }
}

private func explanation(
  of event: ExplainedEvent, on machine: MachineDescription
) -> ScenarioFile {
  explanation(
    event.name, event.recording(for: machine), on: machine, after: event.preparation,
    // XN[0] alone: the byte that makes the guest hang in the next page.
    hiding: event.name == "execute-neighbour" ? 0x04 : 0xb1, then: event.steps)
}

private func explanation(
  _ event: String, _ recording: String?, on machine: MachineDescription,
  after preparation: [Step], hiding byte: UInt64, then steps: [Step]
) -> ScenarioFile {
  guard let recording else { preconditionFailure("\(machine) has no recording of \(event)") }
  return ScenarioFile(
    recording, "What \(event) does to a byte on the machine that is explained.", on: machine
  ) {
    Explainer.boot
    preparation
    hide(byte)
    steps
    seek
    load(target)
    seek
  }
}
