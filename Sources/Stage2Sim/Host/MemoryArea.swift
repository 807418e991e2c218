/// A range of the VMM's address space with one set of properties: `struct vm_area_struct`.
struct MemoryArea: Hashable, Sendable {
  /// The flags of `vm_flags` that the model uses.
  struct Flags: OptionSet, Hashable, Sendable {
    let rawValue: UInt16

    static let read = Flags(rawValue: 1 << 0)
    static let write = Flags(rawValue: 1 << 1)
    static let shared = Flags(rawValue: 1 << 2)
    static let hugetlb = Flags(rawValue: 1 << 3)
    /// `VM_NORESERVE`: no memory is set aside. Areas that differ in it do not merge.
    static let noReserve = Flags(rawValue: 1 << 4)
    static let hugePage = Flags(rawValue: 1 << 5)
    static let noHugePage = Flags(rawValue: 1 << 6)
    static let mergeable = Flags(rawValue: 1 << 7)
    static let wipeOnFork = Flags(rawValue: 1 << 8)
    /// `VM_DONTCOPY`
    static let dontFork = Flags(rawValue: 1 << 9)
    /// `VM_ACCOUNT`: memory is set aside for the area.
    static let accounted = Flags(rawValue: 1 << 10)

    static let protection: Flags = [.read, .write]
  }

  var start: HostVirtualAddress
  /// The end, exclusive.
  var end: HostVirtualAddress
  var flags: Flags
  /// The file that is mapped; nil for anonymous memory. The offset of an address in the file never changes, because nothing
  /// moves.
  var file: BackingFile?
  /// `anon_vma`: which family of areas its anonymous pages belong to; nil until there is the first.
  var anonymousFamily: Int?
  /// The number of the change of areas that has put the area into the file's tree (`i_mmap`) last. Of areas that begin at the same
  /// page, the tree has the earlier ones first.
  var insertion = 0

  var isAnonymous: Bool { file == nil }

  /// Copy-on-write memory (`is_cow_mapping`).
  var isPrivate: Bool { !flags.contains(.shared) }

  func contains(_ address: HostVirtualAddress) -> Bool { address >= start && address < end }

  /// `range_in_vma`
  func covers(_ range: Range<HostVirtualAddress>) -> Bool {
    start <= range.lowerBound && range.upperBound <= end
  }

  /// Whether a fault may put a huge page around `address`: `transhuge_vma_suitable`.
  func fits(hugePageAt address: HostVirtualAddress, size: UInt64) -> Bool {
    let first = address.aligned(to: size)
    return covers(first..<first + size)
  }

  /// Whether the two could be one, apart from their protections (`anon_vma_compatible`).
  func isCompatible(with other: MemoryArea) -> Bool {
    file == other.file
      && flags.subtracting(Flags.protection) == other.flags.subtracting(Flags.protection)
  }
}

/// The file behind an area that is not anonymous.
enum BackingFile: Hashable, Sendable {
  /// A memfd, or a file of a tmpfs: its pages are in the page cache.
  case temporary
  /// The file that the kernel makes for a mapping of hugetlb pages.
  case hugetlb
}

extension HostMemory {
  /// `find_vma`: the first area that ends after `address`.
  func firstArea(endingAfter address: HostVirtualAddress) -> Int? {
    let index = areas.partitioningIndex { $0.end > address }
    return index < areas.endIndex ? index : nil
  }

  /// `vma_lookup`
  func area(at address: HostVirtualAddress) -> MemoryArea? {
    guard let index = firstArea(endingAfter: address), areas[index].contains(address) else {
      return nil
    }
    return areas[index]
  }

  /// `vma_merge`: gives `range`, a part of one area or nothing, to a neighbour that has the same properties.
  ///
  /// - Parameter previous: The area before the range, or the one that it is a part of.
  /// - Returns: The index of the area that holds the range then; nil if no neighbour can take it.
  mutating func mergeAreas(
    previous: Int?, _ range: Range<HostVirtualAddress>, flags: MemoryArea.Flags, family: Int?,
    file: BackingFile?, notifier: inout some MMUNotifier
  ) -> Int? {
    let middle = previous.map { $0 + 1 } ?? 0
    var next = middle
    if areas.indices.contains(next), areas[next].end == range.upperBound { next += 1 }

    let mergesPrevious =
      previous.map {
        areas[$0].end == range.lowerBound
          && canMerge(areas[$0], flags: flags, family: family, file: file)
      } ?? false
    let mergesNext =
      areas.indices.contains(next) && areas[next].start == range.upperBound
      && canMerge(areas[next], flags: flags, family: family, file: file)

    if mergesPrevious, mergesNext, let previous,
      areFamiliesMergeable(
        areas[previous].anonymousFamily, areas[next].anonymousFamily, of: nil)
    {
      let end = areas[next].end
      adjustArea(
        previous, to: areas[previous].start..<end, expanding: previous, notifier: &notifier)
      return previous
    } else if mergesPrevious, let previous {
      adjustArea(
        previous, to: areas[previous].start..<range.upperBound, expanding: previous,
        notifier: &notifier)
      return previous
    } else if mergesNext {
      if let previous, range.lowerBound < areas[previous].end {
        // The range is the end of the previous area.
        adjustArea(
          previous, to: areas[previous].start..<range.lowerBound, expanding: next,
          notifier: &notifier)
      } else {
        adjustArea(
          middle, to: range.lowerBound..<areas[next].end, expanding: next, notifier: &notifier)
      }
      return firstArea(endingAfter: range.lowerBound)
    }
    return nil
  }

  /// `can_vma_merge_before`, `can_vma_merge_after`. Areas of hugetlb pages never merge: theirs have a `close` operation.
  func canMerge(
    _ area: MemoryArea, flags: MemoryArea.Flags, family: Int?, file: BackingFile?
  ) -> Bool {
    area.flags == flags && area.file == file && file != .hugetlb
      && areFamiliesMergeable(family, area.anonymousFamily, of: area)
  }

  /// `is_mergeable_anon_vma`. An area's `anon_vma_chain` has one element when it has a family, and none before.
  func areFamiliesMergeable(_ one: Int?, _ other: Int?, of area: MemoryArea?) -> Bool {
    if one == nil || other == nil,
      kernel.mergesIntoAreaWithoutFamily || area.map({ $0.anonymousFamily != nil }) ?? true
    {
      return true
    }
    return one == other
  }

  /// `__vma_adjust` without an insertion: the area gets new bounds. The next areas lose the part that overlaps.
  ///
  /// - Parameter expanding: The area that takes the place. If it is the next one and covered, the first area goes.
  private mutating func adjustArea(
    _ index: Int, to bounds: Range<HostVirtualAddress>, expanding: Int,
    notifier: inout some MMUNotifier
  ) {
    let area = areas[index]
    let next = index + 1
    var shift: Int64 = 0
    var removed: ClosedRange<Int>?
    var taker = index
    if areas.indices.contains(next) {
      if bounds.upperBound >= areas[next].end {
        if expanding == next {
          taker = next
          removed = index...index
        } else {
          removed = next...(bounds.upperBound > areas[next].end ? next + 1 : next)
        }
        if areas[taker].anonymousFamily == nil {
          areas[taker].anonymousFamily =
            (taker == next ? area : areas[next]).anonymousFamily
            ?? removed.flatMap { areas[$0.upperBound].anonymousFamily }
        }
      } else if bounds.upperBound > areas[next].start {
        shift = Int64(bounds.upperBound - areas[next].start)
        if areas[index].anonymousFamily == nil {
          areas[index].anonymousFamily = areas[next].anonymousFamily
        }
      } else if bounds.upperBound < area.end {
        shift = -Int64(area.end - bounds.upperBound)
        if areas[next].anonymousFamily == nil {
          areas[next].anonymousFamily = area.anonymousFamily
        }
      }
    }
    splitHugePages(of: area, adjustedTo: bounds, nextShiftedBy: shift, notifier: &notifier)
    areas[taker].start = bounds.lowerBound
    areas[taker].end = bounds.upperBound
    areaChanges += 1
    areas[taker].insertion = areaChanges
    if shift != 0 {
      areas[next].start = areas[next].start.advanced(by: Int(shift))
      areas[next].insertion = areaChanges
    }
    if let removed { areas.removeSubrange(removed) }
  }

  /// `__split_vma`
  ///
  /// - Parameter newBelow: The kernel makes the new area of the part below `address`, and shrinks the old one to the
  ///   part above. The calls of MMU notifiers differ only in the bound that moves.
  mutating func splitArea(
    _ index: Int, at address: HostVirtualAddress, newBelow: Bool, notifier: inout some MMUNotifier
  ) throws(KernelError) {
    guard areas.count < kernel.mostAreas else { throw .outOfMemory }
    let area = areas[index]
    // `hugetlb_vm_op_split`
    if area.flags.contains(.hugetlb), !address.isAligned(to: granule.blockSize) {
      throw .invalidArgument
    }
    splitHugePages(
      of: area, adjustedTo: newBelow ? address..<area.end : area.start..<address,
      nextShiftedBy: 0, notifier: &notifier)
    areaChanges += 1
    areas[index].insertion = areaChanges
    var above = areas[index]
    above.start = address
    areas[index].end = address
    areas.insert(above, at: index + 1)
  }

  /// `vma_adjust_trans_huge`: a bound that is not on a huge page's may stand in the middle of one, so that is split.
  ///
  /// Whether there is one is looked at after the MMU notifiers were told: all that the area has there goes from stage
  /// 2, huge or not.
  private mutating func splitHugePages(
    of area: MemoryArea, adjustedTo bounds: Range<HostVirtualAddress>, nextShiftedBy shift: Int64,
    notifier: inout some MMUNotifier
  ) {
    splitHugePageIfNeeded(of: area, at: bounds.lowerBound, notifier: &notifier)
    splitHugePageIfNeeded(of: area, at: bounds.upperBound, notifier: &notifier)
    if shift > 0, let next = firstArea(endingAfter: area.end) {
      splitHugePageIfNeeded(
        of: areas[next], at: areas[next].start + UInt64(shift), notifier: &notifier)
    }
  }

  /// `split_huge_pmd_if_needed`
  mutating func splitHugePageIfNeeded(
    of area: MemoryArea, at address: HostVirtualAddress, notifier: inout some MMUNotifier
  ) {
    let size = granule.blockSize
    let first = address.aligned(to: size)
    guard address != first, area.covers(first..<first + size) else { return }
    // `mm_find_pmd`
    guard process.hasDirectory(for: address, granule: granule) else { return }
    splitHugePMD(at: address, in: area, notifier: &notifier)
  }
}

extension Array {
  /// The index of the first element for which `belongs` is true. The function is true for all elements behind it.
  func partitioningIndex(where belongs: (Element) -> Bool) -> Int {
    var low = startIndex
    var high = endIndex
    while low < high {
      let middle = low + (high - low) / 2
      if belongs(self[middle]) { high = middle } else { low = middle + 1 }
    }
    return low
  }
}
