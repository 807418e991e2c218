import Stage2Sim

/// Keeps all that it hears of.
final class Trace: MachineObserver {
  var events: [MachineEvent] = []

  func observe(_ event: MachineEvent) { events.append(event) }

  /// The lines of the host's log.
  var messages: [String] {
    events.compactMap { if case .log(let message) = $0 { message.description } else { nil } }
  }
}
