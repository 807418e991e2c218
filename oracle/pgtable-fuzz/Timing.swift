import PageTableCases
import Stage2Sim
import VirtWalkerDevice

/// Measures the times of operations of the model and of the kernel's code.
struct Timing {
  /// The number of operations of one kind that are timed in a row.
  private static let batch = 256
  private static let rounds = 200

  /// The model or the kernel's code.
  private protocol Subject {
    mutating func create(_ machine: TableMachine)
    mutating func run(_ operation: TableOperation) -> TableOutcome
  }

  private struct Original: Subject {
    let kernel: KernelLibrary
    func create(_ machine: TableMachine) { kernel.create(machine) }
    func run(_ operation: TableOperation) -> TableOutcome { kernel.run(operation) }
  }

  private struct Modelled: Subject {
    var model: TableModel
    mutating func create(_ machine: TableMachine) {
      model = TableModel(machine)
      model.table.observer = nil
    }
    mutating func run(_ operation: TableOperation) -> TableOutcome { model.run(operation) }
  }

  /// The timed work: a batch of the same operation, after the operations that prepare the table.
  private struct Workload {
    let name: String
    var preparation: [TableOperation] = []
    let timed: [TableOperation]
    /// The number of pages or blocks in each operation.
    var units = 1
  }

  struct Row {
    let name: String
    let modelNanoseconds: Double
    let kernelNanoseconds: Double
  }

  let kernel: KernelLibrary

  /// The time of the median round for each page or block, of each workload.
  func rows() -> [Row] {
    kernel.isLogging = false
    defer { kernel.isLogging = true }
    var original = Original(kernel: kernel)
    let machine = TableMachine(kernel: kernel.kernel, granule: kernel.granule)
    var modelled = Modelled(model: TableModel(machine))
    return workloads.map { workload in
      // The rounds alternate between the two, because the clock rate of a CPU changes.
      var times: (model: [Duration], kernel: [Duration]) = ([], [])
      for _ in 0..<Self.rounds {
        times.model.append(time(workload, on: machine, with: &modelled))
        times.kernel.append(time(workload, on: machine, with: &original))
      }
      func median(_ times: [Duration]) -> Double {
        times.sorted()[Self.rounds / 2] / .nanoseconds(1)
          / Double(workload.timed.count * workload.units)
      }
      return Row(
        name: workload.name, modelNanoseconds: median(times.model),
        kernelNanoseconds: median(times.kernel))
    }
  }

  /// Measures one round.
  private func time<Side: Subject>(
    _ workload: Workload, on machine: TableMachine, with side: inout Side
  ) -> Duration {
    var everything = TableOperation(.unmap)
    everything.size = 1 << UInt64(machine.ipaBits)
    side.create(machine)
    // The operations run once before they are timed, so that the tables are in memory that was used before. The first
    // use of memory takes extra time.
    let first = workload.preparation + workload.timed + [everything]
    for operation in first + workload.preparation { precondition(side.run(operation).error == 0) }
    var errors: Int32 = 0
    let time = ContinuousClock().measure {
      for operation in workload.timed { errors |= side.run(operation).error }
    }
    precondition(errors == 0, "\(workload.name) fails")
    return time
  }

  private var workloads: [Workload] {
    let pageSize = kernel.granule.pageSize
    let blockSize = kernel.granule.blockSize
    func each(
      _ kind: TableOperation.Kind, step: UInt64, size: UInt64 = 0, count: Int = Self.batch
    ) -> [TableOperation] {
      (0..<count).map { index in
        var operation = TableOperation(
          kind, address: HideSeek.target.rawValue + UInt64(index) * step)
        operation.size = size
        if kind.hasFlags(in: kernel.kernel) {
          operation.flags = kernel.kernel == .linux73 ? .shared : [.shared, .handleFault]
        }
        if kind == .map { operation.physical = operation.address &+ 1 << 41 }
        if kind == .map || kind == .relax { operation.protection = [.read, .write] }
        operation.byte = UInt8(index)
        return operation
      }
    }
    let pages = each(.map, step: pageSize, size: pageSize)
    // The batch has few blocks, so that the tables of 64 KiB pages stay in the cache.
    let blocks = Array(each(.map, step: blockSize, size: blockSize).prefix(32))
    let splits = Array(each(.map, step: blockSize, size: pageSize).prefix(32))
    // One operation maps all pages of four tables. The alignment of their frames allows no block.
    let rangePages = 4 * kernel.granule.entriesPerTable
    func range(_ kind: TableOperation.Kind) -> [TableOperation] {
      var operations = each(kind, step: 0, size: UInt64(rangePages) * pageSize, count: 1)
      operations[0].physical &+= pageSize
      return operations
    }
    var random = Random(seed: 1)
    let lookups = (0..<Self.batch).map { _ in
      TableOperation(
        .leaf, address: HideSeek.target.rawValue + random.below(UInt64(Self.batch)) * pageSize)
    }
    // The byte of each operation but the first is not 0, so that the pages become old.
    let old =
      kernel.kernel.hasNewFunctions
      ? each(.testYoung, step: pageSize, size: pageSize) : each(.makeOld, step: pageSize)
    return [
      Workload(name: "map a page", preparation: [pages[0]], timed: Array(pages.dropFirst())),
      Workload(name: "map a range, per page", timed: range(.map), units: rangePages),
      Workload(name: "map a block", preparation: [blocks[0]], timed: Array(blocks.dropFirst())),
      Workload(name: "split a block", preparation: blocks, timed: splits),
      Workload(name: "put a block in the place of a table", preparation: splits, timed: blocks),
      Workload(name: "leaf for an address", preparation: pages, timed: lookups),
      Workload(
        name: "write-protect a page", preparation: pages,
        timed: each(.writeProtect, step: pageSize, size: pageSize)),
      Workload(
        name: "write-protect a range, per page", preparation: range(.map),
        timed: range(.writeProtect), units: rangePages),
      Workload(
        name: "make a page old", preparation: pages, timed: old),
      Workload(
        name: "relax permissions",
        preparation: pages + each(.writeProtect, step: pageSize, size: pageSize),
        timed: each(.relax, step: pageSize)),
      Workload(name: "hide a byte", preparation: pages, timed: each(.hide, step: pageSize)),
      Workload(name: "seek a byte", preparation: pages, timed: each(.seek, step: pageSize)),
      Workload(
        name: "unmap a page", preparation: pages,
        timed: each(.unmap, step: pageSize, size: pageSize)),
      Workload(
        name: "unmap a range, per page", preparation: range(.map), timed: range(.unmap),
        units: rangePages),
    ]
  }
}
