import PageTableCases
import Stage2Sim
import VirtWalkerDevice

/// Performs the same operations on the kernel's code and on the model, and compares them after each operation.
struct Fuzzer {
  /// A difference between the model and the kernel's code, or a trap or an endless loop of the model.
  struct Difference {
    let session: UInt64
    let found: TableCase
    /// The end of the child that found the difference.
    let ending: KernelLibrary.Ending
  }

  /// The numbers in the memory that is shared with the child process.
  private enum Shared: Int {
    case session, step, operations, isDifferent, warnings, misuses, lost, collapses, largest
    /// The first of the numbers for each kind of operation and each errno.
    case outcomes
  }

  private static let errnos: [KernelError?] = [
    nil, .tryAgain, .outOfMemory, .badAddress, .invalidArgument, .outOfRange, .noEntry,
  ]

  /// The limit of CPU seconds for the operations of one table. A model that needs more is in an endless loop.
  static let patience: UInt32 = 5

  let kernel: KernelLibrary
  let seed: UInt64

  private subscript(_ shared: Shared) -> UInt64 {
    get { kernel[shared: shared.rawValue] }
    nonmutating set { kernel[shared: shared.rawValue] = newValue }
  }

  /// Runs sessions with `operations` operations in a child process.
  func run(operations: UInt64) throws(LibraryError) -> Difference? {
    kernel.clearShared()
    let ending = try kernel.inChild {
      while self[.operations] < operations {
        guard runSession(self[.session]) else {
          self[.isDifferent] = 1
          break
        }
        self[.session] += 1
      }
      self[.warnings] = kernel.warnings
      self[.misuses] = kernel.misuses
    }
    guard ending != .exited(0) || self[.isDifferent] != 0 else { return nil }
    let session = self[.session]
    return Difference(
      session: session, found: replay(session, through: self[.step]), ending: ending)
  }

  /// The outcomes that a long run must reach, but has not reached: results of each function, and tables that are
  /// replaced or used after they were freed.
  var unreached: [String] {
    let version = kernel.kernel
    var expected: [(TableOperation.Kind, [KernelError?])] = [
      (.map, [nil, .outOfMemory, .invalidArgument, .outOfRange]),
      (.setOwner, [nil, .outOfMemory, .invalidArgument, .outOfRange]),
      (.annotate, [nil, .outOfMemory, .invalidArgument, .outOfRange]),
      (.unmap, [nil, .outOfRange]), (.writeProtect, [nil, .outOfRange]), (.makeYoung, [nil]),
      (.makeOld, [nil]), (.isYoung, [nil]), (.testYoung, [nil]), (.relax, [nil, .outOfRange]),
      (.flush, [nil, .outOfRange]), (.leaf, [nil, .outOfRange]), (.hide, [nil, .badAddress]),
      (.seek, [nil, .badAddress]), (.split, [nil, .outOfMemory, .outOfRange]),
      (.createUnlinked, [nil, .invalidArgument]), (.freeUnlinked, [nil, .noEntry]),
      (.destroyRange, [nil]), (.destroy, [nil]),
    ]
    // Version 5.10 allows the same mapping again, and ignores software bits.
    if version != .linux510 { expected += [(.map, [.tryAgain]), (.relax, [.invalidArgument])] }
    if version.hasNewFunctions { expected.append((.relax, [.tryAgain])) }
    var missing = self[.collapses] == 0 ? ["a table that a block replaces"] : []
    // In 5.10, a hide into an invalid entry changes no reference.
    if self[.misuses] == 0, version != .linux510 {
      missing.append("a table that is used after it was freed")
    }
    for (kind, errors) in expected where kind.isAvailable(in: version) {
      for error in errors where kernel[shared: Self.slot(kind, error?.rawValue ?? 0)] == 0 {
        missing.append("\(kind.name) that returns \(error?.description ?? "0")")
      }
    }
    return missing
  }

  var summary: String {
    """
    Linux \(kernel.kernel.rawValue), \(kernel.granule): \(self[.operations]) operations on \(self[.session]) tables of up to \(self[.largest]) \
    pages, seed \(seed): no difference. \(self[.collapses]) put blocks in the place of tables, \(self[.misuses]) times \
    a table was used after it was freed, \(self[.warnings]) WARN_ONs fired; \(self[.lost]) tables were left where the kernel \
    follows an entry out of table memory.
    """
  }

  private static func slot(_ kind: TableOperation.Kind, _ error: Int32) -> Int {
    let index = errnos.firstIndex { ($0?.rawValue ?? 0) == error } ?? errnos.count
    return Shared.outcomes.rawValue + Int(kind.rawValue) * (errnos.count + 1) + index
  }

  /// Runs one session, from the creation of its table to its end. Returns false if the two sides differ.
  private func runSession(_ index: UInt64) -> Bool {
    var session = Session(kernel.kernel, kernel.granule, seed: seed, index: index)
    kernel.limitTime(seconds: Self.patience)
    kernel.create(session.machine)
    var model = TableModel(session.machine)
    self[.step] = 0
    guard kernel.agrees(with: model) else { return false }
    var operation: TableOperation
    repeat {
      operation = next(of: &session, step: self[.step])
      let outcome = kernel.run(operation)
      guard !kernel.isLost else {
        self[.lost] += 1
        return true
      }
      guard model.run(operation) == outcome, kernel.agrees(with: model) else { return false }
      self[.step] += 1
      self[.operations] += 1
      kernel[shared: Self.slot(operation.kind, outcome.error)] += 1
      if operation.kind == .map, kernel.hasInvalidatedAll { self[.collapses] += 1 }
    } while operation.kind != .destroy
    self[.largest] = max(self[.largest], UInt64(kernel.pages))
    return true
  }

  private func next(of session: inout Session, step: UInt64) -> TableOperation {
    guard step < Session.length, !session.isLarge(pages: kernel.pages) else {
      return session.last()
    }
    return session.next {
      kernel.run(TableOperation(.leaf, address: $0)).value & Stage2Descriptor.valid != 0
    }
  }

  /// Generates the operations of a session again. Only the kernel's code influences them.
  private func replay(_ index: UInt64, through last: UInt64) -> TableCase {
    var session = Session(kernel.kernel, kernel.granule, seed: seed, index: index)
    var operations: [TableOperation] = []
    kernel.create(session.machine)
    while operations.count <= last, operations.last?.kind != .destroy {
      operations.append(next(of: &session, step: UInt64(operations.count)))
      _ = kernel.run(operations.last!)
    }
    return TableCase(machine: session.machine, operations: operations)
  }

  // MARK: - Shrinking

  /// Returns the operations up to the first difference; nil if there is no difference.
  func difference(in tried: TableCase) throws(LibraryError) -> TableCase? {
    self[.isDifferent] = 0
    self[.step] = 0
    let ending = try kernel.inChild {
      kernel.limitTime(seconds: Self.patience)
      kernel.create(tried.machine)
      var model = TableModel(tried.machine)
      guard kernel.agrees(with: model) else {
        self[.isDifferent] = 1
        return
      }
      for operation in tried.operations {
        let outcome = kernel.run(operation)
        guard !kernel.isLost else { return }
        self[.step] += 1
        guard model.run(operation) == outcome, kernel.agrees(with: model) else {
          self[.isDifferent] = 1
          return
        }
      }
    }
    guard ending != .exited(0) || self[.isDifferent] != 0 else { return nil }
    var shortest = tried
    shortest.operations = Array(tried.operations.prefix(Int(self[.step])))
    return shortest
  }

  /// Returns a shorter case with a difference, in which no operation can be left out and no argument can be simplified.
  func shrink(_ found: TableCase) throws(LibraryError) -> TableCase {
    guard var smallest = try difference(in: found) else { return found }
    var before: TableCase
    repeat {
      before = smallest
      try deleteOperations(&smallest)
      for machine in simpler(smallest.machine) {
        var tried = smallest
        tried.machine = machine
        if let smaller = try difference(in: tried) { smallest = smaller }
      }
      var index = 0
      while index < smallest.operations.count {
        for operation in simpler(smallest.operations[index]) {
          var tried = smallest
          tried.operations[index] = operation
          if let smaller = try difference(in: tried), smaller.operations.count > index {
            smallest = smaller
          }
        }
        index += 1
      }
    } while smallest != before
    return smallest
  }

  private func deleteOperations(_ smallest: inout TableCase) throws(LibraryError) {
    var length = max(1, smallest.operations.count / 2)
    while true {
      var start = 0
      while start < smallest.operations.count {
        var tried = smallest
        tried.operations.removeSubrange(
          start..<min(start + length, smallest.operations.count))
        if let smaller = try difference(in: tried) {
          smallest = smaller
        } else {
          start += length
        }
      }
      guard length > 1 else { return }
      length /= 2
    }
  }

  private func simpler(_ machine: TableMachine) -> [TableMachine] {
    var plain = machine
    plain.hasFWB = false
    var usual = machine
    usual.ipaBits = 40
    var machines = [plain, usual]
    if machine.ipaBits <= 48 {
      var small = machine
      small.has52Bits = false
      machines.append(small)
    }
    var withoutRange = machine
    withoutRange.hasTLBRange = false
    machines.append(withoutRange)
    return machines.filter { $0 != machine }
  }

  /// The operations that are simpler in one argument. No simplification can undo another one.
  private func simpler(_ operation: TableOperation) -> [TableOperation] {
    let pageSize = kernel.granule.pageSize
    let blockSize = kernel.granule.blockSize
    var simpler: [TableOperation] = []
    func add<Value: Equatable>(_ path: WritableKeyPath<TableOperation, Value>, _ value: Value) {
      var copy = operation
      copy[keyPath: path] = value
      if copy != operation { simpler.append(copy) }
    }
    for size in [blockSize, pageSize] where operation.size > size { add(\.size, size) }
    add(\.address, operation.address & ~(pageSize - 1))
    if operation.address >= blockSize {
      let offset = operation.address & (blockSize - 1)
      for address in [HideSeek.target.rawValue | offset, offset] where address < operation.address {
        add(\.address, address)
      }
    }
    if operation.address & ~(blockSize - 1) != operation.address {
      add(\.address, operation.address & ~(blockSize - 1))
    }
    add(\.physical, operation.physical & ~(pageSize - 1))
    if operation.physical >= blockSize { add(\.physical, operation.physical & (blockSize - 1)) }
    add(\.physical, operation.physical & ~(blockSize - 1))
    for part in [
      Protection.execute, .privilegedExecute, .unprivilegedExecute, .write, .read, .device,
      .normalNonCacheable, .software3, .software2, .software1, .software0,
    ] {
      add(\.protection, operation.protection.subtracting(part))
    }
    for flag in [WalkFlags.shared, .handleFault, .ignoreTryAgain] {
      add(\.flags, operation.flags.subtracting(flag))
    }
    if operation.byte > 1, operation.kind != .annotate, operation.kind != .createUnlinked {
      add(\.byte, 1)
    }
    add(\.canAllocate, true)
    return simpler
  }
}
