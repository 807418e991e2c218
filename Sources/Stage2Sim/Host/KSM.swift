/// Kernel samepage merging: mm/ksm.c, without its limit of 256 pages that share one (`max_page_sharing`).
struct KSM: Sendable {
  /// A page of a process.
  struct Place: Hashable, Sendable {
    /// 0 for the VMM, from 1 on for its children.
    let process: Int
    /// Address / page size.
    let page: UInt64
  }

  /// What a page holds, in pieces by their offset; those that are zeros are left out.
  typealias Content = [UInt64: [UInt8]]

  /// `struct ksm_rmap_item`: what KSM knows of a page of a process.
  struct Item: Sendable {
    /// What the page held when it was last looked at (`oldchecksum`), in place of its checksum.
    var content: Content?
    /// Merged with this page, by now or as the first (`STABLE_FLAG`).
    var stable: UInt64?
    /// When that was: what was merged later comes first in the page's list (`stable_tree_append`).
    var number = 0
  }

  /// `MMF_VM_MERGEABLE`: the VMM has asked for it, and the scanner has not found it without such memory since.
  var isProcessMergeable = false
  var items: [Place: Item] = [:]
  private var mergedPages = 0

  /// `stable_tree_append`
  mutating func append(_ place: Place, to stable: UInt64) {
    mergedPages += 1
    items[place, default: Item()].stable = stable
    items[place, default: Item()].number = mergedPages
  }

  /// What one scan finds.
  struct Scan {
    /// `root_stable_tree`: merged pages.
    var stable: [Content: UInt64] = [:]
    /// `root_unstable_tree`: pages that have not changed since the last scan.
    var unstable: [Content: Place] = [:]
    var seen: Set<Place> = []
  }
}

extension HostMemory {
  /// Lets the scanner go over all mergeable memory until nothing changes: four times.
  ///
  /// - Throws: `ETIMEDOUT` where there is none, so that no scan ever ends.
  mutating func scanForMerging(notifier: inout some MMUNotifier) throws(KernelError) {
    for _ in 0..<4 {
      guard ksm.isProcessMergeable || children.contains(where: { !$0.mergeable.isEmpty }) else {
        throw .timedOut
      }
      if !areas.contains(where: { $0.flags.contains(.mergeable) }) {
        ksm.isProcessMergeable = false
      }
      scanOnce(notifier: &notifier)
      if let checkpoint, checkpoint.isStopped { return }
    }
  }

  /// `ksm_do_scan`, from the first page of the first process to the last of the last.
  private mutating func scanOnce(notifier: inout some MMUNotifier) {
    physical.drainLRU()
    var scan = KSM.Scan()
    for (head, folio) in physical.folios where folio.kind == .merged {
      scan.stable[content(of: head)] = head
    }
    let own = areas.filter { $0.flags.contains(.mergeable) && $0.anonymousFamily != nil }
    let ranges = [own.map { $0.start..<$0.end }] + children.map(\.mergeable)
    for (process, ranges) in ranges.enumerated() {
      for place in ranges.flatMap({ mappedPages(of: process, in: $0) }) {
        scan.seen.insert(place)
        mergePage(place, &scan, notifier: &notifier)
      }
    }
    ksm.items = ksm.items.filter { scan.seen.contains($0.key) }
  }

  /// The page tables of the VMM, or of a child.
  private subscript(process number: Int) -> AddressSpace {
    get { number == 0 ? process : children[number - 1] }
    _modify {
      if number == 0 { yield &process } else { yield &children[number - 1] }
    }
  }

  /// The pages in `range` that are anonymous, by themselves or with a huge page.
  private func mappedPages(of process: Int, in range: Range<UInt64>) -> [KSM.Place] {
    let shift = UInt64(granule.pageShift)
    return self[process: process].blocks(in: range, granule: granule)
      .flatMap { block in
        let part = part(of: range, in: block)
        return part.lowerBound >> shift..<part.upperBound >> shift
      }
      .map { KSM.Place(process: process, page: $0) }
      .filter { place in
        guard let frame = frame(of: place), let head = physical.folio(of: frame) else {
          return false
        }
        return physical[folio: head].isAnonymous
      }
  }

  private func frame(of place: KSM.Place) -> UInt64? {
    self[process: place.process].physicalAddress(
      of: granule.address(ofPage: place.page), granule: granule)
  }

  /// `cmp_and_merge_page`
  private mutating func mergePage(
    _ place: KSM.Place, _ scan: inout KSM.Scan, notifier: inout some MMUNotifier
  ) {
    guard checkpoint?.passes() ?? true else { return }
    guard let frame = frame(of: place), let head = physical.folio(of: frame) else { return }
    let isMerged = physical[folio: head].kind == .merged
    if isMerged, ksm.items[place]?.stable == frame { return }
    let content = content(of: frame)
    // `stable_tree_search`
    let stable = isMerged ? frame : scan.stable[content]
    if let stable, physical.folios[stable]?.kind == .merged {
      if merge(place, with: stable, notifier: &notifier) {
        ksm.append(place, to: stable)
      }
      return
    }
    guard ksm.items[place]?.content == content else {
      ksm.items[place] = KSM.Item(content: content)
      return
    }
    // `unstable_tree_search_insert`
    guard let other = scan.unstable[content] else {
      scan.unstable[content] = place
      return
    }
    // The same page in two processes is not substituted for itself.
    guard self.frame(of: other) != frame else { return }
    if mergeTwo(place, other, notifier: &notifier) {
      scan.unstable[content] = nil
      scan.stable[content] = frame
    }
  }

  /// `try_to_merge_two_pages`: the page that was found second becomes the merged one.
  ///
  /// - Returns: False where they stay two.
  private mutating func mergeTwo(
    _ place: KSM.Place, _ other: KSM.Place, notifier: inout some MMUNotifier
  ) -> Bool {
    guard let frame = frame(of: place), let otherFrame = self.frame(of: other),
      let head = physical.folio(of: frame)
    else { return false }
    if physical[folio: head].size > pageSize, physical.folio(of: otherFrame) == head {
      // Two pages of one huge page: the scanner's hold on both keeps it from being split before it lets go.
      splitFolio(head, notifier: &notifier)
      return false
    }
    guard merge(place, with: nil, notifier: &notifier) else { return false }
    guard merge(other, with: frame, notifier: &notifier) else {
      if place.process == 0 { unmergePage(place.page, notifier: &notifier) }
      return false
    }
    ksm.append(other, to: frame)
    ksm.append(place, to: frame)
    return true
  }

  /// `try_to_merge_one_page`: gives a process the merged page, or makes its own one, where there is none yet.
  private mutating func merge(
    _ place: KSM.Place, with merged: UInt64?, notifier: inout some MMUNotifier
  ) -> Bool {
    guard let frame = frame(of: place) else { return false }
    if frame == merged { return true }
    if let head = physical.folio(of: frame), physical[folio: head].size > pageSize {
      splitFolio(head, notifier: &notifier)
    }
    writeProtect(place, notifier: &notifier)
    guard let entry = self[process: place.process].entries[place.page],
      let head = physical.folio(of: frame)
    else { return false }
    guard let merged else {
      physical[folio: head].kind = .merged
      physical[folio: head].isDirty = true
      return true
    }
    // `replace_page`
    replace(place, notifier: &notifier) { memory in
      memory.physical.retain(merged)
      memory[process: place.process].entries[place.page] = HostEntry(
        frame: merged, isWritable: false, isDirty: false, isExclusive: false)
      memory.release(entry)
      return merged
    }
    return true
  }

  /// `write_protect_page`
  private mutating func writeProtect(_ place: KSM.Place, notifier: inout some MMUNotifier) {
    replace(place, notifier: &notifier) { memory in
      guard var entry = memory[process: place.process].entries[place.page],
        entry.isWritable || entry.isDirty || entry.isExclusive
      else { return nil }
      if entry.isDirty, let head = memory.physical.folio(of: entry.frame) {
        memory.physical[folio: head].isDirty = true
      }
      entry.isWritable = false
      entry.isDirty = false
      entry.isExclusive = false
      memory[process: place.process].entries[place.page] = entry
      return entry.frame
    }
  }

  /// Changes an entry, and tells the MMU notifiers of the VMM's.
  ///
  /// - Parameter change: What it does; the frame that the entry maps then, nil where it stays as it was.
  private mutating func replace(
    _ place: KSM.Place, notifier: inout some MMUNotifier, _ change: (inout HostMemory) -> UInt64?
  ) {
    let address = granule.address(ofPage: place.page)
    let isOwn = place.process == 0
    if isOwn { notifier.invalidateRangeStart(address..<address + pageSize) }
    if let frame = change(&self), isOwn { notifier.changePTE(address, frame: frame) }
    if isOwn { notifier.invalidateRangeEnd(address..<address + pageSize) }
  }

  private func content(of frame: UInt64) -> KSM.Content {
    guard let head = physical.folio(of: frame) else { return [:] }
    let offset = frame - head
    var content: KSM.Content = [:]
    for (piece, bytes) in physical[folio: head].contents
    where piece >= offset && piece < offset + pageSize && bytes.contains(where: { $0 != 0 }) {
      content[piece - offset] = bytes
    }
    return content
  }
}
