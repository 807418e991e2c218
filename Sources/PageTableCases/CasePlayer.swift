import Stage2Sim

/// The player of a case on the model.
package struct CasePlayer {
  private var model: TableModel
  private var recorder: TableRecorder

  /// A player with an empty table.
  package init(_ machine: TableMachine) { self.init(machine.table) }

  /// A player whose table begins with entries.
  package init(_ table: Stage2PageTable) {
    model = TableModel(table)
    recorder = TableRecorder(table.granule)
  }

  /// Calls a function with each result below the line of the machine, which are the table as it is at first. It must be called before the
  /// first operation.
  package mutating func start<Failure: Error>(
    _ body: (String) throws(Failure) -> Void
  ) throws(Failure) {
    let memory = model.table.memory
    try memory.withState { (state) throws(Failure) in
      try recorder.forEachChange(to: state, body)
    }
  }

  /// The table after the operations so far.
  package var table: Stage2PageTable { model.table }

  /// Performs an operation, and returns its results, without the two spaces.
  package mutating func run(_ operation: TableOperation) -> [String] {
    let outcome = model.run(operation)
    let (memory, events) = (model.table.memory, model.trace.events)
    return memory.withState { recorder.results(of: operation, outcome, events, $0) }
  }

  /// The most entries that one operation writes.
  private static let mostEntries: UInt64 = 1 << 22
  /// The most bytes of tables.
  private static let mostTables = 1 << 30

  /// Performs an operation of a text that anybody may have written, see ``run(_:)``.
  ///
  /// - Throws: ``CaseError`` if the operation needs much memory.
  package mutating func perform(
    _ operation: TableOperation, line: Int
  ) throws(CaseError) -> [String] {
    try check(operation, line: line)
    return run(operation)
  }

  // The function has a copy of the table, which must be gone when the table changes.
  private func check(_ operation: TableOperation, line: Int) throws(CaseError) {
    let table = model.table
    guard operation.mostEntries(in: table) <= Self.mostEntries else {
      throw CaseError(
        "'\(operation)' can write more than \(Self.mostEntries) entries: divide it into smaller operations",
        line: line)
    }
    guard table.memory.pagesInUse << table.granule.pageShift <= Self.mostTables else {
      throw CaseError(
        "the tables have more than \(Self.mostTables >> 30) GiB before '\(operation)': unmap some memory first",
        line: line)
    }
  }
}

extension TableOperation {
  /// The entries that the operation writes at most; 0 if they are no more than there are.
  fileprivate func mostEntries(in table: Stage2PageTable) -> UInt64 {
    let granule = table.granule
    let entries = UInt64(granule.entriesPerTable)
    let end = address.addingReportingOverflow(size)
    let isInTable = !end.overflow && end.partialValue <= 1 << UInt64(table.ipaBits)
    switch kind {
    // Beyond the table, there is only an error.
    case .map, .setOwner, .annotate, .split:
      guard isInTable else { return 0 }
      if kind == .split {
        let tables = size / granule.blockSize + size / granule.size(level: 1) + 2
        return min(UInt64(count), tables) * entries
      }
      guard kind == .map else { return size / granule.pageSize }
      // The map writes the largest leaves that the alignment allows, and smaller ones at both ends.
      let difference = (address ^ physical) & ~(granule.pageSize - 1)
      let leaf = (0...Granule.lastLevel).first {
        granule.allowsLeaf(level: $0) && difference & (granule.size(level: $0) - 1) == 0
      }
      return size / granule.size(level: leaf ?? Granule.lastLevel) + 4 * entries
    case .createUnlinked:
      let size = granule.size(level: Int(byte))
      return count != 0 ? size / granule.pageSize : entries
    default: return 0
    }
  }
}
