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
  /// The mergeable ranges in which a child has pages, as the VMM had them at the fork.
  var mergeable: [Range<HostVirtualAddress>] = []
  /// Whether a child has areas that KSM may merge, with pages or without.
  var hasMergeableAreas = false
  /// The directories, by address / size of the range of one directory. They stay when their entries go.
  private var directories: Set<UInt64> = []

  /// The entry of a huge page, by its number; nil if there is none. Nil as a new value takes the entry away.
  subscript(block number: UInt64) -> HostEntry? {
    get { if case .block(let entry) = directory[number] { entry } else { nil } }
    set { directory[number] = newValue.map { .block($0) } }
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
