import Stage2Sim

/// An observer that keeps all events.
final class Trace: MachineObserver {
  /// The events, without cache maintenance.
  var events: [MachineEvent] = []
  var cacheMaintenance: [MachineEvent] = []

  func observe(_ event: MachineEvent) {
    switch event {
    case .dataCacheClean, .instructionCacheInvalidation: cacheMaintenance.append(event)
    default: events.append(event)
    }
  }

  /// The lines of the host's log.
  var messages: [String] {
    events.compactMap { if case .log(let message) = $0 { message.description } else { nil } }
  }
}
