import Stage2Sim
import VirtWalkerDevice

/// A TLB invalidation, or an operation of cache maintenance.
package enum TableEvent: Equatable, Sendable {
  case invalidation(address: UInt64, level: Int)
  case localInvalidation(address: UInt64, level: Int)
  case invalidationOfRange(address: UInt64, pages: UInt64)
  case invalidationOfAll
  case dataCache(physical: UInt64, size: UInt64)
  case instructionCache(physical: UInt64, size: UInt64)
}

/// The model's table, and the invalidations and cache maintenance of the last operation.
package struct TableModel {
  /// Records events as the library does.
  package final class Trace: MachineObserver {
    package fileprivate(set) var events: [TableEvent] = []

    package func observe(_ event: MachineEvent) {
      switch event {
      case .invalidation(let ipa, let level):
        events.append(.invalidation(address: ipa.rawValue, level: level))
      case .localInvalidation(let ipa, let level):
        events.append(.localInvalidation(address: ipa.rawValue, level: level))
      case .invalidationOfRange(let ipa, let pages):
        events.append(.invalidationOfRange(address: ipa.rawValue, pages: pages))
      case .invalidationOfAll: events.append(.invalidationOfAll)
      case .dataCacheClean(let physical, let size):
        events.append(.dataCache(physical: physical.rawValue, size: size))
      case .instructionCacheInvalidation(let physical, let size):
        events.append(.instructionCache(physical: physical.rawValue, size: size))
      case .abort, .log, .text, .traced, .tracepoint, .visit, .hook, .warning, .guestStopped:
        // These events do not occur: there is no CPU, no KVM and no hook.
        break
      }
    }
  }

  package var table: Stage2PageTable
  package let trace = Trace()
  /// The tables that no entry points to.
  private var unlinked: [(table: EntryReference, level: Int)] = []

  package init(_ machine: TableMachine) { self.init(machine.table) }

  package init(_ table: Stage2PageTable) {
    self.table = table
    self.table.observer = trace
  }

  package mutating func run(_ operation: TableOperation) -> TableOutcome {
    if table.observer != nil { trace.events.removeAll(keepingCapacity: true) }
    var outcome = TableOutcome()
    do {
      try run(operation, &outcome)
    } catch {
      outcome.error = error.rawValue
    }
    return outcome
  }

  /// The flags that a caller gives to a walk; nil if the function chooses them.
  private func flags(of operation: TableOperation) -> WalkFlags? {
    operation.kind.hasFlags(in: table.kernel) ? operation.flags : nil
  }

  private mutating func run(_ operation: TableOperation, _ outcome: inout TableOutcome)
    throws(KernelError)
  {
    let address = IntermediatePhysicalAddress(operation.address)
    do throws(Stage2Error) {
      switch operation.kind {
      case .map:
        try table.map(
          address: address, size: operation.size, physical: PhysicalAddress(operation.physical),
          protection: operation.protection, canAllocate: operation.canAllocate,
          flags: operation.flags)
      case .setOwner:
        try table.setOwner(
          address: address, size: operation.size, owner: operation.byte,
          canAllocate: operation.canAllocate)
      case .unmap: try table.unmap(address: address, size: operation.size)
      case .writeProtect: try table.writeProtect(address: address, size: operation.size)
      case .makeYoung:
        let old = table.makeYoung(address: address, flags: flags(of: operation))
        // The function of 7.3 returns nothing.
        if table.kernel != .linux73 { outcome.value = old.rawValue }
      case .makeOld: outcome.value = table.makeOld(address: address).rawValue
      case .isYoung: outcome.value = table.isYoung(address: address) ? 1 : 0
      case .relax:
        try table.relaxPermissions(
          address: address, protection: operation.protection, flags: flags(of: operation))
      case .flush: try table.flush(address: address, size: operation.size)
      case .leaf:
        let leaf = try table.leaf(for: address)
        outcome.level = leaf.level
        outcome.value = leaf.descriptor.rawValue
        // The functions that 5.10 does not have are left out.
        if table.kernel != .linux510 {
          outcome.protection = leaf.descriptor.protection(in: table.kernel)
        }
      case .hide, .seek: break
      case .destroy: table.destroy()
      case .annotate:
        try table.annotate(
          address: address, size: operation.size, type: operation.byte,
          annotation: operation.physical, canAllocate: operation.canAllocate)
      case .testYoung:
        let isYoung = table.testYoung(
          address: address, size: operation.size, makesOld: operation.byte != 0)
        outcome.value = isYoung ? 1 : 0
      case .split:
        try table.split(address: address, size: operation.size, pages: Int(operation.count))
      case .createUnlinked:
        let made = try table.createUnlinked(
          physical: PhysicalAddress(operation.physical), level: Int(operation.byte),
          protection: operation.protection, forcesPages: operation.count != 0)
        outcome.value = table.memory.physicalAddress(of: made).rawValue
        unlinked.append((made, Int(operation.byte)))
      case .freeUnlinked:
        guard let last = unlinked.popLast() else { throw Stage2Error(.noEntry, address: 0) }
        table.freeUnlinked(last.table, level: last.level)
      case .destroyRange: table.destroy(address: address, size: operation.size)
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
