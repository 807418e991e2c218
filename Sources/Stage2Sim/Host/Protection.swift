/// The protection of mprotect(2).
public enum MemoryProtection: String, CaseIterable, Sendable {
  /// `PROT_NONE`
  case none
  /// `PROT_READ`
  case readOnly = "ro"
  /// `PROT_READ | PROT_WRITE`
  case readWrite = "rw"

  var flags: MemoryArea.Flags {
    switch self {
    case .none: []
    case .readOnly: [.read]
    case .readWrite: [.read, .write]
    }
  }
}

/// mm/mprotect.c and mm/mmap.c.
extension HostMemory {
  /// mprotect(2): `do_mprotect_pkey`.
  ///
  /// - Throws: `ENOMEM` if a part of the memory is not there, `EINVAL` inside a hugetlb page. The part before the error is
  ///   done.
  mutating func protect(
    _ range: Range<HostVirtualAddress>, _ protection: MemoryProtection,
    notifier: inout some MMUNotifier
  ) throws(KernelError) {
    let end = try wholePages(range).upperBound
    var start = range.lowerBound
    while start < end {
      guard let index = firstArea(endingAfter: start), areas[index].start <= start else {
        throw .outOfMemory
      }
      let part = start..<min(areas[index].end, end)
      var flags = areas[index].flags.subtracting(MemoryArea.Flags.protection)
        .union(protection.flags)
      start = part.upperBound
      // `mprotect_fixup`
      guard flags != areas[index].flags else { continue }
      if kernel.releasesAccountOfUntouchedMemory {
        if flags.contains(.write) {
          if areas[index].flags.isDisjoint(with: [.write, .hugetlb, .shared, .noReserve]) {
            flags.insert(.accounted)
          }
        } else if areas[index].isAnonymous, areas[index].anonymousFamily == nil {
          flags.remove(.accounted)
        }
      }
      let changed = try updateFlags(of: index, in: part, to: flags, notifier: &notifier)
      changeProtection(part, area: areas[changed], notifier: &notifier)
      start = max(start, areas[changed].end)
    }
  }

  /// `change_protection`
  private mutating func changeProtection(
    _ range: Range<HostVirtualAddress>, area: MemoryArea, notifier: inout some MMUNotifier
  ) {
    if area.flags.contains(.hugetlb) {
      // `hugetlb_change_protection`: a private page is not writable before it is written.
      notifier.invalidateRangeStart(range)
      for block in process.blocks(in: range, granule: granule) {
        process[block: block]?.isWritable = false
      }
      notifier.invalidateRangeEnd(range)
      return
    }
    let reach = granule.size(level: 1)
    if kernel.protectsInOneNotification {
      // `change_pud_range`
      var start = range.lowerBound
      while start < range.upperBound, !process.hasDirectory(for: start, granule: granule) {
        start = start.aligned(to: reach) + reach
      }
      guard start < range.upperBound else { return }
      notifier.invalidateRangeStart(start..<range.upperBound)
      changeEntries(start..<range.upperBound, area: area, notifier: &notifier)
      notifier.invalidateRangeEnd(start..<range.upperBound)
      return
    }
    // Each table of level 1 has a notification of its own.
    var start = range.lowerBound
    while start < range.upperBound {
      let end = min(range.upperBound, start.aligned(to: reach) + reach)
      changeProtectionInDirectory(start..<end, area: area, notifier: &notifier)
      start = end
    }
  }

  /// `change_pmd_range`
  private mutating func changeProtectionInDirectory(
    _ range: Range<HostVirtualAddress>, area: MemoryArea, notifier: inout some MMUNotifier
  ) {
    guard let first = process.blocks(in: range, granule: granule).first else { return }
    // From the first entry that has something, to the end.
    let notified = part(of: range, in: first).lowerBound..<range.upperBound
    notifier.invalidateRangeStart(notified)
    changeEntries(range, area: area, notifier: &notifier)
    notifier.invalidateRangeEnd(notified)
  }

  /// `change_huge_pmd`, `change_pte_range`
  private mutating func changeEntries(
    _ range: Range<HostVirtualAddress>, area: MemoryArea, notifier: inout some MMUNotifier
  ) {
    let isSharedWritable = !area.isPrivate && area.flags.contains(.write)
    for block in process.blocks(in: range, granule: granule) {
      let part = part(of: range, in: block)
      if process[block: block] != nil {
        if part.size == hugePageSize, let entry = process[block: block] {
          let canBeWritten =
            isSharedWritable || !kernel.needsDirtyPageToMakeWritable && canWrite(entry, area: area)
          process[block: block]?.isWritable = canBeWritten
          continue
        }
        splitHugePMD(at: part.lowerBound, in: area, notifier: &notifier)
      }
      // `change_pte_range`
      for page in pages(in: part) {
        guard var entry = process.entries[page] else { continue }
        entry.isWritable = isSharedWritable || canWrite(entry, area: area)
        process.entries[page] = entry
      }
      if kernel.hasContiguousEntries {
        process.refold(
          pages: granule.page(of: part.lowerBound)..<granule.page(of: part.upperBound),
          granule: granule)
      }
    }
  }

  /// `can_change_pte_writable`, `can_change_pmd_writable`: whether a private page needs no write fault to be writable again.
  private func canWrite(_ entry: HostEntry, area: MemoryArea) -> Bool {
    guard area.isPrivate, area.flags.contains(.write), entry.isExclusive,
      entry.isDirty || !kernel.needsDirtyPageToMakeWritable,
      let head = physical.folio(of: entry.frame)
    else { return false }
    return physical[folio: head].isAnonymous
  }

  /// munmap(2): `do_mas_align_munmap`.
  ///
  /// - Throws: `EINVAL` inside a hugetlb page.
  mutating func unmap(
    _ range: Range<HostVirtualAddress>, notifier: inout some MMUNotifier
  ) throws(KernelError) {
    let range = try wholePages(range)
    guard !range.isEmpty, var first = firstArea(endingAfter: range.lowerBound),
      areas[first].start < range.upperBound
    else { return }
    if areas[first].start < range.lowerBound {
      try splitArea(first, at: range.lowerBound, newBelow: false, notifier: &notifier)
      first += 1
    }
    var end = first
    while areas.indices.contains(end), areas[end].start < range.upperBound {
      if areas[end].end > range.upperBound {
        try splitArea(end, at: range.upperBound, newBelow: true, notifier: &notifier)
      }
      end += 1
    }
    let gone = Array(areas[first..<end])
    areas.removeSubrange(first..<end)
    unmapRegion(range, areas: gone, next: first, notifier: &notifier)
  }

  /// `unmap_region`: the pages of `areas`, and the tables that no other area needs.
  private mutating func unmapRegion(
    _ range: Range<HostVirtualAddress>, areas gone: [MemoryArea], next: Int,
    notifier: inout some MMUNotifier
  ) {
    if kernel.drainsLRUAtUnmapping { physical.drainLRU() }
    // `unmap_vmas`
    notifier.invalidateRangeStart(range)
    for area in gone {
      zap(range.clamped(to: area.start..<area.end), area: area, notifier: &notifier)
    }
    notifier.invalidateRangeEnd(range)
    // `free_pgtables`
    let floor = next > 0 ? areas[next - 1].end : 0
    let ceiling = areas.indices.contains(next) ? areas[next].start : HostVirtualAddress(.max)
    for block in process.blocks(in: range, granule: granule) {
      let start = granule.address(ofBlock: block)
      guard case .table = process.directory[block], start >= floor,
        start + hugePageSize <= ceiling
      else { continue }
      process.directory[block] = nil
    }
  }

  /// mmap(2) of anonymous memory at a fixed address: `mmap_region`. The memory that was there goes.
  ///
  /// - Throws: `ENOMEM` inside a hugetlb page, and if there are as many areas as allowed.
  mutating func map(
    _ range: Range<HostVirtualAddress>, notifier: inout some MMUNotifier
  ) throws(KernelError) {
    let range = try wholePages(range)
    guard !range.isEmpty else { throw .invalidArgument }
    guard areas.count < kernel.mostAreas else { throw .outOfMemory }
    do {
      try unmap(range, notifier: &notifier)
    } catch {
      throw kernel.mapReturnsErrorOfUnmapping ? error : .outOfMemory
    }
    let new = MemoryArea(
      start: range.lowerBound, end: range.upperBound, flags: [.read, .write, .accounted])
    let next = areas.partitioningIndex { $0.start >= range.upperBound }
    if kernel.mergesNewAreaByMerge {
      let merged = mergeAreas(
        previous: next > 0 ? next - 1 : nil, range, flags: new.flags, family: nil, file: nil,
        notifier: &notifier)
      if merged == nil { areas.insert(new, at: next) }
      return
    }
    var taker: Int?
    var bounds = range
    if areas.indices.contains(next), areas[next].start == range.upperBound,
      canMerge(areas[next], flags: new.flags, family: nil, file: nil)
    {
      taker = next
      bounds = bounds.lowerBound..<areas[next].end
    }
    let family = taker.flatMap { areas[$0].anonymousFamily }
    if next > 0, areas[next - 1].end == range.lowerBound,
      canMerge(
        areas[next - 1], flags: new.flags, family: kernel.joinsAreaBelowFirst ? nil : family,
        file: nil)
    {
      if kernel.joinsAreaBelowFirst,
        !areFamiliesMergeable(areas[next - 1].anonymousFamily, family, of: nil)
      {
        bounds = range
      }
      taker = next - 1
      bounds = areas[next - 1].start..<bounds.upperBound
    }
    guard let taker else {
      areas.insert(new, at: next)
      return
    }
    // `vma_expand`
    let old = areas[taker]
    splitHugePageIfNeeded(of: old, at: bounds.lowerBound, notifier: &notifier)
    splitHugePageIfNeeded(of: old, at: bounds.upperBound, notifier: &notifier)
    areas[taker].start = bounds.lowerBound
    areas[taker].end = bounds.upperBound
    if taker == next - 1, bounds.upperBound > range.upperBound {
      areas[taker].anonymousFamily = old.anonymousFamily ?? areas[next].anonymousFamily
      areas.remove(at: next)
    }
  }
}
