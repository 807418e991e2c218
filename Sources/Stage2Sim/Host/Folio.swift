/// A page of physical memory, or the pages of a huge one: `struct folio`.
struct Folio: Sendable {
  enum Kind: Hashable, Sendable {
    case anonymous
    /// Merged by KSM; its content never changes.
    case merged
    /// In the page cache, at this offset of the file.
    case cached(offset: UInt64)
    case hugetlb
  }

  var kind: Kind
  /// The size in bytes: of a page, or of a huge page.
  let size: UInt64
  /// The number of entries that map the folio or one of its pages.
  var mappings = 0
  /// `PG_dirty`
  var isDirty = false
  /// `PG_reclaim`, which is also `PG_readahead`: faults nearby do not map it along.
  var isToBeReclaimed = false
  /// The contents in pieces of ``pieceSize`` by their offset. A missing piece is zeros.
  var contents: [UInt64: [UInt8]] = [:]

  static let pieceSize: UInt64 = 4 << 10

  /// Anonymous memory in the sense of `PageAnon`.
  var isAnonymous: Bool { kind == .anonymous || kind == .merged }
}

/// Physical memory: the folios in use, with their contents.
struct PhysicalMemory: Sendable {
  /// The zero page, which every read of untouched memory shares.
  static let zeroPage: PhysicalAddress = 0x2_0000_0000
  /// The end of physical memory, exclusive.
  static let limit = PhysicalAddress(1 << 47)

  let granule: Granule
  /// The huge zero page.
  let hugeZeroPage: PhysicalAddress
  /// The folios in use by the address of their first byte.
  private(set) var folios: [PhysicalAddress: Folio] = [:]
  /// The bytes of all of them.
  private(set) var inUse: UInt64 = 0
  /// How often a folio was freed or split, or a page of a huge one lost an entry. While the number stays the same, every frame in use stays in use.
  private(set) var freeCount = 0
  private var next: PhysicalAddress
  private var hasWrapped = false
  /// The frames of pages that were freed last. The kernel's allocator, too, gives these out again first, so that a page can get a frame
  /// that another page had before the same step.
  private var lately: [PhysicalAddress] = []
  private static let latelyCount = 32
  private(set) var lru: LRU

  init(granule: Granule, kernel: KernelVersion) {
    self.granule = granule
    lru = LRU(kernel: kernel)
    hugeZeroPage = (Self.zeroPage + granule.blockSize).aligned(to: granule.blockSize)
    next = hugeZeroPage + granule.blockSize
  }

  /// A frame that stands for nothing but zeros, and is never freed.
  func isZeroPage(_ frame: PhysicalAddress) -> Bool {
    frame == Self.zeroPage || frame.aligned(to: granule.blockSize) == hugeZeroPage
  }

  /// The address of the folio that `frame` is a page of; nil for the zero pages and for free pages.
  func folio(of frame: PhysicalAddress) -> PhysicalAddress? {
    // The keys, because an optional folio is a copy of the folio.
    if folios.keys.contains(frame) { return frame }
    let head = frame.aligned(to: granule.blockSize)
    guard let folio = folios[head], folio.size > granule.pageSize else { return nil }
    return head
  }

  subscript(folio head: PhysicalAddress) -> Folio {
    get { folios[head]! }
    set { folios[head] = newValue }
  }

  /// A frame for a folio: one that was freed lately, or the next that is free.
  mutating func allocate(_ kind: Folio.Kind, size: UInt64) -> PhysicalAddress {
    let frame = (size == granule.pageSize ? lately.popLast() : nil) ?? nextFrame(size: size)
    folios[frame] = Folio(kind: kind, size: size)
    inUse += size
    switch kind {
    case .anonymous where size == granule.pageSize, .cached: lru.add(frame)
    case .anonymous: lru.listAdded()
    case .merged, .hugetlb: break
    }
    return frame
  }

  private mutating func nextFrame(size: UInt64) -> PhysicalAddress {
    var frame: PhysicalAddress
    repeat {
      frame = next.alignedUp(to: size)
      if frame + size > Self.limit {
        hasWrapped = true
        lately = []
        frame = hugeZeroPage + granule.blockSize
      }
      next = frame + size
    } while hasWrapped && isInUse(frame..<frame + size)
    return frame
  }

  private func isInUse(_ range: Range<PhysicalAddress>) -> Bool {
    stride(from: range.lowerBound, to: range.upperBound, by: Int(granule.pageSize))
      .contains { folio(of: $0) != nil }
  }

  /// One more entry maps `frame`.
  mutating func retain(_ frame: PhysicalAddress) {
    guard let head = folio(of: frame) else { return }
    folios[head]!.mappings += 1
  }

  /// One entry less maps `frame`. A folio without a mapping is free, unless it is in the page cache.
  mutating func release(_ frame: PhysicalAddress) {
    guard let head = folio(of: frame) else { return }
    folios[head]!.mappings -= 1
    // A page of the folio may be free now.
    if folios[head]!.size > granule.pageSize { freeCount &+= 1 }
    if case .cached = folios[head]!.kind { return }
    if folios[head]!.mappings == 0 { free(head) }
  }

  mutating func free(_ head: PhysicalAddress) {
    guard let folio = folios.removeValue(forKey: head) else { return }
    freeCount &+= 1
    inUse -= folio.size
    lru.forget(head)
    guard folio.size == granule.pageSize, !hasWrapped, lru.holds(head) == 0 else { return }
    lately.append(head)
    if lately.count > Self.latelyCount { lately.removeFirst() }
  }

  /// `lru_add_drain`: the batches let go of their pages.
  mutating func drainLRU() { lru.drain() }

  /// The VMM copies its own pages, which a child shares. The copies fill the batch of new pages.
  mutating func copyPagesOfVMM() { lru.listAdded() }

  /// `mark_page_accessed`
  mutating func markAccessed(_ frame: PhysicalAddress) {
    guard let folio = folios[frame], folio.kind == .anonymous, folio.size == granule.pageSize else {
      return
    }
    lru.markAccessed(frame)
  }

  /// `mark_page_lazyfree`
  mutating func freeLazily(_ head: PhysicalAddress) {
    if folios[head]?.kind == .anonymous { lru.freeLazily(head) }
  }

  /// `folio_set_referenced`
  mutating func setReferenced(_ frame: PhysicalAddress) {
    if folios[frame]?.kind == .anonymous { lru.setReferenced(frame) }
  }

  /// `split_huge_page`: its pages become folios of their own; `mappings` says how often each is mapped.
  mutating func split(_ head: PhysicalAddress, mappings: (PhysicalAddress) -> Int) {
    guard let folio = folios.removeValue(forKey: head) else { return }
    freeCount &+= 1
    inUse -= folio.size
    let pieces = granule.pageSize / Folio.pieceSize
    for offset in stride(from: 0, to: folio.size, by: Int(granule.pageSize)) {
      var page = Folio(kind: folio.kind, size: granule.pageSize)
      page.mappings = mappings(head + offset)
      page.isDirty = folio.isDirty
      guard page.mappings > 0 else { continue }
      for piece in 0..<pieces {
        page.contents[piece * Folio.pieceSize] = folio.contents[offset + piece * Folio.pieceSize]
      }
      folios[head + offset] = page
      inUse += page.size
    }
  }

  /// The `count` (1 to 8) bytes at `physical`, little-endian.
  func load(_ physical: PhysicalAddress, count: Int) -> UInt64 {
    guard let head = folio(of: physical.aligned(to: granule.pageSize)) else { return 0 }
    let offset = physical - head
    guard let piece = folios[head]!.contents[offset & ~(Folio.pieceSize - 1)] else { return 0 }
    let first = Int(offset & (Folio.pieceSize - 1))
    return piece[first..<first + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }

  /// Puts the low `count` (1 to 8) bytes of `value` at `physical`, little-endian. The zero pages are never written.
  mutating func store(_ value: UInt64, to physical: PhysicalAddress, count: Int) {
    guard let head = folio(of: physical.aligned(to: granule.pageSize)) else { return }
    let offset = physical - head
    let first = Int(offset & (Folio.pieceSize - 1))
    let piece = offset & ~(Folio.pieceSize - 1)
    for index in 0..<count {
      folios[head]!.contents[
        piece, default: [UInt8](repeating: 0, count: Int(Folio.pieceSize))][first + index] =
        UInt8(truncatingIfNeeded: value >> UInt64(8 * index))
    }
  }

  /// Copies `size` bytes of whole pages.
  mutating func copy(from source: PhysicalAddress, to target: PhysicalAddress, size: UInt64) {
    guard let from = folio(of: source), let to = folio(of: target) else { return }
    for offset in stride(from: 0, to: size, by: Int(Folio.pieceSize)) {
      folios[to]!.contents[target - to + offset] = folios[from]!.contents[source - from + offset]
    }
  }
}
