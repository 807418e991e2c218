/// `MADV_COLLAPSE`: mm/khugepaged.c.
extension HostMemory {
  /// The end of the collapse of one huge page's range (`enum scan_result`).
  private enum Outcome: Equatable {
    case succeeded
    /// Another range may do better.
    case goesOn(KernelError)
    case ends(KernelError)
  }

  /// `madvise_collapse`
  mutating func collapse(
    _ range: Range<HostVirtualAddress>, area: MemoryArea, notifier: inout some MMUNotifier
  ) throws(KernelError) {
    guard canHaveHugePages(area) else { throw .invalidArgument }
    let start = range.lowerBound.alignedUp(to: hugePageSize)
    let end = range.upperBound.aligned(to: hugePageSize)
    // Versions without the error return before `lru_add_drain_all`.
    if start >= end, kernel.collapseWithinHugePage == nil { return }
    physical.drainLRU()
    if start > end, let error = kernel.collapseWithinHugePage { throw error }
    var failure: KernelError?
    for address in stride(from: start, to: end, by: Int(hugePageSize)) {
      let outcome =
        area.isAnonymous
        ? collapseAnonymous(at: address, area: area, notifier: &notifier)
        : collapseFile(at: address, area: area, notifier: &notifier)
      switch outcome {
      case .succeeded: continue
      case .goesOn(let error): failure = error
      case .ends(let error): throw error
      }
    }
    if let failure { throw failure }
  }

  /// `hugepage_vma_check` without the system's settings.
  private func canHaveHugePages(_ area: MemoryArea) -> Bool {
    guard area.flags.isDisjoint(with: [.noHugePage, .hugetlb]),
      area.end > HostVirtualAddress(hugePageSize),
      area.fits(hugePageAt: area.end - hugePageSize, size: hugePageSize)
    else { return false }
    return !area.isAnonymous || area.anonymousFamily != nil
  }

  /// `hpage_collapse_scan_pmd`, `collapse_huge_page`
  private mutating func collapseAnonymous(
    at address: HostVirtualAddress, area: MemoryArea, notifier: inout some MMUNotifier
  ) -> Outcome {
    guard process.hasDirectory(for: address, granule: granule) else {
      return .goesOn(.invalidArgument)
    }
    let block = granule.block(of: address)
    switch process.directory[block] {
    case nil:
      return kernel.collapsesReadOnlyPages
        ? .goesOn(.invalidArgument) : .ends(.invalidArgument)
    case .block: return .succeeded
    case .table: break
    }
    let range = address..<address + hugePageSize
    let pages = pages(in: range)
    guard
      kernel.collapsesReadOnlyPages
        || pages.contains(where: { process.entries[$0]?.isWritable == true })
    else { return .goesOn(.invalidArgument) }
    guard hasFreePage else { return .ends(.outOfMemory) }
    notifier.invalidateRangeStart(range)
    notifier.invalidateRangeEnd(range)
    let head = physical.allocate(.anonymous, size: hugePageSize)
    for page in pages {
      guard let entry = process.entries[page] else { continue }
      physical.copy(
        from: entry.frame, to: head + (granule.address(ofPage: page) - address), size: pageSize)
      removeEntry(at: page)
    }
    physical.retain(head)
    process[block: block] = HostEntry(
      frame: head, isWritable: area.flags.contains(.write), isDirty: true,
      isExclusive: kernel.knowsExclusivePages)
    return .succeeded
  }

  /// `hpage_collapse_scan_file`, `collapse_file`: the page cache gets a huge page; then it is mapped, if it can be.
  private mutating func collapseFile(
    at address: HostVirtualAddress, area: MemoryArea, notifier: inout some MMUNotifier
  ) -> Outcome {
    let start = address - fileStart
    let offsets = stride(from: start, to: start + hugePageSize, by: Int(pageSize))
    let cached = offsets.compactMap { offset in
      pageCache[offset].map { (offset: offset, frame: $0) }
    }
    if let (_, frame) = cached.first, let head = physical.folio(of: frame),
      physical[folio: head].size > pageSize
    {
      return mapPageCacheHugePage(head, at: address, area: area, notifier: &notifier)
    }
    // `SCAN_TRUNCATED`
    guard !cached.isEmpty else { return .ends(.invalidArgument) }
    guard hasFreePage else { return .ends(.outOfMemory) }

    let head = physical.allocate(.cached(offset: start), size: hugePageSize)
    physical[folio: head].isDirty = true
    for (offset, frame) in cached {
      unmapEverywhere(frame, at: fileStart + offset, notifier: &notifier)
      physical.copy(from: frame, to: head + (offset - start), size: pageSize)
      physical.free(frame)
    }
    for offset in offsets { pageCache[offset] = head + (offset - start) }
    if kernel.mapsCollapsedFileAlways {
      // `retract_page_tables`
      let block = granule.block(of: address)
      let range = address..<address + hugePageSize
      if area.anonymousFamily == nil, area.covers(range), process.directory[block] != nil {
        notifier.invalidateRangeStart(range)
        process.directory[block] = nil
        notifier.invalidateRangeEnd(range)
      }
      return mapPageCacheHugePage(head, at: address, area: area, notifier: &notifier)
    }
    // `retract_page_tables`: a private mapping that was written keeps its pages, and a range without a table gets none.
    let block = granule.block(of: address)
    guard area.anonymousFamily == nil, process.directory[block] != nil else {
      return .ends(.invalidArgument)
    }
    return mapPageCacheHugePage(head, at: address, area: area, notifier: &notifier)
  }

  /// `try_to_unmap` of a page of the page cache in each process. The MMU notifiers are called for the VMM's area, although a private
  /// one may have a copy there. They are not called if the page has no mapping any more when the walk over the file's areas gets there
  /// (`rmap_walk_file`).
  private mutating func unmapEverywhere(
    _ frame: PhysicalAddress, at address: HostVirtualAddress, notifier: inout some MMUNotifier
  ) {
    guard let head = physical.folio(of: frame), physical[folio: head].mappings > 0 else { return }
    if let area = area(at: address), area.file == .temporary,
      process.entries[granule.page(of: address)]?.frame == frame
        || children.contains(where: { $0.isMapped(frame, at: address, behind: area, granule) })
    {
      let page = granule.page(of: address)
      notifier.invalidateRangeStart(address..<address + pageSize)
      if process.entries[page]?.frame == frame { removeEntry(at: page) }
      notifier.invalidateRangeEnd(address..<address + pageSize)
    }
    for child in children.indices {
      for (page, entry) in children[child].entries where entry.frame == frame {
        children[child].entries[page] = nil
        release(entry)
      }
    }
  }

  /// `collapse_pte_mapped_thp`
  private mutating func mapPageCacheHugePage(
    _ head: PhysicalAddress, at address: HostVirtualAddress, area: MemoryArea,
    notifier: inout some MMUNotifier
  ) -> Outcome {
    let block = granule.block(of: address)
    if kernel.mapsCollapsedFileAlways,
      !process.hasDirectory(for: address, granule: granule)
    {
      return .goesOn(.invalidArgument)
    }
    switch process.directory[block] {
    case .block: return .succeeded
    case nil: break
    case .table:
      let range = address..<address + hugePageSize
      let pages = pages(in: range)
      let areAllOfIt = pages.allSatisfy { page in
        process.entries[page]?.frame == head + (granule.address(ofPage: page) - address)
      }
      guard areAllOfIt else { return .ends(.invalidArgument) }
      // `collapse_and_free_pmd`
      for page in pages { removeEntry(at: page) }
      notifier.invalidateRangeStart(range)
      process.directory[block] = nil
      notifier.invalidateRangeEnd(range)
    }
    // `set_huge_pmd`
    let isMapped = mapCachedHugePage(at: address, frame: head, for: .read, area: area)
    return isMapped ? .succeeded : .ends(.invalidArgument)
  }
}

extension AddressSpace {
  /// Whether a child maps a page of the file, in an area that the file's tree has behind the VMM's. The copy of an area by fork(2) is
  /// behind it, until the VMM's area changes.
  fileprivate func isMapped(
    _ frame: PhysicalAddress, at address: HostVirtualAddress, behind area: MemoryArea,
    _ granule: Granule
  ) -> Bool {
    guard entries[granule.page(of: address)]?.frame == frame,
      let start = fileRanges.first(where: { $0.contains(address) })?.lowerBound
    else { return false }
    return start > area.start || start == area.start && areaChanges >= area.insertion
  }
}
