extension HostMemory {
  /// Marks the page at `address` idle, by idle page tracking (mm/page_idle.c): everywhere it is mapped it is old.
  ///
  /// Only pages on an LRU list are looked at: not the zero pages, not hugetlb's, and of a huge page its first one
  /// stands for all.
  ///
  /// - Throws: `ENOENT` if nothing is mapped.
  mutating func age(_ address: HostVirtualAddress, notifier: inout some MMUNotifier)
    throws(KernelError)
  {
    dropCaches()
    guard let place = physicalAddress(of: address) else { throw .noEntry }
    let frame = place.aligned(to: pageSize)
    guard let head = physical.folio(of: frame), head == frame,
      physical[folio: head].kind != .hugetlb
    else { return }
    // `page_idle_clear_pte_refs`
    let range = head..<head + physical[folio: head].size
    for (block, what) in process.directory {
      guard case .block(let entry) = what, entry.frame == head else { continue }
      let start = granule.address(ofBlock: block)
      notifier.clearYoung(start..<start + hugePageSize)
    }
    // `rmap_walk_ksm` for a merged page: the last merge comes first.
    let number = ksm.number(ofPage:)
    let isMerged = physical[folio: head].kind == .merged
    let pages = process.entries.filter { range.contains($0.value.frame) }.keys
      .sorted { isMerged && number($0) != number($1) ? number($0) > number($1) : $0 < $1 }
    for page in pages {
      let start = granule.address(ofPage: page)
      notifier.clearYoung(start..<start + pageSize)
    }
  }

  /// The effect of the recorder's write to /proc/sys/vm/drop_caches, which puts new pages on the lists: clean pages without a
  /// mapping leave the page cache, and dirty ones are to be reclaimed (`invalidate_mapping_pagevec`).
  private mutating func dropCaches() {
    physical.drainLRU()
    let cached = physical.folios.compactMap { head, folio in
      if case .cached(let offset) = folio.kind, folio.mappings == 0 {
        (head, folio, offset)
      } else {
        nil
      }
    }
    // In the order of the file, in which the pages become free.
    for (head, folio, offset) in cached.sorted(by: { $0.2 < $1.2 }) {
      guard !folio.isDirty else {
        // `lru_deactivate_file_fn`
        physical[folio: head].isToBeReclaimed = true
        continue
      }
      for page in stride(from: offset, to: offset + folio.size, by: Int(pageSize)) {
        pageCache[page] = nil
      }
      physical.free(head)
    }
  }
}
