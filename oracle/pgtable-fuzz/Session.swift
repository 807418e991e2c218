import PageTableCases
import SeededRandom
import Stage2Sim
import VirtWalkerDevice

/// Random numbers that are the same for the same seed.
struct Random {
  private var generator: SplitMix64

  init(seed: UInt64) { generator = SplitMix64(seed: seed) }

  mutating func next() -> UInt64 { generator.next() }

  /// A number below `limit`. The bias does not matter, because `limit` is small.
  mutating func below(_ limit: Int) -> Int { Int(((next() >> 32) * UInt64(limit)) >> 32) }

  mutating func below(_ limit: UInt64) -> UInt64 { next() % limit }

  /// Returns true once in `times` calls, on average.
  mutating func one(in times: Int) -> Bool { below(times) == 0 }
}

/// The random operations on one table.
///
/// The addresses are in a few small areas, so that operations affect each other. Each area is around the edge of a
/// block, of a start table or of the address space.
struct Session {
  /// The number of operations, after which the table is destroyed.
  static let length = 400

  let machine: TableMachine
  private let hidesAnywhere: Bool
  private let rootPages: Int
  private var hasDestroyedRange = false
  private var areas: [UInt64] = []
  private var frames: [UInt64] = []
  private var random: Random

  private var granule: Granule { machine.granule }
  private var pageSize: UInt64 { granule.pageSize }
  private var blockSize: UInt64 { granule.blockSize }

  /// Makes session `index` of the run with `seed`.
  init(_ kernel: KernelVersion, _ granule: Granule, seed: UInt64, index: UInt64) {
    var seeds = Random(seed: seed)
    random = Random(seed: seeds.next() &+ index &* 0xd134_2543_de82_ef95)
    var ipaBits = 32 + random.below(17)
    // Each comparison takes long with several concatenated start tables of 64 KiB.
    if granule == .kib64, (43...46).contains(ipaBits), !random.one(in: 4) { ipaBits = 42 }
    if random.one(in: 4) { ipaBits = 40 }
    var machine = TableMachine(
      kernel: kernel, granule: granule, ipaBits: ipaBits, hasFWB: random.one(in: 3))
    if kernel.hasNewFunctions {
      machine.hasTLBRange = random.one(in: 2)
      machine.has52Bits = random.one(in: 3)
      if machine.has52Bits, !random.one(in: 3) { machine.ipaBits = 48 + random.below(5) }
      if kernel == .linux73 { machine.hasXNX = !random.one(in: 4) }
    }
    self.machine = machine
    rootPages = machine.table.rootTables
    // A hide into an invalid entry corrupts the table, and makes the later operations less useful.
    hidesAnywhere = random.one(in: 6)
    for _ in 0..<2 + random.below(2) { areas.append(area()) }
    let frameBits: UInt64 = machine.has52Bits ? 22 : 16
    for _ in 0..<2 { frames.append(random.below(1 << frameBits) << 30) }
  }

  /// Whether the table has so many pages that a comparison takes long.
  func isLarge(pages: Int) -> Bool {
    pages > rootPages + [.kib4: 40, .kib16: 20, .kib64: 12][granule]!
  }

  /// - Parameter isValid: Whether the leaf for an address is valid now.
  mutating func next(isValid: (UInt64) -> Bool) -> TableOperation {
    var operation = TableOperation(available(kind()), address: address())
    if operation.kind.hasFlags(in: machine.kernel) { operation.flags = flags() }
    switch operation.kind {
    case .map:
      operation.protection = protection()
      operation.canAllocate = !random.one(in: 16)
      setMapping(&operation)
    case .setOwner:
      operation.byte = [0, 1, 1, 2, 255][random.below(5)]
      operation.canAllocate = !random.one(in: 16)
      operation.size = fewPages()
      if random.one(in: 128) { operation.size = blockSize }
    case .annotate:
      operation.byte = [2, 2, 2, 3, 15, 0, 1][random.below(7)]
      operation.physical = annotation()
      operation.canAllocate = !random.one(in: 16)
      operation.size = fewPages()
      if random.one(in: 128) { operation.size = blockSize }
    case .unmap:
      operation.size = size()
      // Each two million pages of a range need an invalidation.
      if machine.hasTLBRange, machine.hasFWB { operation.size &= (1 << 47) - 1 }
    case .writeProtect, .flush: operation.size = size()
    case .testYoung:
      operation.size = size()
      operation.byte = UInt8(random.below(2))
    case .split:
      operation.size = size()
      operation.count = [0, 1, 1, 2, 3, 8][random.below(6)]
      if random.one(in: 12) { operation.count = UInt32(granule.entriesPerTable + random.below(3)) }
    case .createUnlinked:
      operation.address = 0
      operation.byte = random.one(in: 4) ? 1 : 2
      operation.count = operation.byte == 2 || granule == .kib4 && random.one(in: 8) ? 1 : 0
      if random.one(in: 3) { operation.count = 0 }
      operation.protection = protection()
      operation.physical = frames[0] & ~(granule.size(level: Int(operation.byte)) - 1)
      if random.one(in: 8) { operation.physical &+= pageSize }
    case .freeUnlinked: operation.address = 0
    case .relax:
      operation.protection = executable(Protection(rawValue: UInt64(random.below(8))))
      if random.one(in: 16) { operation.protection.formUnion(protection()) }
    case .hide:
      operation.byte = UInt8(random.below(256))
      if !hidesAnywhere, !isValid(operation.address) {
        operation = TableOperation(.seek, address: operation.address)
      }
    default: break
    }
    return operation
  }

  /// The operations that end the session: the last one destroys the table.
  mutating func last() -> TableOperation {
    guard machine.kernel == .linux73, !hasDestroyedRange, random.one(in: 2) else {
      return TableOperation(.destroy)
    }
    hasDestroyedRange = true
    var operation = TableOperation(.destroyRange, address: address())
    operation.size = size()
    return operation
  }

  /// A kind that the version has, in place of another one.
  private mutating func available(_ kind: TableOperation.Kind) -> TableOperation.Kind {
    guard machine.kernel != .linux61 else { return kind }
    if machine.kernel.hasNewFunctions, random.one(in: 10) {
      return [.split, .split, .split, .createUnlinked, .freeUnlinked][random.below(5)]
    }
    guard !kind.isAvailable(in: machine.kernel) else { return kind }
    return switch kind {
    case .setOwner: machine.kernel == .linux73 ? .annotate : .map
    default: .testYoung
    }
  }

  /// Mostly the flags that KVM gives to a walk at a fault.
  private mutating func flags() -> WalkFlags {
    let other: WalkFlags = machine.kernel == .linux73 ? .ignoreTryAgain : .handleFault
    switch random.below(8) {
    case 0: return []
    case 1: return .shared
    case 2: return other
    case 3: return [.shared, other]
    default: return machine.kernel == .linux73 ? .shared : [.shared, .handleFault]
    }
  }

  private mutating func annotation() -> UInt64 {
    switch random.below(8) {
    case 0: 0
    case 1: random.next()
    case 2, 3: UInt64(random.below(16)) << 55
    default: random.next() & ((1 << 60) - 2)
    }
  }

  /// In 7.3, the guest may also execute at one exception level only.
  private mutating func executable(_ protection: Protection) -> Protection {
    guard machine.kernel == .linux73, protection.contains(.execute), random.one(in: 2) else {
      return protection
    }
    return protection.subtracting(.execute).union(
      random.one(in: 2) ? .privilegedExecute : .unprivilegedExecute)
  }

  private mutating func kind() -> TableOperation.Kind {
    switch random.below(100) {
    case 0..<34: .map
    case 34..<48: .unmap
    case 48..<55: .writeProtect
    case 55..<58: .makeYoung
    case 58..<63: .makeOld
    case 63..<66: .isYoung
    case 66..<73: .relax
    case 73..<80: .setOwner
    case 80..<83: .flush
    case 83..<88: .leaf
    case 88..<96: .hide
    default: .seek
    }
  }

  private mutating func area() -> UInt64 {
    let limit = UInt64(1) << UInt64(machine.ipaBits)
    let block = random.below(limit / blockSize) * blockSize
    switch random.below(8) {
    case 0: return 0
    case 1: return limit
    case 2, 3:
      // The boundary between two entries of level 1, or between two start tables.
      let level = random.below(2)
      let size = granule.size(level: level)
      return size < limit ? random.below(limit / size) * size : HideSeek.target.rawValue
    case 4, 5: return HideSeek.target.rawValue
    default: return block
    }
  }

  private mutating func address() -> UInt64 {
    let entries = UInt64(granule.entriesPerTable)
    let area = areas[random.below(areas.count)]
    let page: UInt64 =
      switch random.below(16) {
      case 0..<8: random.below(8 as UInt64)
      case 8..<11: entries &- 4 &+ random.below(8 as UInt64)
      case 11..<13: 0 &- 1 &- random.below(4 as UInt64)
      case 13: 0
      default: random.below(2 * entries)
      }
    var address = area &+ page &* pageSize
    if random.one(in: 12) { address &+= random.below(pageSize) }
    if random.one(in: 100) { address = random.next() >> UInt64(random.below(32)) }
    return address
  }

  private mutating func fewPages() -> UInt64 {
    switch random.below(16) {
    case 0: 0
    case 1: random.below(3 * pageSize)
    case 2..<9: pageSize
    case 9..<15: (1 + random.below(8 as UInt64)) * pageSize
    default: random.below(32 as UInt64) * pageSize
    }
  }

  /// A size for operations that are slow only on mapped ranges.
  private mutating func size() -> UInt64 {
    switch random.below(32) {
    case 0..<22: return fewPages()
    case 22..<28: return (1 + random.below(2 as UInt64)) * blockSize
    case 28: return random.below(3 * blockSize)
    case 29: return granule.size(level: 1)
    case 30: return random.one(in: 4) ? 1 << UInt64(machine.ipaBits) : blockSize
    default: return random.next() >> UInt64(random.below(64))
    }
  }

  private mutating func setMapping(_ operation: inout TableOperation) {
    operation.size = fewPages()
    // Usually, an address has the same frames each time.
    operation.physical = frames[random.below(frames.count)] &+ operation.address
    switch random.below(64) {
    case 0..<16:
      operation.address &= ~(blockSize - 1)
      operation.physical &= ~(blockSize - 1)
      operation.size = (1 + random.below(2 as UInt64)) * blockSize
    case 16:
      // The range has pages before the first block and after the last block.
      let pages = 1 + random.below(4 as UInt64)
      operation.address = operation.address & ~(blockSize - 1) &- pages * pageSize
      operation.physical = operation.physical & ~(blockSize - 1) &- pages * pageSize
      operation.size = blockSize + (pages + random.below(4 as UInt64)) * pageSize
    case 17..<20 where granule == .kib4:
      let size = granule.size(level: 1)
      operation.address &= ~(size - 1)
      operation.physical &= ~(size - 1)
      operation.size = (1 + random.below(2 as UInt64)) * size
    case 20 where granule == .kib4 || random.one(in: 16):
      operation.size = blockSize  // of pages, mostly
    case 21..<26: operation.physical &+= (1 + random.below(3 as UInt64)) * pageSize
    case 26, 27: operation.physical &+= random.below(pageSize)
    case 28: operation.physical = random.below(16 as UInt64) * pageSize
    case 29, 30:
      let bits: UInt64 = machine.has52Bits ? 52 : 48
      operation.physical = 1 << bits &- random.below(4 as UInt64) * pageSize
    case 31: operation.physical = 1 << 48 | random.next()
    case 32: operation.physical = random.next()
    case 33: operation.physical = TableMemory.base.rawValue + random.below(16 as UInt64) * pageSize
    // The range ends beyond the address space, or wraps around the largest address.
    case 34: operation.size = 1 << UInt64(machine.ipaBits) + 1
    case 35: operation.size = 0 &- operation.address &+ random.below(4 as UInt64) * pageSize
    default: break
    }
  }

  private mutating func protection() -> Protection {
    var protection = executable(Protection(rawValue: UInt64(random.below(8))))
    if machine.kernel.hasNewFunctions, random.one(in: 12) {
      protection.insert(.normalNonCacheable)
    }
    if random.one(in: 8) { protection.insert(.device) }
    if random.one(in: 8) {
      protection.formUnion(Protection(rawValue: UInt64(random.below(16)) << 55))
    }
    return protection
  }
}

extension KernelVersion {
  /// Whether it has what came since 6.1: splitting, tables without an entry, range invalidation, and 52 bits.
  var hasNewFunctions: Bool { self == .linux612 || self == .linux73 }
}
