/// Kernel samepage merging: mm/ksm.c.
///
/// No time passes, so a chain of equal merged pages is never old enough to be pruned
/// (`stable_node_chains_prune_millisecs`).
struct KSM: Sendable {
  /// What a page holds, in pieces by their offset; those that are zeros are left out.
  typealias Content = [UInt64: [UInt8]]

  /// `struct ksm_rmap_item`: what KSM knows of a page of a process.
  struct Item: Sendable {
    /// Address / page size.
    let page: UInt64
    /// What the page held when it was last looked at (`oldchecksum`), in place of its checksum.
    var content: Content?
    /// The merged page that it shares, or did when it was last looked at (`STABLE_FLAG`).
    var node: Int?
    /// When it was merged: what was merged later comes first in the page's list (`stable_tree_append`).
    var number = 0
  }

  /// `struct ksm_mm_slot`: a process whose pages are scanned.
  struct Slot: Sendable {
    /// 0 for the VMM, from 1 on for its children.
    let process: Int
    /// By address.
    var items: [Item] = []
  }

  /// Where an item is: the slot's place, and the item's in it.
  struct ItemPlace: Sendable {
    let slot, item: Int
  }

  /// A page of a process.
  struct Place {
    let process: Int
    /// Address / page size.
    let page: UInt64
  }

  /// `struct ksm_stable_node`: a merged page.
  private struct StableNode: Sendable {
    let frame: UInt64
    /// How many items share it (`rmap_hlist_len`).
    var sharers = 0
  }

  /// How many items may share a page (`ksm_max_page_sharing`). A process gets above it by fork(2).
  private static let maxPageSharing = 256

  /// `ksm_mm_head`, in the order of scanning.
  var slots: [Slot] = []
  private var nodes: [Int: StableNode] = [:]
  /// Which node a merged page has.
  private var nodeOfFrame: [UInt64: Int] = [:]
  /// `root_stable_tree`: the nodes of each content, the first one last.
  private var chains: [Content: [Int]] = [:]
  private var madeNodes = 0
  private var mergedPages = 0

  /// `__ksm_enter`: a process is scanned from now on, after all others.
  mutating func enter(process: Int) {
    guard !slots.contains(where: { $0.process == process }) else { return }
    slots.append(Slot(process: process))
  }

  /// `__ksm_exit`
  mutating func exit(process: Int) {
    guard let index = slots.firstIndex(where: { $0.process == process }) else { return }
    for item in slots[index].items { leave(item.node) }
    slots.remove(at: index)
  }

  subscript(place: ItemPlace) -> Item {
    get { slots[place.slot].items[place.item] }
    _modify { yield &slots[place.slot].items[place.item] }
  }

  func place(of item: ItemPlace) -> Place {
    Place(process: slots[item.slot].process, page: self[item].page)
  }

  /// When a page of the VMM's was merged; 0 if it was not.
  func number(ofPage page: UInt64) -> Int {
    guard let slot = slots.first(where: { $0.process == 0 }) else { return 0 }
    let index = slot.items.partitioningIndex { $0.page >= page }
    guard index < slot.items.endIndex, slot.items[index].page == page else { return 0 }
    return slot.items[index].number
  }

  // MARK: The stable tree

  /// `page_stable_node`
  func node(of frame: UInt64, in physical: PhysicalMemory) -> Int? {
    guard physical.folios[frame]?.kind == .merged else { return nil }
    return nodeOfFrame[frame]
  }

  func frame(ofNode node: Int) -> UInt64 { nodes[node]!.frame }

  /// `stable_tree_search`: a merged page with this content that one more item may share.
  mutating func shareableNode(_ content: Content, in physical: PhysicalMemory) -> Int? {
    guard let chain = chains[content],
      let index = chain.lastIndex(where: {
        isShareable($0) && node(of: nodes[$0]!.frame, in: physical) == $0
      })
    else { return nil }
    // `stable_node_dup`: it becomes the first, where it can take yet another.
    if index != chain.indices.last, isShareable(chain[index], offset: 1) {
      chains[content]!.append(chains[content]!.remove(at: index))
    }
    return chain[index]
  }

  /// `__is_page_sharing_candidate`
  private func isShareable(_ node: Int, offset: Int = 0) -> Bool {
    guard let sharers = nodes[node]?.sharers else { return false }
    return sharers > 0 && sharers + offset < Self.maxPageSharing
  }

  /// `stable_tree_insert`: a merged page that nobody shares yet.
  mutating func makeNode(_ frame: UInt64, content: Content) -> Int {
    madeNodes += 1
    nodes[madeNodes] = StableNode(frame: frame)
    nodeOfFrame[frame] = madeNodes
    chains[content, default: []].append(madeNodes)
    return madeNodes
  }

  /// `stable_tree_append`
  mutating func append(_ place: ItemPlace, to node: Int) {
    mergedPages += 1
    nodes[node]!.sharers += 1
    self[place].node = node
    self[place].number = mergedPages
  }

  /// `remove_rmap_item_from_tree`, as for the stable tree.
  mutating func leave(_ node: Int?) {
    guard let node, nodes[node] != nil else { return }
    nodes[node]!.sharers -= 1
  }

  /// `remove_node_from_stable_tree` for what was freed or has been taken for something else since.
  mutating func forgetFreedNodes(in physical: PhysicalMemory) {
    let freed = nodes.filter { node(of: $1.frame, in: physical) != $0 }
    guard !freed.isEmpty else { return }
    for (node, what) in freed {
      nodes[node] = nil
      if nodeOfFrame[what.frame] == node { nodeOfFrame[what.frame] = nil }
    }
    for (content, chain) in chains {
      let rest = chain.filter { freed[$0] == nil }
      if rest.count < chain.count { chains[content] = rest.isEmpty ? nil : rest }
    }
  }
}

extension HostMemory {
  /// Lets the scanner go over all mergeable memory until nothing changes: four times.
  ///
  /// - Throws: `ETIMEDOUT` where there is none, so that no scan ever ends.
  mutating func scanForMerging(notifier: inout some MMUNotifier) throws(KernelError) {
    ksm.forgetFreedNodes(in: physical)
    for _ in 0..<4 {
      guard !ksm.slots.isEmpty else { throw .timedOut }
      scanOnce(notifier: &notifier)
      if let checkpoint, checkpoint.isStopped { return }
    }
  }

  /// `ksm_do_scan`, from the first page of the first process to the last of the last.
  private mutating func scanOnce(notifier: inout some MMUNotifier) {
    physical.drainLRU()
    var unstable: [KSM.Content: KSM.ItemPlace] = [:]
    for slot in ksm.slots.indices {
      let process = ksm.slots[slot].process
      // `get_next_rmap_item`: items of pages that are no longer there go when the scan has passed them.
      var old = ksm.slots[slot].items[...]
      ksm.slots[slot].items = []
      for range in mergeableRanges(of: process) {
        for page in mappedPages(of: process, in: range) {
          while let item = old.first, item.page < page {
            ksm.leave(item.node)
            old.removeFirst()
          }
          let item = old.first?.page == page ? old.removeFirst() : KSM.Item(page: page)
          ksm.slots[slot].items.append(item)
          mergePage(
            KSM.ItemPlace(slot: slot, item: ksm.slots[slot].items.count - 1), &unstable,
            notifier: &notifier)
        }
      }
      for item in old { ksm.leave(item.node) }
    }
    // Without any mergeable area, a process is scanned no more.
    ksm.slots.removeAll { slot in
      slot.process == 0
        ? !areas.contains { $0.flags.contains(.mergeable) }
        : !children[slot.process - 1].hasMergeableAreas
    }
  }

  /// Where a process has pages that may be merged.
  private func mergeableRanges(of process: Int) -> [Range<UInt64>] {
    guard process == 0 else { return children[process - 1].mergeable }
    return areas.filter { $0.flags.contains(.mergeable) && $0.anonymousFamily != nil }
      .map { $0.start..<$0.end }
  }

  /// The page tables of the VMM, or of a child.
  private subscript(process number: Int) -> AddressSpace {
    get { number == 0 ? process : children[number - 1] }
    _modify {
      if number == 0 { yield &process } else { yield &children[number - 1] }
    }
  }

  /// `ksm_next_page_pmd_entry`: the pages in `range` that are anonymous, by themselves or with a huge page.
  private func mappedPages(of process: Int, in range: Range<UInt64>) -> [UInt64] {
    let space = self[process: process]
    func isAnonymous(_ entry: HostEntry) -> Bool {
      physical.folio(of: entry.frame).map { physical[folio: $0].isAnonymous } ?? false
    }
    var found: [UInt64] = []
    for block in space.blocks(in: range, granule: granule) {
      let part = part(of: range, in: block)
      let pages = granule.page(of: part.lowerBound)..<granule.page(of: part.upperBound)
      if let entry = space[block: block] {
        if isAnonymous(entry) { found += pages }
      } else {
        found += pages.filter { space.entries[$0].map(isAnonymous) ?? false }
      }
    }
    return found
  }

  private func frame(of place: KSM.Place) -> UInt64? {
    self[process: place.process].physicalAddress(
      of: granule.address(ofPage: place.page), granule: granule)
  }

  /// `cmp_and_merge_page`
  private mutating func mergePage(
    _ item: KSM.ItemPlace, _ unstable: inout [KSM.Content: KSM.ItemPlace],
    notifier: inout some MMUNotifier
  ) {
    guard checkpoint?.passes() ?? true else { return }
    let place = ksm.place(of: item)
    guard let frame = frame(of: place) else { return }
    let own = ksm.node(of: frame, in: physical)
    if let own, ksm[item].node == own { return }
    let content = content(of: frame)
    // What fork(2) has made of a merged page shares it, however many share it already.
    let node = own ?? ksm.shareableNode(content, in: physical)
    // Only after the search: for that the item is still where it was.
    ksm.leave(ksm[item].node)
    ksm[item].node = nil
    if let node {
      if merge(place, with: ksm.frame(ofNode: node), notifier: &notifier) {
        ksm.append(item, to: node)
      }
      return
    }
    guard ksm[item].content == content else {
      ksm[item].content = content
      return
    }
    // `unstable_tree_search_insert`
    guard let other = unstable[content] else {
      unstable[content] = item
      return
    }
    // The same page in two processes is not substituted for itself.
    guard self.frame(of: ksm.place(of: other)) != frame else { return }
    guard mergeTwo(place, ksm.place(of: other), notifier: &notifier) else { return }
    unstable[content] = nil
    let made = ksm.makeNode(frame, content: content)
    ksm.append(other, to: made)
    ksm.append(item, to: made)
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
    let contents = physical[folio: head].contents
    guard !contents.isEmpty else { return [:] }
    var content: KSM.Content = [:]
    for piece in stride(from: 0, to: pageSize, by: Int(Folio.pieceSize)) {
      if let bytes = contents[offset + piece], bytes.contains(where: { $0 != 0 }) {
        content[piece] = bytes
      }
    }
    return content
  }
}
