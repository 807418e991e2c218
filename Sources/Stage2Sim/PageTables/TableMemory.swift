/// The place of a descriptor in ``TableMemory``: a `kvm_pte_t *` of the kernel.
public struct EntryReference: Hashable, Sendable {
  @usableFromInline let word: Int

  @inlinable
  init(word: Int) { self.word = word }

  @inlinable
  func advanced(by entries: Int) -> EntryReference {
    EntryReference(word: word &+ entries)
  }
}

/// The physical pages that hold translation tables, with their reference counts: `struct kvm_pgtable_mm_ops`.
///
/// Tables lie in one range of physical memory of their own, so that a physical address is one subtraction
/// away from its entry.
///
/// A copy shares its pages until one of the two is to change. A function that changes pages calls `makeUnique()` before, once
/// for any number of changes in a row.
public struct TableMemory: Sendable {
  /// The physical address of the first table page.
  @inlinable public static var base: PhysicalAddress { 0x1_0000_0000 }

  let granule: Granule
  @usableFromInline var storage: TableStorage
  private var free: [UInt32] = []

  init(granule: Granule, source: TableSource? = nil) {
    self.granule = granule
    storage = TableStorage(granule: granule, source: source)
  }

  /// The block of a ``TableSource`` that the pages are in, if another process can change the entries; nil otherwise.
  var block: TableBlock? { storage.block.flatMap { $0.isShared ? $0 : nil } }

  /// The entries of every page that was ever a table.
  var entryCount: Int { storage.words }

  /// Pages that hold tables now.
  public var pagesInUse: Int { storage.pages - free.count }

  /// Whether one more page may become a table. Another process that clears entries makes KVM lose tables, and each later walk needs new
  /// ones. The limit of shared tables is some times the size that the host's limits allow.
  var hasRoom: Bool { block == nil || pagesInUse << granule.pageShift < TableStorage.largeSize }

  /// Takes the pages from the copies of this memory that share them.
  mutating func makeUnique() {
    if !isKnownUniquelyReferenced(&storage) { storage = TableStorage(storage) }
  }

  @usableFromInline
  subscript(entry: EntryReference) -> Stage2Descriptor {
    @inlinable get { Stage2Descriptor(rawValue: storage[word: entry.word]) }
    set {
      assert(isKnownUniquelyReferenced(&storage))
      storage[word: entry.word] = newValue.rawValue
    }
  }

  /// `phys_to_virt`: the first entry of the table at `physical`.
  ///
  /// Nil if no table has ever been there. Only an entry of a table that was freed while it was in use can point there. The
  /// kernel takes the contents of the page for a table.
  @inlinable
  func table(at physical: PhysicalAddress) -> EntryReference? {
    let word = Int(truncatingIfNeeded: (physical &- Self.base) >> 3)
    return storage.contains(word: word) ? EntryReference(word: word) : nil
  }

  /// `virt_to_phys`.
  @inlinable
  package func physicalAddress(of entry: EntryReference) -> PhysicalAddress {
    Self.base + UInt64(entry.word) << 3
  }

  /// The first entry of the table that `entry` stands in.
  func table(of entry: EntryReference) -> EntryReference {
    EntryReference(word: entry.word & ~(granule.entriesPerTable &- 1))
  }

  func page(of entry: EntryReference) -> Int { entry.word &>> (granule.pageShift &- 3) }

  /// `zalloc_pages_exact`: contiguous zeroed pages, each counted once.
  mutating func allocateContiguous(pages: Int) -> EntryReference {
    assert(isKnownUniquelyReferenced(&storage))
    let first = storage.pages
    if pages > storage.capacity - first {
      storage = TableStorage(storage, capacity: max(2 * storage.capacity, first + pages))
    }
    storage.append(pages: pages)
    return EntryReference(word: first * granule.entriesPerTable)
  }

  /// `zalloc_page`: one zeroed page, counted once.
  mutating func allocate() -> EntryReference {
    guard let page = free.popLast() else { return allocateContiguous(pages: 1) }
    assert(isKnownUniquelyReferenced(&storage))
    if block != nil { storage.isFree[Int(page)] = false }
    storage.renew(Int(page))
    return EntryReference(word: Int(page) * granule.entriesPerTable)
  }

  /// `free_pages_exact`: pages of ``allocateContiguous(pages:)``, whatever their counts.
  mutating func freeContiguous(_ first: EntryReference, pages: Int) {
    assert(isKnownUniquelyReferenced(&storage))
    for page in page(of: first)..<page(of: first) + pages {
      storage[countOf: page] = 0
      giveBack(page)
    }
  }

  /// `get_page`: one more reference on the page that `entry` stands in. A count that another process has driven up, by entries that it
  /// clears, begins at 0 again.
  mutating func retain(_ entry: EntryReference) {
    assert(isKnownUniquelyReferenced(&storage))
    storage[countOf: page(of: entry)] &+= 1
  }

  /// `put_page`: one reference less; the last one frees the page.
  ///
  /// A hide into an invalid entry makes KVM drop a reference that it never took, so a count can be too low while
  /// entries still stand in the page. A page that is free already stays so, as the kernel's saturating count does.
  mutating func release(_ entry: EntryReference) {
    assert(isKnownUniquelyReferenced(&storage))
    let page = page(of: entry)
    let count = storage[countOf: page]
    guard count > 0 else { return }
    storage[countOf: page] = count &- 1
    if count == 1 { giveBack(page) }
  }

  /// Puts a page on the list of free pages. A page can be there already: entries of a table that was freed in use still take and drop
  /// references. A page of shared tables stands in the list once, because a hook of a user could free one page without an end. Other
  /// pages stand there as often as in the list of oracle/pgtable-harness.
  // Never inlined: it would be most of the code of a loop over entries.
  @inline(never)
  private mutating func giveBack(_ page: Int) {
    if block != nil {
      if page >= storage.isFree.count {
        storage.isFree += repeatElement(false, count: storage.pages - storage.isFree.count)
      }
      guard !storage.isFree[page] else { return }
      storage.isFree[page] = true
    }
    free.append(UInt32(page))
  }

  /// `page_count` of the page that `entry` stands in.
  public func count(_ entry: EntryReference) -> Int { Int(storage[countOf: page(of: entry)]) }
}

extension TableMemory {
  /// The entries of every page that was ever a table.
  package var words: [UInt64] { withEntries { words, _ in Array(words) } }

  /// `page_count` of each page.
  package var counts: [UInt32] { withEntries { _, counts in Array(counts) } }

  /// Calls a function with ``words`` and ``counts`` without a copy.
  package func withEntries<Result>(
    _ body: (UnsafeBufferPointer<UInt64>, UnsafeBufferPointer<UInt32>) -> Result
  ) -> Result {
    storage.withEntries(body)
  }
}

/// A block of memory for the entries of translation tables, which came from a ``TableSource``.
///
/// The block is released with the last reference to it.
open class TableBlock: @unchecked Sendable {
  /// The first byte, aligned to an entry.
  public let address: UnsafeMutableRawPointer
  /// The size in bytes.
  public let size: Int
  /// Whether another process can change the entries. Such a process could use up the memory of tables, so that there are limits.
  public let isShared: Bool

  /// A block.
  ///
  /// - Parameters:
  ///   - address: The first byte, aligned to an entry.
  ///   - size: The size in bytes.
  ///   - isShared: Whether another process can change the entries.
  public init(address: UnsafeMutableRawPointer, size: Int, isShared: Bool = true) {
    self.address = address
    self.size = size
    self.isShared = isShared
  }
}

/// A function that makes memory for the entries of tables, for a machine whose tables another process can see and change.
///
/// Its argument is the least number of bytes. If the result is nil, the tables are in memory of this process alone.
public typealias TableSource = (_ size: Int) -> TableBlock?

/// The memory of tables whose entries an observer can read in the middle of an operation, when the machine itself must not be used.
public final class ObservedTables {
  private var block: TableBlock?

  /// No tables yet.
  public init() {}

  /// The source that the machine gets.
  ///
  /// - Parameter next: The source of the memory; nil for memory of this process alone.
  public func source(over next: TableSource? = nil) -> TableSource {
    { [self] size in
      block = next?(size) ?? OwnBlock(size: size)
      return block
    }
  }

  /// The entry at a physical address; nil if no table can be there.
  public func entry(at address: PhysicalAddress) -> Stage2Descriptor? {
    guard let block, address >= TableMemory.base, address.isAligned(to: 8) else { return nil }
    let offset = address - TableMemory.base
    guard offset + 8 <= UInt64(block.size) else { return nil }
    return Stage2Descriptor(
      rawValue: block.address.load(fromByteOffset: Int(offset), as: UInt64.self))
  }

  private final class OwnBlock: TableBlock, @unchecked Sendable {
    init(size: Int) {
      super.init(
        address: .allocate(byteCount: size, alignment: 1 << 16), size: size, isShared: false)
    }

    deinit { address.deallocate() }
  }
}

/// The pages that ``TableMemory`` shares with its copies. All unsafe code of the page tables is here.
///
/// Arrays in its place take longer: `oracle/pgtable --time` says 9.1 ns instead of 7.0 to map a page of a range
/// and 5.0 instead of 3.3 to unmap it. The first use of memory, which it does not ask for, makes a range's map take 1.4
/// times as long as the kernel's, because an array that grows is copied. The memory of the old array stays with the process:
/// a table of 4 GiB in pages that is made a second time has three times its size resident.
///
/// The subscripts check, whatever an entry or a caller's reference says, that a page of that number was allocated. It is
/// `Sendable` as nothing in it changes while there are two references to it (``TableMemory/makeUnique()``).
@usableFromInline
final class TableStorage: @unchecked Sendable {
  /// A table starts in a block for so many pages, which is fast to allocate and to copy.
  private static let smallCapacity = 32
  /// A table that needs more has a block of so many bytes, which map 32 GiB by pages. As long as a page is not used, the
  /// operating system has no memory for it.
  fileprivate static let largeSize = 64 << 20

  let granule: Granule
  /// Pages that there is room for.
  let capacity: Int
  /// Pages that were ever a table.
  private(set) var pages = 0
  /// The entries in these pages.
  // No check of exclusive access: a walk in another module would make one at each entry.
  @exclusivity(unchecked) @usableFromInline private(set) var words = 0
  /// Whether a page of shared tables is on the list of free pages; empty until there is such a page.
  fileprivate var isFree: [Bool] = []
  @usableFromInline let entries: UnsafeMutablePointer<UInt64>
  private let counts: UnsafeMutablePointer<UInt32>
  /// The origin of the memory of the entries; nil for memory of this process alone.
  private let source: TableSource?
  /// The memory of the entries, if it came from ``source``.
  let block: TableBlock?

  /// Room for at least `capacity` pages.
  init(granule: Granule, capacity: Int = 0, source: TableSource? = nil) {
    let capacity =
      capacity <= Self.smallCapacity
      ? Self.smallCapacity : max(capacity, Self.largeSize >> granule.pageShift)
    self.granule = granule
    self.capacity = capacity
    self.source = source
    let size = capacity << granule.pageShift
    block = source?(size)
    if let block {
      precondition(block.size >= size, "a block for tables is too small")
      // Another process can see the entries. It has no use for the counts.
      entries = block.address.bindMemory(
        to: UInt64.self, capacity: capacity * granule.entriesPerTable)
      counts = .allocate(capacity: capacity)
      return
    }
    let memory = UnsafeMutableRawPointer.allocate(
      byteCount: size + capacity * MemoryLayout<UInt32>.size, alignment: Int(granule.pageSize))
    entries = memory.bindMemory(to: UInt64.self, capacity: capacity * granule.entriesPerTable)
    counts = (memory + size).bindMemory(to: UInt32.self, capacity: capacity)
  }

  /// A copy.
  convenience init(_ other: TableStorage, capacity: Int? = nil) {
    self.init(
      granule: other.granule, capacity: capacity ?? other.capacity, source: other.source)
    pages = other.pages
    words = other.words
    isFree = other.isFree
    entries.initialize(from: other.entries, count: other.words)
    counts.initialize(from: other.counts, count: other.pages)
  }

  deinit {
    if block == nil {
      UnsafeMutableRawPointer(entries).deallocate()
    } else {
      counts.deallocate()
    }
  }

  @inlinable
  func contains(word: Int) -> Bool { UInt(bitPattern: word) < UInt(bitPattern: words) }

  @usableFromInline
  subscript(word word: Int) -> UInt64 {
    @inlinable get {
      precondition(contains(word: word), "no entry of this memory")
      return entries[word]
    }
    set {
      precondition(contains(word: word), "no entry of this memory")
      entries[word] = newValue
    }
  }

  /// The reference count of a page.
  subscript(countOf page: Int) -> UInt32 {
    get {
      precondition(page >= 0 && page < pages, "no page of this memory")
      return counts[page]
    }
    set {
      precondition(page >= 0 && page < pages, "no page of this memory")
      counts[page] = newValue
    }
  }

  /// Makes `pages` more tables, zeroed and counted once.
  func append(pages: Int) {
    precondition(pages <= capacity - self.pages)
    let first = self.pages
    self.pages += pages
    words += pages * granule.entriesPerTable
    for page in first..<first + pages { renew(page) }
  }

  /// Makes a page a table again.
  func renew(_ page: Int) {
    self[countOf: page] = 1
    let count = granule.entriesPerTable
    (entries + page * count).initialize(repeating: 0, count: count)
  }

  /// The entries of all pages.
  var allEntries: UnsafeBufferPointer<UInt64> { UnsafeBufferPointer(start: entries, count: words) }

  func withEntries<Result>(
    _ body: (UnsafeBufferPointer<UInt64>, UnsafeBufferPointer<UInt32>) -> Result
  ) -> Result {
    body(
      UnsafeBufferPointer(start: entries, count: words),
      UnsafeBufferPointer(start: counts, count: pages))
  }
}
