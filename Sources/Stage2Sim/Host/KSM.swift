/// Kernel samepage merging: mm/ksm.c.
struct KSM: Sendable {
  /// `struct ksm_rmap_item`: what KSM knows of a page's address.
  struct Item: Sendable {
    /// What the page held when it was last looked at (`oldchecksum`), in place of its checksum.
    var content: [UInt64: [UInt8]]?
    /// Merged with this page, by now or as the first (`STABLE_FLAG`).
    var stable: UInt64?
  }

  /// `MMF_VM_MERGEABLE`: the VMM has asked for it, and the scanner has not found it without such memory since.
  var isProcessMergeable = false
  /// By page number.
  var items: [UInt64: Item] = [:]
}

extension HostMemory {
  /// Lets the scanner go over all mergeable memory until nothing changes: four times.
  ///
  /// - Throws: `ETIMEDOUT` where there is none, so that no scan ever ends.
  mutating func scanForMerging(notifier: inout some MMUNotifier) throws(KernelError) {
    for _ in 0..<4 {
      guard ksm.isProcessMergeable else { throw .timedOut }
      guard areas.contains(where: { $0.flags.contains(.mergeable) }) else {
        ksm.isProcessMergeable = false
        continue
      }
      scanOnce(notifier: &notifier)
    }
  }

  /// `ksm_do_scan`, from the first page to the last.
  private mutating func scanOnce(notifier: inout some MMUNotifier) {
    physical.drainLRU()
    /// `root_unstable_tree`: pages of this scan that have not changed since the last.
    var unstable: [UInt64] = []
    var seen: Set<UInt64> = []
    for area in areas where area.flags.contains(.mergeable) && area.anonymousFamily != nil {
      for page in mappedPages(in: area) {
        seen.insert(page)
        mergePage(page, unstable: &unstable, notifier: &notifier)
      }
    }
    ksm.items = ksm.items.filter { seen.contains($0.key) }
  }

  /// The pages of `area` that are anonymous, by themselves or with a huge page.
  private func mappedPages(in area: MemoryArea) -> [UInt64] {
    let shift = UInt64(granule.pageShift)
    return (area.start >> shift..<area.end >> shift).filter { page in
      guard let frame = frame(of: page), let head = physical.folio(of: frame) else { return false }
      return physical[folio: head].isAnonymous
    }
  }

  private func frame(of page: UInt64) -> UInt64? {
    physicalAddress(of: page << UInt64(granule.pageShift))
  }

  /// `cmp_and_merge_page`
  private mutating func mergePage(
    _ page: UInt64, unstable: inout [UInt64], notifier: inout some MMUNotifier
  ) {
    guard let frame = frame(of: page), let head = physical.folio(of: frame) else { return }
    let isMerged = physical[folio: head].kind == .merged
    if isMerged, ksm.items[page]?.stable == frame { return }
    // `stable_tree_search`
    let stable =
      isMerged
      ? frame
      : physical.folios.keys.filter {
        physical[folio: $0].kind == .merged && physical.isEqual($0, frame)
      }.min()
    if let stable {
      unstable.removeAll { $0 == page }
      if merge(page, with: stable, notifier: &notifier) {
        ksm.items[page, default: KSM.Item()].stable = stable
      }
      return
    }
    let content = content(of: frame)
    guard ksm.items[page]?.content == content else {
      ksm.items[page] = KSM.Item(content: content)
      return
    }
    // `unstable_tree_search_insert`
    guard
      let other = unstable.first(where: { other in
        self.frame(of: other).map { $0 != frame && physical.isEqual($0, frame) } ?? false
      })
    else {
      unstable.append(page)
      return
    }
    mergeTwo(page, other, unstable: &unstable, notifier: &notifier)
  }

  /// `try_to_merge_two_pages`: the page that was found second becomes the merged one.
  private mutating func mergeTwo(
    _ page: UInt64, _ other: UInt64, unstable: inout [UInt64],
    notifier: inout some MMUNotifier
  ) {
    guard let frame = frame(of: page), let otherFrame = self.frame(of: other),
      let head = physical.folio(of: frame)
    else { return }
    if physical[folio: head].size > pageSize, physical.folio(of: otherFrame) == head {
      // Two pages of one huge page: the scanner's hold on both keeps it from being split before it lets go.
      splitFolio(head, notifier: &notifier)
      return
    }
    guard merge(page, with: nil, notifier: &notifier) else { return }
    ksm.items[page, default: KSM.Item()].stable = frame
    guard merge(other, with: frame, notifier: &notifier) else {
      unmergePage(page, notifier: &notifier)
      return
    }
    unstable.removeAll { $0 == other }
    ksm.items[other, default: KSM.Item()].stable = frame
  }

  /// `try_to_merge_one_page`: gives `page` the merged page, or makes its own one, where there is none yet.
  private mutating func merge(
    _ page: UInt64, with merged: UInt64?, notifier: inout some MMUNotifier
  ) -> Bool {
    guard let frame = frame(of: page) else { return false }
    if frame == merged { return true }
    if let head = physical.folio(of: frame), physical[folio: head].size > pageSize {
      splitFolio(head, notifier: &notifier)
    }
    writeProtect(page, notifier: &notifier)
    guard let entry = process.entries[page], let head = physical.folio(of: frame) else {
      return false
    }
    guard let merged else {
      physical[folio: head].kind = .merged
      physical[folio: head].isDirty = true
      return true
    }
    // `replace_page`
    let address = page << UInt64(granule.pageShift)
    notifier.invalidateRangeStart(address..<address + pageSize)
    physical.retain(merged)
    process.entries[page] = HostEntry(
      frame: merged, isWritable: false, isDirty: false, isExclusive: false)
    notifier.changePTE(address, frame: merged)
    release(entry)
    notifier.invalidateRangeEnd(address..<address + pageSize)
    return true
  }

  /// `write_protect_page`
  private mutating func writeProtect(_ page: UInt64, notifier: inout some MMUNotifier) {
    let address = page << UInt64(granule.pageShift)
    notifier.invalidateRangeStart(address..<address + pageSize)
    defer { notifier.invalidateRangeEnd(address..<address + pageSize) }
    guard var entry = process.entries[page],
      entry.isWritable || entry.isDirty || entry.isExclusive
    else { return }
    if entry.isDirty, let head = physical.folio(of: entry.frame) {
      physical[folio: head].isDirty = true
    }
    entry.isWritable = false
    entry.isDirty = false
    entry.isExclusive = false
    process.entries[page] = entry
    notifier.changePTE(address, frame: entry.frame)
  }

  /// What a page holds, without the pieces that are zeros.
  private func content(of frame: UInt64) -> [UInt64: [UInt8]] {
    guard let head = physical.folio(of: frame) else { return [:] }
    let offset = frame - head
    var content: [UInt64: [UInt8]] = [:]
    for (piece, bytes) in physical[folio: head].contents
    where piece >= offset && piece < offset + pageSize && bytes.contains(where: { $0 != 0 }) {
      content[piece - offset] = bytes
    }
    return content
  }
}
