/// Kernel samepage merging: mm/ksm.c.
///
/// No time passes, so a chain of equal merged pages is never old enough to be pruned
/// (`stable_node_chains_prune_millisecs`).
struct KSM: Sendable {
  /// The content of a page, in pieces by their offset. Pieces of zeros are left out.
  typealias Content = [UInt64: [UInt8]]

  /// `struct ksm_rmap_item`: KSM's record of a page of a process.
  struct Item: Sendable {
    /// Address / page size.
    let page: UInt64
    /// The content of the page at the last look, in place of its checksum (`oldchecksum`).
    var content: Content?
    /// The merged page that it shares, or did when it was last looked at (`STABLE_FLAG`).
    var node: Int?
    /// The number of the merge. Later merges come first in the page's list (`stable_tree_append`).
    var number = 0
    /// How often the page was found without a merge, at most 255 (`age`).
    private var age = 0
    /// The number of scans that skip the page, up to the next look at it (`remaining_skips`).
    private var remainingSkips = 0

    init(page: UInt64) { self.page = page }

    /// The record of a page that is not merged any more, in a version that keeps no more of it.
    mutating func forget() { self = Item(page: page) }

    /// `should_skip_rmap_item` for a page that is not merged.
    mutating func isSkipped() -> Bool {
      let old = age
      age = min(old + 1, 255)
      guard old >= 3 else { return false }
      guard remainingSkips == 0 else {
        remainingSkips -= 1
        return true
      }
      // `skip_age`
      remainingSkips =
        switch old {
        case ...3: 1
        case ...5: 2
        case ...8: 4
        default: 8
        }
      return false
    }
  }

  /// `struct ksm_mm_slot`: a process whose pages are scanned.
  struct Slot: Sendable {
    /// 0 for the VMM, from 1 on for its children.
    let process: Int
    /// The items by address.
    var items: [Item] = []
  }

  /// The place of an item: the index of its slot, and its index in the slot.
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
    let frame: PhysicalAddress
    /// Which of the chains it is in.
    var chain: Int
    /// The number of items that share the page (`rmap_hlist_len`).
    var sharers = 0
  }

  /// The nodes of one content (`STABLE_NODE_CHAIN`), or a single one.
  private struct Chain: Sendable {
    let content: Content
    /// The first one last.
    var nodes: [Int] = []
    /// The number of nodes that one more item may share.
    var shareable = 0
  }

  /// The number of items that may share a page. A process exceeds it by fork(2).
  private let mostSharers: Int

  /// `ksm_mm_head`, in the order of scanning.
  var slots: [Slot] = []
  private var nodes: [Int: StableNode] = [:]
  /// Which node a merged page has.
  private var nodeOfFrame: [PhysicalAddress: Int] = [:]
  /// `root_stable_tree`
  private var chains: [Chain] = []
  private var chainOfContent: [Content: Int] = [:]
  /// The chains of more than one node.
  private var longChains: [Int] = []
  private var madeNodes = 0
  private var mergedPages = 0

  init(kernel: KernelVersion) { mostSharers = kernel.mostPageSharers }

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

  /// `__is_page_sharing_candidate`
  private func isShareable(_ node: StableNode, offset: Int = 0) -> Bool {
    node.sharers > 0 && node.sharers + offset < mostSharers
  }

  /// `page_stable_node`
  func node(of frame: PhysicalAddress, in physical: PhysicalMemory) -> Int? {
    guard let node = nodeOfFrame[frame], physical.folios[frame]?.kind == .merged else {
      return nil
    }
    return node
  }

  /// Whether the page of a node was freed, or has another use since (`ksm_get_folio`).
  func isStale(_ node: Int, in physical: PhysicalMemory) -> Bool {
    nodes[node].map { self.node(of: $0.frame, in: physical) != node } ?? true
  }

  func frame(ofNode node: Int) -> PhysicalAddress { nodes[node]!.frame }

  /// `stable_tree_search`: a merged page with this content that one more item may share.
  ///
  /// The search looks into the chains on its way through the tree, too. Which these are depends on the tree's shape: here
  /// all chains are on the way.
  mutating func shareableNode(_ content: Content, in physical: PhysicalMemory) -> Int? {
    let chain = chainOfContent[content]
    for other in longChains where other != chain { _ = firstShareable(of: other, in: physical) }
    return chain.flatMap { firstShareable(of: $0, in: physical) }
  }

  /// `stable_node_dup`: the first node of a chain that one more item may share. It becomes the first of all if yet another
  /// item may share it.
  private mutating func firstShareable(of chain: Int, in physical: PhysicalMemory) -> Int? {
    guard chains[chain].shareable > 0,
      let index = chains[chain].nodes.lastIndex(where: {
        isShareable(nodes[$0]!) && node(of: nodes[$0]!.frame, in: physical) == $0
      })
    else { return nil }
    let found = chains[chain].nodes[index]
    if index != chains[chain].nodes.indices.last, isShareable(nodes[found]!, offset: 1) {
      chains[chain].nodes.append(chains[chain].nodes.remove(at: index))
    }
    return found
  }

  /// `stable_tree_insert`: a merged page without sharers yet.
  mutating func makeNode(_ frame: PhysicalAddress, content: Content) -> Int {
    let chain = chainOfContent[content] ?? chains.count
    if chain == chains.count {
      chains.append(Chain(content: content))
      chainOfContent[content] = chain
    }
    madeNodes += 1
    nodes[madeNodes] = StableNode(frame: frame, chain: chain)
    nodeOfFrame[frame] = madeNodes
    chains[chain].nodes.append(madeNodes)
    if chains[chain].nodes.count == 2 { longChains.append(chain) }
    return madeNodes
  }

  /// `stable_tree_append`
  mutating func append(_ place: ItemPlace, to node: Int) {
    mergedPages += 1
    addSharers(1, to: node)
    self[place].node = node
    self[place].number = mergedPages
  }

  /// `remove_rmap_item_from_tree`, as for the stable tree.
  mutating func leave(_ node: Int?) {
    if let node { addSharers(-1, to: node) }
  }

  private mutating func addSharers(_ count: Int, to node: Int) {
    guard var changed = nodes[node] else { return }
    let was = isShareable(changed) ? 1 : 0
    changed.sharers += count
    nodes[node] = changed
    chains[changed.chain].shareable += (isShareable(changed) ? 1 : 0) - was
  }

  /// `remove_node_from_stable_tree` for pages that were freed, or have another use since.
  mutating func forgetFreedNodes(in physical: PhysicalMemory) {
    let freed = nodes.filter { node(of: $1.frame, in: physical) != $0 }
    guard !freed.isEmpty else { return }
    for (node, what) in freed {
      nodes[node] = nil
      if nodeOfFrame[what.frame] == node { nodeOfFrame[what.frame] = nil }
    }
    let old = chains
    chains = []
    chainOfContent = [:]
    longChains = []
    for var chain in old {
      chain.nodes.removeAll { freed[$0] != nil }
      guard !chain.nodes.isEmpty else { continue }
      chain.shareable = chain.nodes.count { isShareable(nodes[$0]!) }
      for node in chain.nodes { nodes[node]!.chain = chains.count }
      chainOfContent[chain.content] = chains.count
      if chain.nodes.count > 1 { longChains.append(chains.count) }
      chains.append(chain)
    }
  }
}

extension HostMemory {
  /// Lets the scanner go over all mergeable memory four times, or until nothing changes any more.
  ///
  /// - Throws: `ETIMEDOUT` if there is none, because no scan ever ends then.
  mutating func scanForMerging(notifier: inout some MMUNotifier) throws(KernelError) {
    ksm.forgetFreedNodes(in: physical)
    for _ in 0..<4 {
      guard !ksm.slots.isEmpty else { throw .timedOut }
      guard scanOnce(notifier: &notifier), checkpoint?.isStopped != true else { return }
    }
  }

  /// `ksm_do_scan`, from the first page of the first process to the last of the last.
  ///
  /// - Returns: False if the scan has changed nothing. Another scan would change nothing either.
  private mutating func scanOnce(notifier: inout some MMUNotifier) -> Bool {
    physical.drainLRU()
    var hasChanged = false
    var unstable: [KSM.Content: KSM.ItemPlace] = [:]
    // The stale nodes that an item has found (`remove_node_from_stable_tree`): their other items have left them, too.
    var removed: Set<Int> = []
    for slot in ksm.slots.indices {
      let process = ksm.slots[slot].process
      // `get_next_rmap_item`: items of pages that are no longer there go when the scan has passed them.
      var old = ksm.slots[slot].items[...]
      ksm.slots[slot].items = []
      for range in mergeableRanges(of: process) {
        for (page, frame) in mappedPages(of: process, in: range) {
          while let item = old.first, item.page < page {
            ksm.leave(item.node)
            if let node = item.node, ksm.isStale(node, in: physical) { removed.insert(node) }
            old.removeFirst()
            hasChanged = true
          }
          let item = old.first?.page == page ? old.removeFirst() : KSM.Item(page: page)
          ksm.slots[slot].items.append(item)
          let place = KSM.ItemPlace(slot: slot, item: ksm.slots[slot].items.count - 1)
          if kernel.forgetsUnmergedPages, let node = ksm[place].node,
            ksm.isStale(node, in: physical), !removed.insert(node).inserted
          {
            ksm[place].forget()
          }
          if kernel.scansSmartly, ksm.node(of: frame, in: physical) == nil,
            !(kernel.forgetsUnmergedPages && ksm[place].node != nil), ksm[place].isSkipped()
          {
            ksm.leave(ksm[place].node)
            ksm[place].node = nil
            continue
          }
          if mergePage(place, frame, &unstable, notifier: &notifier) { hasChanged = true }
        }
      }
      for item in old { ksm.leave(item.node) }
      if !old.isEmpty { hasChanged = true }
    }
    // Without any mergeable area, a process is scanned no more.
    let slotCount = ksm.slots.count
    ksm.slots.removeAll { slot in
      slot.process == 0
        ? !areas.contains { $0.flags.contains(.mergeable) }
        : !children[slot.process - 1].hasMergeableAreas
    }
    // Each scan changes the ages of pages.
    return hasChanged || ksm.slots.count < slotCount || kernel.scansSmartly
  }

  /// The ranges of a process whose pages may be merged.
  private func mergeableRanges(of process: Int) -> [Range<HostVirtualAddress>] {
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

  /// `ksm_next_page_pmd_entry`: the pages in `range` that are anonymous, by themselves or with a huge page, and their frames. A
  /// page that is merged changes no frame of the pages that are scanned after it.
  private func mappedPages(
    of process: Int, in range: Range<HostVirtualAddress>
  ) -> [(page: UInt64, frame: PhysicalAddress)] {
    let space = self[process: process]
    func isAnonymous(_ entry: HostEntry) -> Bool {
      physical.folio(of: entry.frame).map { physical[folio: $0].isAnonymous } ?? false
    }
    var found: [(page: UInt64, frame: PhysicalAddress)] = []
    for block in space.blocks(in: range, granule: granule) {
      let part = part(of: range, in: block)
      let pages = granule.page(of: part.lowerBound)..<granule.page(of: part.upperBound)
      if let entry = space[block: block] {
        guard isAnonymous(entry) else { continue }
        let first = granule.page(of: granule.address(ofBlock: block))
        found += pages.lazy.map { ($0, entry.frame + ($0 - first) * pageSize) }
      } else {
        for page in pages {
          if let entry = space.entries[page], isAnonymous(entry) {
            found.append((page, entry.frame))
          }
        }
      }
    }
    return found
  }

  private func frame(of place: KSM.Place) -> PhysicalAddress? {
    self[process: place.process].physicalAddress(
      of: granule.address(ofPage: place.page), granule: granule)
  }

  /// `cmp_and_merge_page`
  ///
  /// - Returns: Whether anything but `unstable` has changed.
  private mutating func mergePage(
    _ item: KSM.ItemPlace, _ frame: PhysicalAddress, _ unstable: inout [KSM.Content: KSM.ItemPlace],
    notifier: inout some MMUNotifier
  ) -> Bool {
    guard checkpoint?.passes() ?? true else { return false }
    let own = ksm.node(of: frame, in: physical)
    if let own, ksm[item].node == own { return false }
    let place = ksm.place(of: item)
    let content = content(of: frame)
    if own == nil, kernel.comparesChecksumFirst {
      ksm.leave(ksm[item].node)
      if ksm[item].node != nil, kernel.forgetsUnmergedPages { ksm[item].forget() }
      ksm[item].node = nil
      guard ksm[item].content == content else {
        ksm[item].content = content
        return true
      }
    }
    // A copy of a merged page by fork(2) shares it, however many pages share it already.
    let node = own ?? ksm.shareableNode(content, in: physical)
    // Only after the search, which needs the item in its old place.
    let wasMerged = ksm[item].node != nil
    ksm.leave(ksm[item].node)
    ksm[item].node = nil
    if let node {
      if merge(place, with: ksm.frame(ofNode: node), notifier: &notifier) {
        ksm.append(item, to: node)
      }
      return true
    }
    guard ksm[item].content == content else {
      ksm[item].content = content
      return true
    }
    // `unstable_tree_search_insert`
    guard let other = unstable[content] else {
      unstable[content] = item
      return wasMerged
    }
    // The same page in two processes is not substituted for itself. `get_mergeable_page` finds no zero page.
    guard let otherFrame = self.frame(of: ksm.place(of: other)), otherFrame != frame,
      physical.folio(of: otherFrame) != nil
    else { return wasMerged }
    guard mergeTwo(place, ksm.place(of: other), notifier: &notifier) else { return true }
    unstable[content] = nil
    let made = ksm.makeNode(frame, content: content)
    ksm.append(other, to: made)
    ksm.append(item, to: made)
    return true
  }

  /// `try_to_merge_two_pages`: the page that was found second becomes the merged one.
  ///
  /// - Returns: False if they stay two.
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

  /// `try_to_merge_one_page`: gives a process the merged page. If there is none yet, the process's own page becomes one.
  private mutating func merge(
    _ place: KSM.Place, with merged: PhysicalAddress?, notifier: inout some MMUNotifier
  ) -> Bool {
    guard let frame = frame(of: place) else { return false }
    if frame == merged { return true }
    if let head = physical.folio(of: frame), physical[folio: head].size > pageSize {
      splitFolio(head, notifier: &notifier)
    }
    writeProtect(place, frame, notifier: &notifier)
    // After the split, the zero page may have taken the place of the page.
    guard let entry = self[process: place.process].entries[place.page], entry.frame == frame,
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
  private mutating func writeProtect(
    _ place: KSM.Place, _ frame: PhysicalAddress, notifier: inout some MMUNotifier
  ) {
    replace(place, notifier: &notifier) { memory in
      guard var entry = memory[process: place.process].entries[place.page], entry.frame == frame,
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
  /// - Parameter change: Changes the entry, and returns the frame that the entry maps then; nil if the entry stays as it was.
  private mutating func replace(
    _ place: KSM.Place, notifier: inout some MMUNotifier,
    _ change: (inout HostMemory) -> PhysicalAddress?
  ) {
    let address = granule.address(ofPage: place.page)
    let isOwn = place.process == 0
    if isOwn { notifier.invalidateRangeStart(address..<address + pageSize) }
    if let frame = change(&self), isOwn { notifier.changePTE(address, frame: frame) }
    if isOwn { notifier.invalidateRangeEnd(address..<address + pageSize) }
  }

  private func content(of frame: PhysicalAddress) -> KSM.Content {
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
