/// What the kernel knows of how recently an anonymous page was used, as far as it shows: a page that waits in one of a
/// CPU's batches (`struct cpu_fbatches`, mm/swap.c) is held by it, and a page that somebody else holds is copied where it
/// could be written in place.
struct LRU: Sendable {
  private let batchSize: Int
  /// New pages, which are on no list yet.
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

  /// How many batches hold a page.
  func holds(_ page: PhysicalAddress) -> Int {
    [added, activated, lazilyFreed].count { $0.contains(page) }
  }

  /// `folio_test_lru`
  func isListed(_ page: PhysicalAddress) -> Bool { !added.contains(page) }

  /// `folio_add_lru`
  mutating func add(_ page: PhysicalAddress) {
    forget(page)
    added.append(page)
    if added.count == batchSize { added.removeAll() }
  }

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
    added.removeAll()
    drainLazilyFreed()
    drainActivated()
  }

  /// The page is nobody's any more.
  mutating func forget(_ page: PhysicalAddress) {
    referenced.remove(page)
    active.remove(page)
    droppable.remove(page)
  }
}
