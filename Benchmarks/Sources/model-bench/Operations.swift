import ArgumentParser
import Stage2Sim
import VirtWalkerDevice

/// Measures stage-2 tables alone. The operations are those of Benchmarks/reference/pgtable-bench.c on the kernel's
/// code, in the same order and at the same addresses.
struct Operations: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Operations on a stage-2 table, as pgtable-bench does them.")

  @Argument(help: "The size of the mapped guest memory.")
  var mib: UInt64

  @Argument(help: "The number of rounds. The median round is printed.")
  var rounds: Int

  @Option(help: "The version of Linux.")
  var kernel = KernelVersion.standard.rawValue

  func run() throws {
    guard let version = KernelVersion(rawValue: kernel) else {
      throw ValidationError(
        "there is no version '\(kernel)' of the model: give 5.10, 6.1, 6.12 or 7.3")
    }
    var bench = TableBench(table: Stage2PageTable(kernel: version))
    let operations = TableBench.operations
    var samples = [[Double]](repeating: [], count: operations.count)
    var sums = [UInt64](repeating: 0, count: operations.count)
    // The first round is not counted: its tables are in memory that was never used before, and the first use takes
    // extra time.
    for round in 0...rounds {
      for (index, operation) in operations.enumerated() {
        let count = mib << 20 / operation.unit
        let start = now()
        sums[index] = try operation.run(&bench, count)
        let time = Double(now() - start) / Double(count)
        if round > 0 { samples[index].append(time) }
      }
    }
    let rows = operations.indices.map {
      "\"\(operations[$0].name)\": {\"ns\": \(median(samples[$0])), \"sum\": \"\(sums[$0])\"}"
    }
    print("{\(rows.joined(separator: ", "))}")
  }
}

struct TableBench {
  struct Operation: Sendable {
    let name: String
    /// The bytes for each operation.
    let unit: UInt64
    /// Returns a sum. Equal sums on both sides show that both sides have done the same.
    let run: @Sendable (inout TableBench, _ count: UInt64) throws -> UInt64
  }

  static let operations = [
    Operation(name: "map_page", unit: page, run: { try $0.mapPages($1) }),
    Operation(name: "leaf", unit: page, run: { try $0.lookUp($1) }),
    Operation(name: "hide_seek", unit: page, run: { try $0.hideAndSeek($1) }),
    Operation(name: "write_protect", unit: page, run: { try $0.writeProtect($1) }),
    Operation(name: "unmap", unit: page, run: { try $0.unmap($1) }),
    Operation(name: "map_range", unit: page, run: { try $0.mapRange($1) }),
    Operation(name: "unmap_again", unit: page, run: { try $0.unmap($1) }),
    Operation(name: "map_block", unit: block, run: { try $0.mapBlocks($1) }),
    Operation(name: "split", unit: block, run: { try $0.splitBlocks($1) }),
    Operation(name: "unmap_split", unit: page, run: { try $0.unmap($1) }),
  ]

  static let page = Granule.kib4.pageSize
  static let block = Granule.kib4.blockSize
  static let ipa = HideSeek.target
  static let physicalBlocks = PhysicalAddress(ipa.rawValue + 1 << 41)
  /// The address is one page off the alignment of a block, so that a range is mapped by pages.
  static let physicalPages = physicalBlocks + page

  var table = Stage2PageTable()

  var pagesInUse: UInt64 { UInt64(table.memory.pagesInUse) }

  mutating func mapPages(_ count: UInt64) throws -> UInt64 {
    for index in 0..<count {
      try table.map(
        address: Self.ipa + index * Self.page, size: Self.page,
        physical: Self.physicalPages + index * Self.page, protection: [.read, .write])
    }
    return pagesInUse
  }

  func lookUp(_ count: UInt64) throws -> UInt64 {
    var random = SplitMix64(state: 1)
    var sum: UInt64 = 0
    for _ in 0..<count {
      let leaf = try table.leaf(for: Self.ipa + random.next() % count * Self.page)
      sum &+= leaf.descriptor.rawValue &+ UInt64(leaf.level)
    }
    return sum
  }

  mutating func hideAndSeek(_ count: UInt64) throws -> UInt64 {
    var sum: UInt64 = 0
    for index in 0..<count {
      try HideSeek.walk(hiding: UInt8(truncatingIfNeeded: index), at: Self.ipa, in: &table)
      sum += UInt64(try HideSeek.walk(hiding: nil, at: Self.ipa, in: &table))
    }
    return sum
  }

  mutating func writeProtect(_ count: UInt64) throws -> UInt64 {
    try table.writeProtect(address: Self.ipa, size: count * Self.page)
    return pagesInUse
  }

  mutating func unmap(_ count: UInt64) throws -> UInt64 {
    try table.unmap(address: Self.ipa, size: count * Self.page)
    return pagesInUse
  }

  mutating func mapRange(_ count: UInt64) throws -> UInt64 {
    try table.map(
      address: Self.ipa, size: count * Self.page, physical: Self.physicalPages,
      protection: [.read, .write])
    return pagesInUse
  }

  mutating func mapBlocks(_ count: UInt64) throws -> UInt64 {
    try mapAtBlocks(count, size: Self.block)
  }

  mutating func splitBlocks(_ count: UInt64) throws -> UInt64 {
    try mapAtBlocks(count, size: Self.page)
  }

  private mutating func mapAtBlocks(_ count: UInt64, size: UInt64) throws -> UInt64 {
    for index in 0..<count {
      try table.map(
        address: Self.ipa + index * Self.block, size: size,
        physical: Self.physicalBlocks + index * Self.block, protection: [.read, .write])
    }
    return pagesInUse
  }
}

private struct SplitMix64: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}
