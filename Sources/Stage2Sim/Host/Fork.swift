extension HostMemory {
  /// fork(2): a child that shares the VMM's pages (`dup_mmap`, `copy_page_range`).
  ///
  /// - Throws: `EAGAIN` if there are as many children as allowed, `ENOMEM` if there is no room for the page tables of another.
  mutating func fork(notifier: inout some MMUNotifier) throws(KernelError) {
    guard children.count < HostLimits.children else { throw .tryAgain }
    try checkRoom(forTables: process.directory.count)
    var child = AddressSpace()
    // `vma_needs_copy`: the child's own faults find the pages of an area without anonymous pages.
    let copied = areas.filter {
      $0.flags.isDisjoint(with: [.dontFork, .wipeOnFork]) && $0.anonymousFamily != nil
    }
    for area in copied {
      let range = area.start..<area.end
      if area.isPrivate { notifier.invalidateRangeStart(range) }
      for block in process.blocks(in: range, granule: granule) {
        copy(block, of: area, to: &child)
      }
      if area.isPrivate { notifier.invalidateRangeEnd(range) }
    }
    child.mergeable = copied.filter { $0.flags.contains(.mergeable) }.map { $0.start..<$0.end }
    child.fileRanges = copied.filter { $0.file == .temporary }.map { $0.start..<$0.end }
    child.areaChanges = areaChanges
    child.hasMergeableAreas = areas.contains {
      $0.flags.contains(.mergeable) && !$0.flags.contains(.dontFork)
    }
    children.append(child)
    if ksm.slots.contains(where: { $0.process == 0 }) { ksm.enter(process: children.count) }
    physical.copyPagesOfVMM()
  }

  /// `copy_pmd_range`
  private mutating func copy(_ block: UInt64, of area: MemoryArea, to child: inout AddressSpace) {
    switch process.directory[block] {
    case nil: break
    case .block(let entry):
      // `copy_huge_pmd`: entries that faults can fill in are left out.
      guard area.isAnonymous || area.flags.contains(.hugetlb) else { return }
      let shared = share(entry, area: area)
      process[block: block] = shared
      child.directory[block] = .block(shared)
    case .table:
      child.directory[block] = .table
      for page in pages(in: part(of: area.start..<area.end, in: block)) {
        guard let entry = process.entries[page] else { continue }
        let shared = share(entry, area: area)
        process.entries[page] = shared
        child.entries[page] = shared
      }
    }
  }

  /// `copy_present_pte`: both sides may only read private pages.
  private mutating func share(_ entry: HostEntry, area: MemoryArea) -> HostEntry {
    physical.retain(entry.frame)
    guard area.isPrivate else { return entry }
    var entry = entry
    entry.isWritable = false
    entry.isExclusive = false
    return entry
  }

  /// Releases the pages that an ended process has mapped in the area of one directory entry.
  private mutating func release(pagesOf block: UInt64, of process: AddressSpace) {
    let perBlock = granule.blockSize / granule.pageSize
    for page in block * perBlock..<(block + 1) * perBlock {
      if let entry = process.entries[page] { release(entry) }
    }
  }

  /// The last child's end.
  ///
  /// - Returns: False if there is none.
  mutating func endFork() -> Bool {
    ksm.exit(process: children.count)
    guard let child = children.popLast() else { return false }
    if kernel.drainsLRUAtUnmapping { physical.drainLRU() }
    // `unmap_vmas`: in the order of addresses, in which the pages become free.
    for (block, what) in child.directory.sorted(by: { $0.key < $1.key }) {
      if case .block(let entry) = what {
        release(entry)
      } else {
        release(pagesOf: block, of: child)
      }
    }
    return true
  }
}
