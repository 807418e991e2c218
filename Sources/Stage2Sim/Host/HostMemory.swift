/// The VMM's memory behind guest RAM.
public enum Backing: String, CaseIterable, Sendable {
  /// Anonymous pages, made when they are first touched: KVM maps pages.
  case anonymous
  /// Anonymous memory advised to use transparent huge pages: KVM maps blocks.
  case huge
  /// Huge pages from hugetlb's pool, private: KVM maps blocks.
  case hugetlb
  /// A memfd, shared: its pages are in the page cache.
  case memfd
  /// A private mapping of a file in a tmpfs: a page is the page cache's until it is written.
  case file
}

/// The memory of the host: the areas and page tables of the VMM, the page tables of its children, physical pages, and the page
/// cache of one file. The VMM's memory decides over KVM's mappings.
///
/// The functions are those of Linux's mm/, with transparent huge pages on request (`madvise`), no swap, and enough memory up to
/// ``HostLimits``. The VMM's children do nothing but share pages.
struct HostMemory: Sendable {
  let granule: Granule
  let kernel: KernelVersion
  /// The VMM's areas, by address.
  var areas: [MemoryArea] = []
  /// The VMM's page tables.
  var process = AddressSpace()
  /// The page tables of its children.
  var children: [AddressSpace] = []
  var physical: PhysicalMemory
  /// Which folio holds the page of the file at an offset.
  var pageCache: [UInt64: PhysicalAddress] = [:]
  var ksm: KSM
  /// The checkpoint of operations on much memory.
  var checkpoint: Checkpoint?
  /// The address at which the first byte of the file is mapped.
  private(set) var fileStart: HostVirtualAddress = 0
  private var families = 0
  /// The number of changes of areas up to now.
  var areaChanges = 0
  /// The number of huge pages in hugetlb's pool.
  private var hugetlbPool = 0

  init(granule: Granule, kernel: KernelVersion) {
    self.granule = granule
    self.kernel = kernel
    physical = PhysicalMemory(granule: granule, kernel: kernel)
    ksm = KSM(kernel: kernel)
  }

  var pageSize: UInt64 { granule.pageSize }
  var hugePageSize: UInt64 { granule.blockSize }

  /// The range of a system call with its end rounded up to a page.
  ///
  /// - Throws: `EINVAL` if the range does not start on a page.
  func wholePages(_ range: Range<HostVirtualAddress>) throws(KernelError) -> Range<
    HostVirtualAddress
  > {
    guard range.lowerBound.isAligned(to: pageSize) else { throw .invalidArgument }
    return range.lowerBound..<range.upperBound.alignedUp(to: pageSize)
  }

  /// mmap(2) of guest RAM inside a reserved area, as VMMs do it to have it aligned.
  mutating func mapRAM(at start: HostVirtualAddress, size: UInt64, backing: Backing) {
    var area = MemoryArea(
      start: start, end: start + size, flags: [.read, .write, .noReserve])
    switch backing {
    case .anonymous: break
    case .huge: area.flags.insert(.hugePage)
    case .hugetlb:
      area.flags.insert(.hugetlb)
      area.file = .hugetlb
    case .memfd:
      area.flags.insert(.shared)
      area.file = .temporary
    case .file: area.file = .temporary
    }
    fileStart = start
    // 256 MiB for all that is mapped and copied, as on the recorded hosts; guest RAM has to fit.
    hugetlbPool = Int(max(size, 256 << 20) / hugePageSize)
    let reserved = MemoryArea(start: start - size, end: start, flags: [.noReserve])
    let rest = MemoryArea(start: start + size, end: start + 2 * size, flags: [.noReserve])
    areas += [reserved, area, rest]
    areas.sort { $0.start < $1.start }
  }

  /// mmap(2) of memory of the VMM's own that its children do not get.
  mutating func mapPrivately(at start: HostVirtualAddress, size: UInt64) {
    areas.append(
      MemoryArea(start: start, end: start + size, flags: [.read, .write, .dontFork, .accounted]))
    areas.sort { $0.start < $1.start }
  }

  /// `anon_vma_prepare`: the area gets a family: the neighbour's, if the two could be one area.
  mutating func prepareAnonymousFamily(of index: Int) {
    guard areas[index].anonymousFamily == nil else { return }
    let area = areas[index]
    for neighbour in [index + 1, index - 1] where areas.indices.contains(neighbour) {
      let other = areas[neighbour]
      if other.start == area.end || other.end == area.start, other.isCompatible(with: area),
        let family = other.anonymousFamily
      {
        areas[index].anonymousFamily = family
        return
      }
    }
    families += 1
    areas[index].anonymousFamily = families
  }

  /// `alloc_huge_page`
  ///
  /// - Throws: `ENOMEM` if the pool is empty.
  mutating func allocateHugetlbPage() throws(KernelError) -> PhysicalAddress {
    guard physical.folios.values.count(where: { $0.kind == .hugetlb }) < hugetlbPool else {
      throw .outOfMemory
    }
    return physical.allocate(.hugetlb, size: hugePageSize)
  }

  /// Takes the entry of a page away, and its reference on the page.
  mutating func removeEntry(at page: UInt64) {
    guard let entry = process.entries.removeValue(forKey: page) else { return }
    release(entry)
  }

  /// A mapping ends: the dirty flag of its entry goes to the page (`zap_pte_range`).
  mutating func release(_ entry: HostEntry) {
    if entry.isDirty, let head = physical.folio(of: entry.frame) {
      // `folio_mark_dirty`
      physical[folio: head].isDirty = true
      physical[folio: head].isToBeReclaimed = false
    }
    physical.release(entry.frame)
  }

  /// The physical address of an address of the VMM; nil before a fault has made the address readable.
  func physicalAddress(of address: HostVirtualAddress) -> PhysicalAddress? {
    process.physicalAddress(of: address, granule: granule)
  }

  /// Whether `frame` is some page's in use: one that was freed stands for another page when it comes back.
  ///
  /// In a version that keeps the addresses of freed frames visible, a page of an anonymous huge page is free as soon as nothing maps
  /// it, as `/proc/kpagecount` has it.
  func isInUse(_ frame: PhysicalAddress) -> Bool {
    guard !physical.isZeroPage(frame) else { return true }
    guard let head = physical.folio(of: frame) else { return false }
    let folio = physical[folio: head]
    guard kernel.keepsAddressesInInvalidEntries, folio.kind == .anonymous, folio.size > pageSize
    else {
      return true
    }
    return mappingCount(of: frame) > 0
  }

  /// Makes `address` accessible for a caller to whom every failure is `EFAULT`.
  ///
  /// - Returns: The physical address.
  @discardableResult
  mutating func access(
    _ address: HostVirtualAddress, for access: HostAccess, notifier: inout some MMUNotifier
  ) throws(KernelError) -> PhysicalAddress {
    guard (try? makeAccessible(address, for: access, notifier: &notifier)) != nil,
      let place = physicalAddress(of: address)
    else { throw .badAddress }
    return place
  }

  /// A store by the VMM, or by the kernel on its behalf, of `count` bytes inside a page.
  ///
  /// - Throws: `EFAULT` if the VMM may not write.
  mutating func write(
    _ value: UInt64, to address: HostVirtualAddress, count: Int, notifier: inout some MMUNotifier
  ) throws(KernelError) {
    let target = try access(address, for: .write, notifier: &notifier)
    markDirty(address)
    physical.store(value, to: target, count: count)
  }

  /// A load by the VMM, or by the kernel on its behalf, of `count` bytes inside a page.
  ///
  /// - Throws: `EFAULT` if the VMM may not read.
  mutating func read(
    _ address: HostVirtualAddress, count: Int, notifier: inout some MMUNotifier
  ) throws(KernelError) -> UInt64 {
    let source = try access(address, for: .read, notifier: &notifier)
    return physical.load(source, count: count)
  }
}

/// Asks the caller of a long operation now and then whether the operation shall go on, as a signal ends a
/// system call. A copy of the machine has the same one.
///
/// Like the machine it belongs to one thread.
public final class Checkpoint: @unchecked Sendable {
  private let goesOn: () -> Bool
  private var pages = 0
  /// The caller was told to end.
  public private(set) var isStopped = false

  /// Some milliseconds of work.
  private static let interval = 1024

  /// - Parameter goesOn: Called each time that 1024 pages were worked on. It must not touch the machine.
  public init(_ goesOn: @escaping () -> Bool) { self.goesOn = goesOn }

  /// Something new begins.
  public func begin() {
    pages = 0
    isStopped = false
  }

  /// Counts one more page of the operation.
  ///
  /// - Returns: False if the operation ends before this page.
  func passes() -> Bool {
    pages += 1
    if !isStopped, pages % Self.interval == 0 { isStopped = !goesOn() }
    return !isStopped
  }
}

/// The purpose of an access to host memory.
enum HostAccess: Hashable {
  case read, write
}

/// A receiver of changes of the VMM's mappings: `struct mmu_notifier_ops`.
protocol MMUNotifier {
  /// The mappings of `range` are about to change.
  mutating func invalidateRangeStart(_ range: Range<HostVirtualAddress>)
  /// The mappings of `range` have changed.
  mutating func invalidateRangeEnd(_ range: Range<HostVirtualAddress>)
  /// Another frame stands at `address`, between the start and the end of an invalidation.
  mutating func changePTE(_ address: HostVirtualAddress, frame: PhysicalAddress)
  /// `range`, a page or a huge page, is old until it is accessed again.
  mutating func clearYoung(_ range: Range<HostVirtualAddress>)
}
