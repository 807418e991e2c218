import Stage2Sim

/// Keeps all that it hears of.
final class Trace: MachineObserver {
  /// Without the cache maintenance.
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
