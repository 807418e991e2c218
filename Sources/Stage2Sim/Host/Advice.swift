/// The advice of madvise(2). Advice without an effect on KVM's mappings is not in the model.
public enum MemoryAdvice: String, CaseIterable, Sendable {
  /// `MADV_DONTNEED`: the pages go; the next access finds zeros, or the file.
  case dontNeed = "dontneed"
  /// `MADV_FREE`: the pages may go when memory is short. `EINVAL` for memory that is not anonymous.
  case free
  /// `MADV_HUGEPAGE`: transparent huge pages, please.
  case hugePage = "hugepage"
  /// `MADV_NOHUGEPAGE`
  case noHugePage = "nohugepage"
  /// `MADV_COLLAPSE`: makes huge pages of the pages that are there, at once.
  case collapse
  /// `MADV_MERGEABLE`: KSM may merge the pages with equal ones.
  case mergeable
  /// `MADV_UNMERGEABLE`: undoes that advice, and the merges.
  case unmergeable
  /// `MADV_WIPEONFORK`: a child finds zeros. `EINVAL` for memory that is not private and anonymous.
  case wipeOnFork = "wipeonfork"
  /// `MADV_KEEPONFORK`: undoes that.
  case keepOnFork = "keeponfork"
  /// `MADV_POPULATE_READ`: faults the pages in, as loads do.
  case populateRead = "populate-read"
  /// `MADV_POPULATE_WRITE`: the same, as stores do.
  case populateWrite = "populate-write"
}

extension HostMemory {
  /// madvise(2): `do_madvise`, `madvise_walk_vmas` (mm/madvise.c).
  ///
  /// - Throws: `EINVAL` if the memory does not support the advice, `ENOMEM` if a part of it is not there; `EFAULT`,
  ///   `EAGAIN`. The part before the error is done.
  mutating func advise(
    _ advice: MemoryAdvice, _ range: Range<HostVirtualAddress>, notifier: inout some MMUNotifier
  ) throws(KernelError) {
    guard kernel.knows(advice) else { throw .invalidArgument }
    let end = try wholePages(range).upperBound
    if kernel.populateEndsAtHole, advice == .populateRead || advice == .populateWrite {
      try populate(
        range.lowerBound..<end, for: advice == .populateWrite ? .write : .read, notifier: &notifier)
      return
    }
    var start = range.lowerBound
    var isHole = false
    while start < end {
      guard let index = firstArea(endingAfter: start) else { throw .outOfMemory }
      if start < areas[index].start {
        isHole = true
        start = areas[index].start
        guard start < end else { break }
      }
      let part = start..<min(areas[index].end, end)
      let done = try advise(advice, part, area: index, notifier: &notifier)
      start = max(part.upperBound, done.map { areas[$0].end } ?? 0)
    }
    if isHole { throw .outOfMemory }
  }

  /// `madvise_vma_behavior`: one area, or a part of one.
  ///
  /// - Returns: The area that holds the range afterwards, if the area may reach further than the range.
  private mutating func advise(
    _ advice: MemoryAdvice, _ range: Range<HostVirtualAddress>, area index: Int,
    notifier: inout some MMUNotifier
  ) throws(KernelError) -> Int? {
    let area = areas[index]
    var flags = area.flags
    switch advice {
    case .dontNeed:
      try discard(range, area: area, notifier: &notifier)
      return nil
    case .free:
      try freeLazily(range, area: area, notifier: &notifier)
      return nil
    case .populateRead, .populateWrite:
      try populate(
        range, area: area, for: advice == .populateWrite ? .write : .read, notifier: &notifier)
      return nil
    case .collapse:
      try collapse(range, area: area, notifier: &notifier)
      return nil
    case .wipeOnFork:
      guard area.isAnonymous, area.isPrivate else { throw .invalidArgument }
      flags.insert(.wipeOnFork)
    case .keepOnFork: flags.remove(.wipeOnFork)
    case .mergeable:
      // `ksm_madvise`: memory that cannot be merged ignores the advice.
      if flags.isDisjoint(with: [.shared, .hugetlb]) {
        flags.insert(.mergeable)
        ksm.enter(process: 0)
      }
    case .unmergeable:
      if flags.contains(.mergeable) {
        for page in pages(in: range) { unmergePage(page, notifier: &notifier) }
        flags.remove(.mergeable)
      }
    case .hugePage:
      // `hugepage_madvise`
      flags.remove(.noHugePage)
      flags.insert(.hugePage)
    case .noHugePage:
      flags.remove(.hugePage)
      flags.insert(.noHugePage)
    }
    return try updateFlags(of: index, in: range, to: flags, notifier: &notifier)
  }

  /// `madvise_update_vma`, and the same in `mprotect_fixup`: gives a part of an area other flags, with a neighbour that
  /// has them already, or as an area of its own.
  ///
  /// - Returns: The area that holds the range then.
  mutating func updateFlags(
    of index: Int, in range: Range<HostVirtualAddress>, to flags: MemoryArea.Flags,
    notifier: inout some MMUNotifier
  ) throws(KernelError) -> Int {
    let area = areas[index]
    guard flags != area.flags else { return index }
    let previous = range.lowerBound > area.start ? index : index > 0 ? index - 1 : nil
    if let merged = mergeAreas(
      previous: previous, range, flags: flags, family: area.anonymousFamily, file: area.file,
      notifier: &notifier)
    {
      return merged
    }
    var index = index
    if range.lowerBound != area.start {
      try splitArea(index, at: range.lowerBound, newBelow: true, notifier: &notifier)
      index += 1
    }
    if range.upperBound != area.end {
      try splitArea(index, at: range.upperBound, newBelow: false, notifier: &notifier)
    }
    areas[index].flags = flags
    return index
  }

  /// The pages in `range` that something is mapped at, in order.
  func pages(in range: Range<HostVirtualAddress>) -> [UInt64] {
    var found: [UInt64] = []
    let perBlock = UInt64(granule.shift(level: 2) - granule.pageShift)
    for block in process.blocks(in: range, granule: granule) {
      guard case .table = process.directory[block] else { continue }
      for page in block << perBlock..<(block + 1) << perBlock
      where range.contains(granule.address(ofPage: page)) && process.entries[page] != nil {
        found.append(page)
      }
    }
    return found
  }

  /// The part of `range` that the huge page `block` has.
  func part(
    of range: Range<HostVirtualAddress>, in block: UInt64
  ) -> Range<HostVirtualAddress> {
    let start = granule.address(ofBlock: block)
    return range.clamped(to: start..<start + hugePageSize)
  }
}

// MARK: - Giving memory back

extension HostMemory {
  /// `madvise_dontneed_single_vma`
  private mutating func discard(
    _ range: Range<HostVirtualAddress>, area: MemoryArea, notifier: inout some MMUNotifier
  ) throws(KernelError) {
    var range = range
    if area.flags.contains(.hugetlb) {
      // `madvise_dontneed_free_valid_vma`
      guard kernel.discardsHugetlb else { throw .invalidArgument }
      guard range.lowerBound.isAligned(to: hugePageSize) else { throw .invalidArgument }
      range = range.lowerBound..<range.upperBound.aligned(to: hugePageSize)
      guard !range.isEmpty else { return }
    }
    if kernel.drainsLRUAtUnmapping { physical.drainLRU() }
    notifier.invalidateRangeStart(range)
    zap(range, area: area, reclaimingTables: kernel.reclaimsTables, notifier: &notifier)
    notifier.invalidateRangeEnd(range)
  }

  /// `unmap_single_vma`: the entries go, and the pages that only these entries held.
  ///
  /// - Parameter reclaimingTables: Whether a table goes, too, if the range has all its entries
  ///   (`pte_table_reclaim_possible`). Otherwise, tables stay.
  mutating func zap(
    _ range: Range<HostVirtualAddress>, area: MemoryArea, reclaimingTables: Bool = false,
    notifier: inout some MMUNotifier
  ) {
    if area.flags.contains(.hugetlb) {
      // `__unmap_hugepage_range`
      if kernel.notifiesOfHugetlbAreas { notifier.invalidateRangeStart(range) }
      for block in process.blocks(in: range, granule: granule) { removeBlock(block) }
      if kernel.notifiesOfHugetlbAreas { notifier.invalidateRangeEnd(range) }
      return
    }
    for block in process.blocks(in: range, granule: granule) {
      let part = part(of: range, in: block)
      if process[block: block] != nil {
        if part.size == hugePageSize {
          removeBlock(block)
          continue
        }
        splitHugePMD(at: part.lowerBound, in: area, notifier: &notifier)
      }
      for page in pages(in: part) { removeEntry(at: page) }
      if reclaimingTables, part.size == hugePageSize { process.directory[block] = nil }
    }
  }

  private mutating func removeBlock(_ block: UInt64) {
    guard let entry = process[block: block] else { return }
    process.directory[block] = nil
    release(entry)
  }

  /// `madvise_free_single_vma`: pages may go when memory is short, which it never is. They are clean from now on.
  private mutating func freeLazily(
    _ range: Range<HostVirtualAddress>, area: MemoryArea, notifier: inout some MMUNotifier
  ) throws(KernelError) {
    guard area.isAnonymous else { throw .invalidArgument }
    physical.drainLRU()
    notifier.invalidateRangeStart(range)
    defer { notifier.invalidateRangeEnd(range) }
    for block in process.blocks(in: range, granule: granule) {
      let part = part(of: range, in: block)
      if var entry = process[block: block] {
        // `madvise_free_huge_pmd`
        guard let head = physical.folio(of: entry.frame) else { continue }
        if physical[folio: head].mappings == 1 {
          if part.size == hugePageSize {
            entry.isDirty = false
            physical[folio: head].isDirty = false
            process[block: block] = entry
          } else {
            splitFolio(head, notifier: &notifier)
          }
        }
      }
      freePagesLazily(part, notifier: &notifier)
    }
  }

  /// `madvise_free_pte_range`
  private mutating func freePagesLazily(
    _ range: Range<HostVirtualAddress>, notifier: inout some MMUNotifier
  ) {
    // The pages before it belong to a huge page that was dealt with.
    var firstAfterFolio: UInt64 = 0
    for page in pages(in: range) {
      guard let entry = process.entries[page], let head = physical.folio(of: entry.frame) else {
        continue
      }
      if kernel.freesHugePagesWhole, physical[folio: head].size > pageSize {
        if page < firstAfterFolio { continue }
        // `madvise_folio_pte_batch`
        let first = page - (entry.frame - head) / pageSize
        let count = hugePageSize / pageSize
        let rest = pages(in: part(ofPages: page..<first + count, in: range))
        let batch = zip(rest, page...).prefix {
          $0 == $1 && process.entries[$0]?.frame == head + ($0 - first) * pageSize
        }.count
        if batch < count || !process.isFoldedAlike(pages: first..<first + count, granule: granule) {
          if isLikelyShared(head) {
            firstAfterFolio = page + UInt64(batch)
            continue
          }
          splitFolio(head, notifier: &notifier)
        } else {
          firstAfterFolio = page + count
          if physical[folio: head].isDirty {
            guard physical[folio: head].mappings == count else { continue }
            physical[folio: head].isDirty = false
          }
          for page in rest { process.entries[page]?.isDirty = false }
          continue
        }
      } else if physical[folio: head].size > pageSize {
        guard mappingCount(of: kernel.estimatesSharersOfHugePages ? head : entry.frame) == 1 else {
          return
        }
        splitFolio(head, notifier: &notifier)
      }
      // The zero page may have taken the place of the page.
      guard process.entries[page]?.frame == entry.frame,
        let folio = physical.folio(of: entry.frame)
      else { continue }
      if physical[folio: folio].isDirty {
        guard physical[folio: folio].mappings == 1 else { continue }
        physical[folio: folio].isDirty = false
      }
      process.entries[page]?.isDirty = false
      physical.freeLazily(folio)
    }
  }

  private func part(
    ofPages pages: Range<UInt64>, in range: Range<HostVirtualAddress>
  ) -> Range<HostVirtualAddress> {
    range.clamped(
      to: granule.address(ofPage: pages.lowerBound)..<granule.address(ofPage: pages.upperBound))
  }

  /// `folio_likely_mapped_shared` of a huge page, in 7.3 `folio_maybe_mapped_shared`: whether more than one process seems to map it.
  private func isLikelyShared(_ head: PhysicalAddress) -> Bool {
    let mappings = physical[folio: head].mappings
    guard mappings > 1 else { return false }
    if kernel.knowsProcessesOfHugePages { return isShared(head) }
    if mappings > hugePageSize / pageSize { return true }
    let isMappedWhole = ([process] + children).contains { space in
      space.directory.values.contains {
        if case .block(let entry) = $0 { entry.frame == head } else { false }
      }
    }
    return isMappedWhole || mappingCount(of: head) > 1
  }

  /// `page_mapcount`: how many entries map the page at `frame`, alone or with its huge page.
  func mappingCount(of frame: PhysicalAddress) -> Int {
    let head = physical.folio(of: frame)
    return ([process] + children).reduce(0) { sum, space in
      sum + space.entries.values.count { $0.frame == frame }
        + space.directory.values.count {
          if case .block(let entry) = $0 { entry.frame == head } else { false }
        }
    }
  }

  /// `madvise_populate` since 6.9: over areas, up to the first hole.
  private mutating func populate(
    _ range: Range<HostVirtualAddress>, for access: HostAccess, notifier: inout some MMUNotifier
  ) throws(KernelError) {
    defer { physical.drainLRU() }
    var start = range.lowerBound
    while start < range.upperBound {
      guard let area = area(at: start) else { throw .outOfMemory }
      let end = min(area.end, range.upperBound)
      try populate(start..<end, area: area, for: access, notifier: &notifier)
      start = end
    }
  }

  /// `madvise_populate` of one area.
  private mutating func populate(
    _ range: Range<HostVirtualAddress>, area: MemoryArea, for access: HostAccess,
    notifier: inout some MMUNotifier
  ) throws(KernelError) {
    guard area.flags.contains(access == .write ? .write : .read) else { throw .invalidArgument }
    // `faultin_vma_page_range`. Since 6.9, `faultin_page_range` does this after the last area.
    defer { if !kernel.populateEndsAtHole { physical.drainLRU() } }
    for address in stride(from: range.lowerBound, to: range.upperBound, by: Int(pageSize)) {
      guard checkpoint?.passes() ?? true else { throw .interrupted }
      try makeAccessible(address, for: access, notifier: &notifier)
      markAccessed(address)
      if access == .write, let place = physicalAddress(of: address) {
        setDirty(place.aligned(to: pageSize))
      }
    }
  }
}
