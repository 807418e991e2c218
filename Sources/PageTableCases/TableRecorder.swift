import Stage2Sim

/// A writer of the results of a table's operations, as a case has them below the line of each operation.
///
/// It keeps the entries and the reference counts of the last time, and tells the changes.
package struct TableRecorder {
  private let granule: Granule
  private var words: [UInt64] = []
  private var counts: [UInt32] = []
  private var pagesInUse = 0

  package init(_ granule: Granule) { self.granule = granule }

  /// Returns the results of an operation: its outcome, its events and the changes of the table.
  ///
  /// - Parameters:
  ///   - operation: The operation.
  ///   - outcome: Its outcome.
  ///   - events: Its events.
  ///   - state: The table after the operation.
  package mutating func results(
    of operation: TableOperation, _ outcome: TableOutcome, _ events: some Sequence<TableEvent>,
    _ state: TableState
  ) -> [String] {
    ["result \(describe(outcome, of: operation.kind))"] + events.map(describe) + changes(to: state)
  }

  /// Returns the changes of the table. Fresh pages begin with zeros.
  package mutating func changes(to state: TableState) -> [String] {
    var lines: [String] = []
    forEachChange(to: state) { lines.append($0) }
    return lines
  }

  /// Calls a function with each change of the table. A table can have millions of entries.
  mutating func forEachChange<Failure: Error>(
    to state: TableState, _ body: (String) throws(Failure) -> Void
  ) throws(Failure) {
    if state.pagesInUse != pagesInUse { try body("pages \(state.pagesInUse)") }
    pagesInUse = state.pagesInUse
    for (page, count) in state.counts.enumerated() {
      if page == counts.count { counts.append(0) }
      guard count != counts[page] else { continue }
      try body("count \(physical(page * granule.entriesPerTable)) \(count)")
      counts[page] = count
    }
    if words.count < state.words.count {
      words += repeatElement(0, count: state.words.count - words.count)
    }
    for (word, entry) in state.words.enumerated() where entry != words[word] {
      try body("entry \(physical(word)) \(Stage2Descriptor(rawValue: entry))")
      words[word] = entry
    }
  }

  private func physical(_ word: Int) -> String {
    hex(TableMemory.base.rawValue + UInt64(word) << 3)
  }

  private func describe(_ outcome: TableOutcome, of kind: TableOperation.Kind) -> String {
    guard outcome.error == 0 else {
      return KernelError(rawValue: outcome.error)?.description ?? "errno \(outcome.error)"
    }
    let entry = Stage2Descriptor(rawValue: outcome.value)
    return switch kind {
    case .leaf: "level \(outcome.level) entry \(entry) \(outcome.protection.letters)"
    case .makeYoung, .makeOld: "entry \(entry)"
    case .isYoung, .testYoung: outcome.value != 0 ? "yes" : "no"
    case .hide, .seek, .createUnlinked: hex(outcome.value)
    default: "0"
    }
  }

  private func describe(_ event: TableEvent) -> String {
    switch event {
    case .invalidation(let address, let level): "tlbi \(hex(address)) level \(level)"
    case .localInvalidation(let address, let level): "tlbi \(hex(address)) level \(level) local"
    case .invalidationOfRange(let address, let pages): "tlbi \(hex(address)) pages \(hex(pages))"
    case .invalidationOfAll: "tlbi all"
    case .dataCache(let physical, let size): "dcache \(hex(physical)) \(hex(size))"
    case .instructionCache(let physical, let size): "icache \(hex(physical)) \(hex(size))"
    }
  }
}

/// A view of a table's memory after an operation. It is valid only as long as the memory does not change.
package struct TableState {
  /// The entries of each page that has been a table.
  let words: UnsafeBufferPointer<UInt64>
  /// The reference counts of these pages.
  let counts: UnsafeBufferPointer<UInt32>
  let pagesInUse: Int

  package init(
    words: UnsafeBufferPointer<UInt64>, counts: UnsafeBufferPointer<UInt32>, pagesInUse: Int
  ) {
    self.words = words
    self.counts = counts
    self.pagesInUse = pagesInUse
  }
}

extension TableMemory {
  /// Calls a function with the state of the memory.
  func withState<Value, Failure: Error>(
    _ body: (TableState) throws(Failure) -> Value
  ) throws(Failure) -> Value {
    let result = withEntries { words, counts -> Result<Value, Failure> in
      let state = TableState(words: words, counts: counts, pagesInUse: pagesInUse)
      do throws(Failure) {
        return .success(try body(state))
      } catch {
        return .failure(error)
      }
    }
    return try result.get()
  }
}
