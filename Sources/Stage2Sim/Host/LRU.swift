/// The kernel's knowledge of the last use of anonymous pages, with its visible effect: one of a CPU's batches (`struct
/// cpu_fbatches`, mm/swap.c) holds a page that waits in it, and a write to a page with more than one holder makes a copy.
struct LRU: Sendable {
  private let batchSize: Int
  /// New pages, anonymous ones and those of the page cache, which are on no list yet.
  private(set) var added: [PhysicalAddress] = []
  /// Pages that were used again.
  private(set) var activated: [PhysicalAddress] = []
  /// Pages that may go when memory is short (`MADV_FREE`).
  private(set) var lazilyFreed: [PhysicalAddress] = []
  private var referenced: Set<PhysicalAddress> = []
  private var active: Set<PhysicalAddress> = []
  /// Pages without `PG_swapbacked`: they were freed lazily before.
  private var droppable: Set<PhysicalAddress> = []

  init(kernel: KernelVersion) { batchSize = kernel.pageBatch }

  /// The number of batches that hold a page.
  func holds(_ page: PhysicalAddress) -> Int {
    [added, activated, lazilyFreed].count { $0.contains(page) }
  }

  /// `folio_test_lru`
  func isListed(_ page: PhysicalAddress) -> Bool { !added.contains(page) }

  /// `folio_add_lru`
  mutating func add(_ page: PhysicalAddress) {
    forget(page)
    added.append(page)
    if added.count == batchSize { listAdded() }
  }

  /// Empties the batch of new pages. `folio_add_lru` does this for a huge page, which no batch holds.
  mutating func listAdded() { added.removeAll() }

  /// `folio_set_referenced`
  mutating func setReferenced(_ page: PhysicalAddress) { referenced.insert(page) }

  /// `folio_mark_accessed`
  mutating func markAccessed(_ page: PhysicalAddress) {
    guard !referenced.insert(page).inserted, !active.contains(page) else { return }
    referenced.remove(page)
    if isListed(page) {
      // `folio_activate`
      activated.append(page)
      if activated.count == batchSize { drainActivated() }
    } else {
      // `__lru_cache_activate_folio`
      active.insert(page)
    }
  }

  /// `folio_mark_lazyfree`
  mutating func freeLazily(_ page: PhysicalAddress) {
    guard isListed(page), !droppable.contains(page) else { return }
    lazilyFreed.append(page)
    if lazilyFreed.count == batchSize { drainLazilyFreed() }
  }

  /// `lru_lazyfree_fn`
  private mutating func drainLazilyFreed() {
    active.subtract(lazilyFreed)
    referenced.subtract(lazilyFreed)
    droppable.formUnion(lazilyFreed)
    lazilyFreed.removeAll()
  }

  private mutating func drainActivated() {
    active.formUnion(activated)
    activated.removeAll()
  }

  /// `lru_add_drain`
  mutating func drain() {
    listAdded()
    drainLazilyFreed()
    drainActivated()
  }

  /// The page is free.
  mutating func forget(_ page: PhysicalAddress) {
    referenced.remove(page)
    active.remove(page)
    droppable.remove(page)
  }
}
