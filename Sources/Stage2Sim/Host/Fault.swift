/// Page faults of the VMM: mm/memory.c, mm/huge_memory.c, mm/hugetlb.c, mm/gup.c.
extension HostMemory {
  /// Faults until an access to `address` succeeds, as the CPU or `__get_user_pages` does.
  ///
  /// - Throws: `EFAULT` if there is no memory, or if the access is not allowed; `ENOMEM` if hugetlb's pool or the host's memory
  ///   is used up.
  mutating func makeAccessible(
    _ address: HostVirtualAddress, for access: HostAccess, notifier: inout some MMUNotifier
  ) throws(KernelError) {
    guard let area = area(at: address),
      area.flags.contains(access == .write ? .write : .read)
    else { throw .badAddress }
    while !isAccessible(address, for: access) {
      try handleFault(at: address, for: access, notifier: &notifier)
    }
  }

  /// `follow_page_mask`: whether the page tables allow the access as they are.
  func isAccessible(_ address: HostVirtualAddress, for access: HostAccess) -> Bool {
    guard let (entry, _) = process.mapping(of: address, granule: granule) else { return false }
    return access == .read || entry.isWritable
  }

  /// A store through the entry for `address`. `get_user_pages` makes none: it marks the page, not the entry.
  mutating func markDirty(_ address: HostVirtualAddress) {
    let page = granule.page(of: address)
    let block = granule.block(of: address)
    if var entry = process[block: block] {
      entry.isDirty = true
      process[block: block] = entry
    } else {
      process.entries[page]?.isDirty = true
    }
  }

  /// `handle_mm_fault`
  ///
  /// - Throws: `ENOMEM` if the host has no more memory (``HostLimits``).
  mutating func handleFault(
    at address: HostVirtualAddress, for access: HostAccess, notifier: inout some MMUNotifier
  ) throws(KernelError) {
    guard let index = firstArea(endingAfter: address) else { throw .badAddress }
    let block = granule.block(of: address)
    guard hasFreePage else { throw .outOfMemory }
    if process.directory[block] == nil { try checkRoom(forTables: 1) }
    process.makeDirectory(for: address, granule: granule)
    if areas[index].flags.contains(.hugetlb) {
      try handleHugetlbFault(at: address, for: access, area: index, notifier: &notifier)
      return
    }
    switch process.directory[block] {
    case nil:
      // `hugepage_vma_check`: only areas with the advice get huge pages.
      if areas[index].isAnonymous, areas[index].flags.contains(.hugePage),
        areas[index].fits(hugePageAt: address, size: hugePageSize)
      {
        mapHugePage(block, for: access, area: index)
        return
      }
    case .block(let entry):
      guard access == .write, !entry.isWritable else { return }
      if kernel.replacesHugeZeroPage, physical.isZeroPage(entry.frame) {
        let range = granule.address(ofBlock: block)..<granule.address(ofBlock: block + 1)
        notifier.invalidateRangeStart(range)
        mapHugePage(block, for: .write, area: index)
        notifier.invalidateRangeEnd(range)
        return
      }
      if areas[index].isAnonymous, reuseHugePage(block, area: areas[index]) { return }
      splitHugePMD(at: address, in: areas[index], notifier: &notifier)
    case .table: break
    }
    handlePageFault(at: address, for: access, area: index, notifier: &notifier)
  }

  /// `do_huge_pmd_anonymous_page`
  private mutating func mapHugePage(_ block: UInt64, for access: HostAccess, area index: Int) {
    prepareAnonymousFamily(of: index)
    guard access == .write else {
      process[block: block] = HostEntry(
        frame: physical.hugeZeroPage, isWritable: false, isDirty: false, isExclusive: false)
      return
    }
    let frame = physical.allocate(.anonymous, size: hugePageSize)
    physical.retain(frame)
    process[block: block] = HostEntry(
      frame: frame, isWritable: areas[index].flags.contains(.write), isDirty: true,
      isExclusive: kernel.knowsExclusivePages)
  }

  /// `do_huge_pmd_wp_page`: false if another process shares the huge page.
  private mutating func reuseHugePage(_ block: UInt64, area: MemoryArea) -> Bool {
    guard var entry = process[block: block],
      let head = physical.folio(of: entry.frame)
    else { return false }
    guard entry.isExclusive || physical[folio: head].mappings == 1 else { return false }
    entry.isExclusive = kernel.knowsExclusivePages
    entry.isDirty = true
    entry.isWritable = area.flags.contains(.write)
    process[block: block] = entry
    return true
  }

  /// `handle_pte_fault`
  private mutating func handlePageFault(
    at address: HostVirtualAddress, for access: HostAccess, area index: Int,
    notifier: inout some MMUNotifier
  ) {
    let page = granule.page(of: address)
    guard process.entries[page] == nil else {
      if access == .write {
        handleWriteProtectionFault(at: address, area: index, notifier: &notifier)
      }
      return
    }
    if areas[index].isAnonymous {
      mapAnonymousPage(page, for: access, area: index)
    } else {
      mapFilePage(at: address, for: access, area: index)
    }
  }

  /// Makes a table for the block of `page`, if there is none yet (`pte_alloc`).
  private mutating func makeTable(for page: UInt64) {
    let block = page >> UInt64(granule.shift(level: 2) - granule.pageShift)
    if process.directory[block] == nil { process.directory[block] = .table }
  }

  /// `do_anonymous_page`
  private mutating func mapAnonymousPage(_ page: UInt64, for access: HostAccess, area index: Int) {
    makeTable(for: page)
    guard access == .write else {
      process.entries[page] = HostEntry(
        frame: PhysicalMemory.zeroPage, isWritable: false, isDirty: false, isExclusive: false)
      return
    }
    map(newPage(area: index), at: page, area: index)
  }

  /// A new anonymous page, which nothing maps yet.
  private mutating func newPage(area index: Int) -> PhysicalAddress {
    prepareAnonymousFamily(of: index)
    return physical.allocate(.anonymous, size: pageSize)
  }

  /// Maps a new page of the VMM's own.
  private mutating func map(_ frame: PhysicalAddress, at page: UInt64, area index: Int) {
    physical.retain(frame)
    process.entries[page] = HostEntry(
      frame: frame, isWritable: areas[index].flags.contains(.write), isDirty: true,
      isExclusive: kernel.knowsExclusivePages)
  }

  /// `do_wp_page`: a store to a page that is there and may not be written.
  private mutating func handleWriteProtectionFault(
    at address: HostVirtualAddress, area index: Int, notifier: inout some MMUNotifier
  ) {
    let page = granule.page(of: address)
    guard var entry = process.entries[page], !entry.isWritable else { return }
    let area = areas[index]
    if let head = physical.folio(of: entry.frame) {
      let isAnonymous = physical[folio: head].isAnonymous
      let isReusable =
        isAnonymous ? isReusable(entry, of: head) : !area.isPrivate
      if isReusable {
        // `wp_page_reuse`
        entry.isExclusive = isAnonymous && kernel.knowsExclusivePages
        entry.isDirty = true
        entry.isWritable = area.flags.contains(.write)
        process.entries[page] = entry
        if kernel.hasContiguousEntries { process.unfold(page: page, granule: granule) }
        return
      }
    }
    copyPage(page, area: index, notifier: &notifier)
  }

  /// Whether a store through an entry needs no copy of the anonymous page.
  private mutating func isReusable(_ entry: HostEntry, of head: PhysicalAddress) -> Bool {
    if kernel.knowsExclusivePages {
      if entry.isExclusive { return true }
      if physical[folio: head].size > pageSize {
        if kernel.knowsProcessesOfHugePages {
          // `__wp_can_reuse_large_anon_folio`
          return physical[folio: head].mappings > 1 && !isShared(head)
        }
        if kernel.copiesPagesOfHugePages { return false }
      }
      return isHeldByOneEntry(head)
    }
    let folio = physical[folio: head]
    return folio.kind == .anonymous && folio.mappings + physical.lru.holds(head) == 1
  }

  /// Whether one entry is the only holder of an anonymous page, after the LRU batches have released it.
  private mutating func isHeldByOneEntry(_ head: PhysicalAddress) -> Bool {
    let folio = physical[folio: head]
    let isListed = physical.lru.isListed(head)
    let most = kernel.mostHoldersOfReusedPage(isListed: isListed)
    guard folio.kind == .anonymous, folio.mappings + physical.lru.holds(head) <= most else {
      return false
    }
    if !isListed { physical.drainLRU() }
    return folio.mappings + physical.lru.holds(head) == 1
  }

  /// Whether more than one process maps a huge page or a page of it (`FOLIO_MM_IDS_SHARED_BITNUM`). The kernel knows two processes of
  /// a huge page. These are the VMM and the first child that maps the page, which is also the last one to end.
  func isShared(_ head: PhysicalAddress) -> Bool {
    let range = head..<head + physical[folio: head].size
    let count = ([process] + children).count { space in
      space.entries.values.contains { range.contains($0.frame) }
        || space.directory.values.contains {
          if case .block(let entry) = $0 { entry.frame == head } else { false }
        }
    }
    return count > 1
  }

  /// `wp_page_copy`
  private mutating func copyPage(
    _ page: UInt64, area index: Int, notifier: inout some MMUNotifier
  ) {
    guard let old = process.entries[page] else { return }
    let address = granule.address(ofPage: page)
    let frame = newPage(area: index)
    physical.copy(from: old.frame, to: frame, size: pageSize)
    notifier.invalidateRangeStart(address..<address + pageSize)
    map(frame, at: page, area: index)
    if let new = process.entries[page] { notifier.changePTE(address, frame: new.frame) }
    release(old)
    notifier.invalidateRangeEnd(address..<address + pageSize)
  }

  /// `break_ksm`: a page that was merged becomes the VMM's own again, whether or not it may write.
  mutating func unmergePage(_ page: UInt64, notifier: inout some MMUNotifier) {
    let address = granule.address(ofPage: page)
    guard let entry = process.entries[page], let head = physical.folio(of: entry.frame),
      physical[folio: head].kind == .merged, let index = firstArea(endingAfter: address)
    else { return }
    copyPage(page, area: index, notifier: &notifier)
    if kernel.unmergesForReading {
      // `wp_page_copy` with `FAULT_FLAG_UNSHARE`
      process.entries[page]?.isWritable = false
      process.entries[page]?.isDirty = false
    }
  }
}

// MARK: - Files

extension HostMemory {
  /// `do_fault`: a page of the file, or a copy of one.
  private mutating func mapFilePage(
    at address: HostVirtualAddress, for access: HostAccess, area index: Int
  ) {
    let area = areas[index]
    let page = granule.page(of: address)
    if access == .read, mapPagesAround(address, area: area) { return }
    if access == .write, area.isPrivate {
      // `do_cow_fault`: the new page comes before that of the file.
      makeTable(for: page)
      let frame = newPage(area: index)
      physical.copy(from: cachedPage(of: address), to: frame, size: pageSize)
      map(frame, at: page, area: index)
      return
    }
    let frame = cachedPage(of: address)
    // `finish_fault`
    if mapCachedHugePage(at: address, frame: frame, for: access, area: area) { return }
    makeTable(for: page)
    mapCachedPage(page, frame: frame, for: access, area: area)
  }

  /// The offset in the file that `address` maps, of its page.
  private func offset(of address: HostVirtualAddress) -> UInt64 {
    (address - fileStart) & ~(pageSize - 1)
  }

  /// `shmem_fault`: the page of the page cache. A hole in the file gets a new page.
  private mutating func cachedPage(of address: HostVirtualAddress) -> PhysicalAddress {
    let offset = offset(of: address)
    if let frame = pageCache[offset] { return frame }
    let frame = physical.allocate(.cached(offset: offset), size: pageSize)
    pageCache[offset] = frame
    return frame
  }

  /// `do_set_pte` for a page of the page cache. The protection of a shared writable area lets its pages be written at
  /// once, that of a private one never does.
  private mutating func mapCachedPage(
    _ page: UInt64, frame: PhysicalAddress, for access: HostAccess, area: MemoryArea
  ) {
    physical.retain(frame)
    process.entries[page] = HostEntry(
      frame: frame, isWritable: !area.isPrivate && area.flags.contains(.write),
      isDirty: access == .write, isExclusive: false)
  }

  /// `do_set_pmd`: the huge page of the page cache that `frame` is in, mapped as a whole.
  mutating func mapCachedHugePage(
    at address: HostVirtualAddress, frame: PhysicalAddress, for access: HostAccess, area: MemoryArea
  ) -> Bool {
    let block = granule.block(of: address)
    guard process.directory[block] == nil, let head = physical.folio(of: frame),
      physical[folio: head].size == hugePageSize,
      area.fits(hugePageAt: address, size: hugePageSize),
      !kernel.noHugePageIsForFiles || !area.flags.contains(.noHugePage)
    else { return false }
    physical.retain(head)
    process[block: block] = HostEntry(
      frame: head, isWritable: !area.isPrivate && area.flags.contains(.write),
      isDirty: access == .write, isExclusive: false)
    return true
  }

  /// `do_fault_around`, `filemap_map_pages`: maps the pages of the page cache near `address`.
  ///
  /// - Returns: Whether `address` is mapped now.
  private mutating func mapPagesAround(_ address: HostVirtualAddress, area: MemoryArea) -> Bool {
    let count = max(kernel.faultAroundSize / pageSize, 1)
    guard count > 1 else { return false }
    let start = max(address.aligned(to: count * pageSize), area.start)
    let tableEnd = start.aligned(to: hugePageSize) + hugePageSize
    let end = min(tableEnd, area.end, start + count * pageSize)
    var cached: [(address: HostVirtualAddress, frame: PhysicalAddress)] = []
    for here in stride(from: start, to: end, by: Int(pageSize)) {
      // `next_uptodate_page`
      guard let frame = pageCache[offset(of: here)], let head = physical.folio(of: frame),
        !physical[folio: head].isToBeReclaimed
      else { continue }
      cached.append((here, frame))
    }
    guard let first = cached.first else { return false }
    if mapCachedHugePage(at: first.address, frame: first.frame, for: .read, area: area) {
      return true
    }
    makeTable(for: granule.page(of: start))
    for (here, frame) in cached {
      let page = granule.page(of: here)
      guard process.entries[page] == nil else { continue }
      mapCachedPage(page, frame: frame, for: .read, area: area)
    }
    return process.entries[granule.page(of: address)] != nil
  }
}

// MARK: - Huge pages

extension HostMemory {
  /// `__split_huge_pmd`: the huge page at `address` is mapped by pages from now on. A huge page of the page cache is
  /// not mapped any more. The MMU notifiers are called before the kernel looks whether there is a huge page.
  mutating func splitHugePMD(
    at address: HostVirtualAddress, in area: MemoryArea, notifier: inout some MMUNotifier
  ) {
    let first = address.aligned(to: hugePageSize)
    notifier.invalidateRangeStart(first..<first + hugePageSize)
    splitHugePMDLocked(at: first, in: area)
    notifier.invalidateRangeEnd(first..<first + hugePageSize)
  }

  /// `__split_huge_pmd_locked`, in 7.3 `split_huge_pmd_locked`: the same after the MMU notifiers were called.
  private mutating func splitHugePMDLocked(at first: HostVirtualAddress, in area: MemoryArea) {
    let block = granule.block(of: first)
    guard let entry = process[block: block] else { return }
    guard area.isAnonymous else {
      process.directory[block] = nil
      release(entry)
      return
    }
    process.directory[block] = .table
    if kernel.hasContiguousEntries { process.foldPages(ofBlock: block, granule: granule) }
    let isZero = physical.isZeroPage(entry.frame)
    for offset in stride(from: 0, to: hugePageSize, by: Int(pageSize)) {
      let frame = isZero ? PhysicalMemory.zeroPage : entry.frame + offset
      physical.retain(frame)
      process.entries[granule.page(of: first + offset)] = HostEntry(
        frame: frame, isWritable: entry.isWritable,
        isDirty: entry.isDirty && kernel.keepsDirtyAtSplit, isExclusive: entry.isExclusive)
    }
    release(entry)
  }

  /// `split_huge_page`: the folio becomes pages. Its mappings go for that moment, so the MMU notifiers hear of each area
  /// that may map some of it.
  mutating func splitFolio(_ head: PhysicalAddress, notifier: inout some MMUNotifier) {
    let range = head..<head + hugePageSize
    if let address = address(of: head), let family = area(at: address.mapped)?.anonymousFamily {
      let place = address.first..<address.first + hugePageSize
      // `try_to_migrate_one`
      for area in areas where area.anonymousFamily == family {
        let part = place.clamped(to: area.start..<area.end)
        guard !part.isEmpty else { continue }
        if kernel.splitsBeforeMigration {
          splitHugePMD(at: place.lowerBound, in: area, notifier: &notifier)
        }
        notifier.invalidateRangeStart(part)
        splitHugePMDLocked(at: place.lowerBound, in: area)
        notifier.invalidateRangeEnd(part)
      }
    }
    for child in children.indices { children[child].splitBlock(of: head, granule: granule) }
    if kernel.mapsZerosToZeroPageAtSplit { replaceZeros(in: range) }
    var mappings: [PhysicalAddress: Int] = [:]
    for space in [process] + children {
      for entry in space.entries.values where range.contains(entry.frame) {
        mappings[entry.frame, default: 0] += 1
      }
    }
    physical.split(head) { mappings[$0] ?? 0 }
  }

  /// `try_to_map_unused_to_zeropage`: the zero page takes the place of pages in `range` that have only zeros.
  private mutating func replaceZeros(in range: Range<PhysicalAddress>) {
    func isOfZeros(_ entry: HostEntry) -> Bool {
      range.contains(entry.frame) && hasOnlyZeros(entry.frame)
    }
    let zero = HostEntry(
      frame: PhysicalMemory.zeroPage, isWritable: false, isDirty: false, isExclusive: false)
    for page in process.entries.filter({ isOfZeros($0.value) }).keys {
      process.entries[page] = zero
    }
    for child in children.indices {
      for page in children[child].entries.filter({ isOfZeros($0.value) }).keys {
        children[child].entries[page] = zero
      }
    }
  }

  /// Whether the page at `frame` has only zeros.
  private func hasOnlyZeros(_ frame: PhysicalAddress) -> Bool {
    guard let head = physical.folio(of: frame) else { return true }
    let contents = physical[folio: head].contents
    return stride(from: frame - head, to: frame - head + pageSize, by: Int(Folio.pieceSize))
      .allSatisfy { offset in contents[offset]?.allSatisfy { $0 == 0 } ?? true }
  }

  /// The address of the first byte of the huge page `head` in the VMM's memory, and an address at which a part of the page is
  /// mapped; nil if no part is mapped.
  private func address(of head: PhysicalAddress) -> (
    first: HostVirtualAddress, mapped: HostVirtualAddress
  )? {
    for (block, what) in process.directory {
      if case .block(let entry) = what, entry.frame == head {
        let address = granule.address(ofBlock: block)
        return (address, address)
      }
    }
    let range = head..<head + hugePageSize
    let mapped = process.entries.filter { range.contains($0.value.frame) }
    guard let (page, entry) = mapped.min(by: { $0.key < $1.key }) else { return nil }
    let address = granule.address(ofPage: page)
    return (address - (entry.frame - head), address)
  }

  /// `hugetlb_fault`
  private mutating func handleHugetlbFault(
    at address: HostVirtualAddress, for access: HostAccess, area index: Int,
    notifier: inout some MMUNotifier
  ) throws(KernelError) {
    let block = granule.block(of: address)
    if process.directory[block] == nil {
      // `hugetlb_no_page`: a private page is not writable before it is written.
      prepareAnonymousFamily(of: index)
      let frame = try allocateHugetlbPage()
      physical.retain(frame)
      process[block: block] = HostEntry(
        frame: frame, isWritable: false, isDirty: false, isExclusive: kernel.knowsExclusivePages)
    }
    guard access == .write, var entry = process[block: block], !entry.isWritable,
      let head = physical.folio(of: entry.frame)
    else { return }
    // `hugetlb_wp`
    entry.isDirty = true
    entry.isWritable = true
    entry.isExclusive = kernel.knowsExclusivePages
    guard physical[folio: head].mappings > 1 else {
      process[block: block] = entry
      return
    }
    let start = granule.address(ofBlock: block)
    let frame = try allocateHugetlbPage()
    notifier.invalidateRangeStart(start..<start + hugePageSize)
    physical.copy(from: entry.frame, to: frame, size: hugePageSize)
    physical.retain(frame)
    physical.release(entry.frame)
    entry.frame = frame
    process[block: block] = entry
    notifier.invalidateRangeEnd(start..<start + hugePageSize)
  }
}

extension AddressSpace {
  /// The huge page `head`, mapped by pages.
  mutating func splitBlock(of head: PhysicalAddress, granule: Granule) {
    let pages = UInt64(granule.shift(level: 2) - granule.pageShift)
    for (block, what) in directory {
      guard case .block(var entry) = what, entry.frame == head else { continue }
      directory[block] = .table
      for page in 0..<UInt64(granule.entriesPerTable) {
        entry.frame = head + page << UInt64(granule.pageShift)
        entries[block << pages + page] = entry
      }
    }
  }
}
