import CLabLink
import Scenarios
import Stage2Sim
import VirtWalkerDevice

/// The stage-2 tables of the guest, which the observer in the host's kernel reads.
extension KernelEngine: MachineView {
  public var startLevel: Int { targetPath.first?.level ?? 1 }

  public var tablePages: Int { Set(tables.map(\.table)).count }

  /// The entries on the way to the target are those after the last call, if the host does not answer.
  public func path(to address: IntermediatePhysicalAddress) -> [TableVisit] {
    let path = walk(address).map(TableVisit.init)
    if address == HideSeek.target, !path.isEmpty { targetPath = path }
    if !path.isEmpty { return path }
    if address == HideSeek.target, !targetPath.isEmpty { return targetPath }
    return [
      TableVisit(level: startLevel, table: 0, index: 0, descriptor: Stage2Descriptor(rawValue: 0))
    ]
  }

  /// The entry of the target is the one after the last call. For other addresses, the host is asked.
  public func leaf(for address: IntermediatePhysicalAddress) -> Leaf? {
    let last =
      address == HideSeek.target ? targetPath.last : walk(address).last.map(TableVisit.init)
    return last.map { Leaf(descriptor: $0.descriptor, level: $0.level) }
  }

  public func references(for address: IntermediatePhysicalAddress, level: Int) -> TableReferences? {
    guard let visit = walk(address).first(where: { Int($0.level) == level }) else { return nil }
    let needed = 1 + tables.lazy.filter { $0.table == visit.table }.count
    return TableReferences(count: Int(visit.references), needed: needed)
  }

  public func forEachLeaf(_ body: (_ address: IntermediatePhysicalAddress, Leaf) -> Void) {
    var entries: [[UInt64: Stage2Descriptor]] = Array(repeating: [:], count: 4)
    for visit in tables where visit.level < 4 {
      entries[Int(visit.level)][visit.address] = Stage2Descriptor(rawValue: visit.entry)
    }
    let granule = machine.configuration.granule
    func walk(level: Int, from start: UInt64, count: Int) {
      let size = granule.size(level: level)
      for index in 0..<count {
        let address = start + UInt64(index) * size
        let entry = entries[level][address] ?? Stage2Descriptor(rawValue: 0)
        if entry.isTable(level: level), level < Granule.lastLevel {
          walk(level: level + 1, from: address, count: granule.entriesPerTable)
        } else {
          body(IntermediatePhysicalAddress(address), Leaf(descriptor: entry, level: level))
        }
      }
    }
    let first = startLevel
    let count = UInt64(1) << UInt64(machine.configuration.ipaBits) / granule.size(level: first)
    walk(level: first, from: 0, count: Int(count))
  }

  private func walk(_ address: IntermediatePhysicalAddress) -> [lab_visit] {
    guard isRunning else { return [] }
    let payload = withUnsafeBytes(of: address.rawValue.littleEndian) { Array($0) }
    return request(LAB_WALK, payload, limit: Self.requestLimit)?.visits.filter(\.isPossible) ?? []
  }

  private var tables: [lab_visit] {
    guard isRunning else { return [] }
    return request(LAB_TABLES, limit: Self.requestLimit)?.visits.filter(\.isPossible) ?? []
  }

  /// Keeps the entries that an answer has brought.
  func takePath(_ answer: MonitorAnswer) {
    let visits = answer.visits.filter(\.isPossible)
    guard !visits.isEmpty else { return }
    targetPath = visits.map(TableVisit.init)
    targetCounts = visits.map { Int(truncatingIfNeeded: $0.references) }
  }
}

extension lab_visit {
  /// Whether the model's types have such a level.
  fileprivate var isPossible: Bool { level <= 3 && index < 1 << 20 }
}

extension TableVisit {
  fileprivate init(_ visit: lab_visit) {
    self.init(
      level: Int(visit.level), table: PhysicalAddress(visit.table), index: Int(visit.index),
      descriptor: Stage2Descriptor(rawValue: visit.entry))
  }
}
