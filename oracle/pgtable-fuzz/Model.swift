import CPageTable
import Stage2Sim
import VirtWalkerDevice

/// The properties of a machine that determine its table.
struct Machine: Equatable {
  var granule: Granule
  var ipaBits = 40
  var hasFWB = false
}

/// The model's table, and the invalidations and cache maintenance of the last operation.
struct Model {
  /// Records events as the library does.
  final class Trace: MachineObserver {
    var events: [pgtable_event] = []

    func observe(_ event: MachineEvent) {
      switch event {
      case .invalidation(let ipa, let level):
        note(PGTABLE_INVALIDATE, level: UInt32(level), ipa.rawValue)
      case .invalidationOfAll: note(PGTABLE_INVALIDATE_ALL)
      case .dataCacheClean(let physical, let size):
        note(PGTABLE_DATA_CACHE, physical.rawValue, size)
      case .instructionCacheInvalidation(let physical, let size):
        note(PGTABLE_INSTRUCTION_CACHE, physical.rawValue, size)
      case .abort, .log, .text, .tracepoint, .visit, .hook, .warning, .guestStopped:
        // These events do not occur: there is no CPU, no KVM and no hook.
        break
      }
    }

    private func note(
      _ kind: pgtable_event_kind, level: UInt32 = 0, _ address: UInt64 = 0, _ size: UInt64 = 0
    ) {
      events.append(
        pgtable_event(kind: kind.rawValue, level: level, address: address, size: size))
    }
  }

  var table: Stage2PageTable
  let trace = Trace()

  init(_ machine: Machine) {
    table = Stage2PageTable(
      granule: machine.granule, ipaBits: machine.ipaBits, hasFWB: machine.hasFWB)
    table.observer = trace
  }

  mutating func run(_ operation: Operation) -> Outcome {
    if table.observer != nil { trace.events.removeAll(keepingCapacity: true) }
    var outcome = Outcome()
    do {
      try run(operation, &outcome)
    } catch {
      outcome.error = error.rawValue
    }
    return outcome
  }

  private mutating func run(_ operation: Operation, _ outcome: inout Outcome) throws(KernelError) {
    let address = IntermediatePhysicalAddress(operation.address)
    do {
      switch operation.kind {
      case .map:
        try table.map(
          address: address, size: operation.size, physical: PhysicalAddress(operation.physical),
          protection: operation.protection, canAllocate: operation.canAllocate)
      case .setOwner:
        try table.setOwner(
          address: address, size: operation.size, owner: operation.byte,
          canAllocate: operation.canAllocate)
      case .unmap: try table.unmap(address: address, size: operation.size)
      case .writeProtect: try table.writeProtect(address: address, size: operation.size)
      case .makeYoung: outcome.value = table.makeYoung(address: address).rawValue
      case .makeOld: outcome.value = table.makeOld(address: address).rawValue
      case .isYoung: outcome.value = table.isYoung(address: address) ? 1 : 0
      case .relax: try table.relaxPermissions(address: address, protection: operation.protection)
      case .flush: try table.flush(address: address, size: operation.size)
      case .leaf:
        let leaf = try table.leaf(for: address)
        outcome.level = leaf.level
        outcome.value = leaf.descriptor.rawValue
        outcome.protection = leaf.descriptor.protection
      case .hide, .seek: break
      case .destroy: table.destroy()
      }
    } catch {
      throw error.code
    }
    if operation.kind == .hide || operation.kind == .seek {
      let byte = operation.kind == .hide ? operation.byte : nil
      outcome.value = UInt64(try HideSeek.walk(hiding: byte, at: address, in: &table))
    }
  }
}
