/// An entry of a process's page tables, for a page or a huge page.
struct HostEntry: Hashable, Sendable {
  /// Physical address.
  var frame: PhysicalAddress
  var isWritable: Bool
  var isDirty: Bool
  /// `PageAnonExclusive` of the page: no other process has the page, so a write needs no copy.
  var isExclusive: Bool
}

/// The page tables of a process: `struct mm_struct`.
struct AddressSpace: Sendable {
  /// An entry of a page middle directory, for the range of one huge page.
  enum DirectoryEntry: Sendable {
    /// A table of pages, empty or not.
    case table
    /// A huge page.
    case block(HostEntry)
  }

  /// The entries by address / huge page size. A missing entry is `pmd_none`: only then a fault may make a huge page.
  var directory: [UInt64: DirectoryEntry] = [:]
  /// The entries of pages by address / page size.
  var entries: [UInt64: HostEntry] = [:]
  /// The groups of pages that had the contiguous bit (`CONT_PTES`), by address / size of a group, in which an entry was changed alone
  /// since (`contpte_try_unfold` of arch/arm64/mm/contpte.c).
  private(set) var unfolded: Set<UInt64> = []
  /// The mergeable ranges in which a child has pages, as the VMM had them at the fork.
  var mergeable: [Range<HostVirtualAddress>] = []
  /// The ranges that a child maps of the file, as the VMM had them at the fork.
  var fileRanges: [Range<HostVirtualAddress>] = []
  /// The number of changes of the VMM's areas before the fork.
  var areaChanges = 0
  /// Whether a child has areas that KSM may merge, with pages or without.
  var hasMergeableAreas = false
  /// The directories, by address / size of the range of one directory. They stay when their entries go.
  private var directories: Set<UInt64> = []

  /// The entry of a huge page, by its number; nil if there is none. Nil as a new value takes the entry away.
  subscript(block number: UInt64) -> HostEntry? {
    get { if case .block(let entry) = directory[number] { entry } else { nil } }
    set { directory[number] = newValue.map { .block($0) } }
  }

  /// `contpte_set_ptes`: the pages of a split huge page get the contiguous bit.
  mutating func foldPages(ofBlock block: UInt64, granule: Granule) {
    guard !unfolded.isEmpty else { return }
    let groups = UInt64(granule.entriesPerTable / granule.contiguousPages)
    unfolded.subtract(block * groups..<(block + 1) * groups)
  }

  /// An entry loses the contiguous bit, and so does its group.
  mutating func unfold(page: UInt64, granule: Granule) {
    unfolded.insert(page / UInt64(granule.contiguousPages))
  }

  /// The entries of a range of pages were changed one after the other. A group gets the contiguous bit back with its last entry, if
  /// its entries are alike (`contpte_try_fold`).
  mutating func refold(pages: Range<UInt64>, granule: Granule) {
    let count = UInt64(granule.contiguousPages)
    guard let last = pages.last else { return }
    for group in pages.lowerBound / count...last / count {
      let first = group * count
      let entry = entries[first]
      let isAlike =
        pages.contains(first + count - 1)
        && (0..<count).allSatisfy { index in
          guard let entry, let other = entries[first + index] else { return false }
          return other.isWritable == entry.isWritable
            && other.frame == entry.frame + index << UInt64(granule.pageShift)
        }
      if isAlike { unfolded.remove(group) } else { unfolded.insert(group) }
    }
  }

  /// Whether all entries of a range of pages, or none, have the contiguous bit (`folio_pte_batch` of mm/internal.h compares it, too).
  func isFoldedAlike(pages: Range<UInt64>, granule: Granule) -> Bool {
    let count = UInt64(granule.contiguousPages)
    let groups = pages.lowerBound / count..<(pages.upperBound + count - 1) / count
    let changed = groups.count { unfolded.contains($0) }
    return changed == 0 || changed == groups.count
  }

  /// `mm_find_pmd`: whether there is a directory, whatever its entry says.
  func hasDirectory(for address: HostVirtualAddress, granule: Granule) -> Bool {
    directories.contains(address.rawValue >> UInt64(granule.shift(level: 1)))
  }

  /// `pmd_alloc`
  mutating func makeDirectory(for address: HostVirtualAddress, granule: Granule) {
    directories.insert(address.rawValue >> UInt64(granule.shift(level: 1)))
  }

  /// The numbers of the directory entries in `range` that are not none, in order.
  func blocks(in range: Range<HostVirtualAddress>, granule: Granule) -> [UInt64] {
    guard !range.isEmpty else { return [] }
    let numbers = granule.block(of: range.lowerBound)...granule.block(of: range.upperBound - 1)
    if numbers.count <= directory.count { return numbers.filter { directory[$0] != nil } }
    return directory.keys.filter(numbers.contains).sorted()
  }

  /// The physical address that `address` is mapped to.
  func physicalAddress(of address: HostVirtualAddress, granule: Granule) -> PhysicalAddress? {
    guard let (entry, isBlock) = mapping(of: address, granule: granule) else { return nil }
    return entry.frame + address.offset(in: isBlock ? granule.blockSize : granule.pageSize)
  }

  /// The entry that maps `address`, and whether it is the entry of a huge page.
  func mapping(of address: HostVirtualAddress, granule: Granule) -> (
    entry: HostEntry, isBlock: Bool
  )? {
    switch directory[granule.block(of: address)] {
    case nil: nil
    case .block(let entry): (entry, true)
    case .table: entries[granule.page(of: address)].map { ($0, false) }
    }
  }
}

/// Numbers and addresses of pages and huge pages.
extension Granule {
  /// `CONT_PTES`
  var contiguousPages: Int {
    self == .kib4 ? 16 : self == .kib16 ? 128 : 32
  }

  func page(of address: HostVirtualAddress) -> UInt64 { address.rawValue >> UInt64(pageShift) }

  func address(ofPage number: UInt64) -> HostVirtualAddress {
    HostVirtualAddress(number << UInt64(pageShift))
  }

  func block(of address: HostVirtualAddress) -> UInt64 {
    address.rawValue >> UInt64(shift(level: 2))
  }

  func address(ofBlock number: UInt64) -> HostVirtualAddress {
    HostVirtualAddress(number << UInt64(shift(level: 2)))
  }
}
