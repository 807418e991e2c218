/// Where a descriptor stands in ``TableMemory``: what a `kvm_pte_t *` is to the kernel.
public struct EntryReference: Hashable, Sendable {
  let word: Int

  func advanced(by entries: Int) -> EntryReference {
    EntryReference(word: word &+ entries)
  }
}

/// The physical pages that hold translation tables, with their reference counts: `struct kvm_pgtable_mm_ops`.
///
/// Tables lie in one range of physical memory of their own, so that a physical address is one subtraction
/// away from its entry.
public struct TableMemory: Sendable {
  /// The physical address of the first table page.
  public static let base: UInt64 = 0x1_0000_0000

  let granule: Granule
  package internal(set) var words: [UInt64] = []
  /// `page_count` of each page.
  package internal(set) var counts: [UInt32] = []
  var free: [Int] = []

  init(granule: Granule) { self.granule = granule }

  /// Pages that hold tables now.
  public var pagesInUse: Int { counts.count - free.count }
  subscript(entry: EntryReference) -> Stage2Descriptor {
    get { Stage2Descriptor(rawValue: words[entry.word]) }
    set { words[entry.word] = newValue.rawValue }
  }

  /// `phys_to_virt`: the first entry of the table at `physical`.
  ///
  /// Nil where no table has ever been. Only an entry that stands in a table which was freed while it was in use can point
  /// there; the kernel takes whatever it finds for a table.
  func table(at physical: UInt64) -> EntryReference? {
    let word = (physical &- Self.base) >> 3
    return word < words.count ? EntryReference(word: Int(word)) : nil
  }

  /// `virt_to_phys`.
  func physicalAddress(of entry: EntryReference) -> UInt64 {
    Self.base + UInt64(entry.word) << 3
  }

  func page(of entry: EntryReference) -> Int { entry.word &>> (granule.pageShift &- 3) }

  /// `zalloc_pages_exact`: contiguous zeroed pages, each counted once.
  mutating func allocateContiguous(pages: Int) -> EntryReference {
    let first = EntryReference(word: words.count)
    words.append(contentsOf: repeatElement(0, count: pages * granule.entriesPerTable))
    counts.append(contentsOf: repeatElement(1, count: pages))
    return first
  }

  /// `zalloc_page`: one zeroed page, counted once.
  mutating func allocate() -> EntryReference {
    guard let page = free.popLast() else { return allocateContiguous(pages: 1) }
    let first = page * granule.entriesPerTable
    for word in first..<first + granule.entriesPerTable { words[word] = 0 }
    counts[page] = 1
    return EntryReference(word: first)
  }

  /// `free_pages_exact`: pages of ``allocateContiguous(pages:)``, whatever their counts.
  mutating func freeContiguous(_ first: EntryReference, pages: Int) {
    for page in page(of: first)..<page(of: first) + pages {
      counts[page] = 0
      free.append(page)
    }
  }

  /// `get_page`: one more reference on the page that `entry` stands in.
  mutating func get(_ entry: EntryReference) { counts[page(of: entry)] += 1 }

  /// `put_page`: one reference less; the last one frees the page.
  ///
  /// A hide into an invalid entry makes KVM drop a reference that it never took, so a count can be too low while
  /// entries still stand in the page. A page that is free already stays so, as the kernel's saturating count does.
  mutating func put(_ entry: EntryReference) {
    let page = page(of: entry)
    guard counts[page] > 0 else { return }
    counts[page] -= 1
    if counts[page] == 0 { free.append(page) }
  }

  /// `page_count` of the page that `entry` stands in.
  public func count(_ entry: EntryReference) -> Int { Int(counts[page(of: entry)]) }
}
