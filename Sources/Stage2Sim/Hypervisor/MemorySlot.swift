/// A range of guest RAM and the VMM's memory behind it: `struct kvm_memory_slot`.
public struct MemorySlot: Hashable, Sendable {
  /// The options of a slot (`KVM_MEM_*`).
  public struct Flags: OptionSet, Hashable, Sendable {
    public let rawValue: Int

    public init(rawValue: Int) { self.rawValue = rawValue }

    /// `KVM_MEM_LOG_DIRTY_PAGES`
    public static let logDirtyPages = Flags(rawValue: 1 << 0)
    /// `KVM_MEM_READONLY`: a guest's store is taken to the MMIO path.
    public static let readOnly = Flags(rawValue: 1 << 1)
  }

  /// The VMM's number for it.
  public let id: Int
  /// The first guest physical address.
  public let ipa: IntermediatePhysicalAddress
  /// The size in bytes, whole pages.
  public let size: UInt64
  /// The first address in the VMM's address space.
  public let userspaceAddress: HostVirtualAddress
  /// The options.
  public let flags: Flags
  /// A bit for each page, 64 in an element: written since the VMM last asked. Empty if the slot logs nothing.
  var dirtyBitmap: [UInt64] = []

  /// A slot for ``VirtualMachine/setMemoryRegion(_:)``, which checks it.
  ///
  /// - Parameters:
  ///   - id: The VMM's number for the slot.
  ///   - ipa: The first guest physical address.
  ///   - size: The size in bytes, whole pages; 0 deletes the slot.
  ///   - userspaceAddress: Where it begins in the VMM's address space.
  ///   - flags: The options.
  public init(
    id: Int, ipa: IntermediatePhysicalAddress, size: UInt64, userspaceAddress: HostVirtualAddress,
    flags: Flags = []
  ) {
    self.id = id
    self.ipa = ipa
    self.size = size
    self.userspaceAddress = userspaceAddress
    self.flags = flags
  }

  /// Whether a guest's store leaves for the MMIO path.
  public var isReadOnly: Bool { flags.contains(.readOnly) }

  /// `memslot_is_logging`
  var isLogging: Bool { !dirtyBitmap.isEmpty && !isReadOnly }

  /// Whether a guest physical address is in the slot.
  public func contains(_ address: IntermediatePhysicalAddress) -> Bool { address &- ipa < size }

  /// `gfn_to_hva_memslot`, to the byte.
  func userspaceAddress(of address: IntermediatePhysicalAddress) -> HostVirtualAddress {
    userspaceAddress + (address - ipa)
  }

  var range: Range<IntermediatePhysicalAddress> { ipa..<ipa + size }

  /// The part of a range of the VMM's memory that is the guest's, as guest physical addresses.
  func guestRange(of range: Range<HostVirtualAddress>) -> Range<IntermediatePhysicalAddress>? {
    let part = range.clamped(to: userspaceAddress..<userspaceAddress + size)
    guard !part.isEmpty else { return nil }
    let start = ipa + (part.lowerBound - userspaceAddress)
    return start..<start + part.size
  }

  /// `fault_supports_stage2_huge_mapping`: whether a block of `blockSize` bytes around `address` lies inside the
  /// slot, with both addresses alike in their low bits.
  func supportsBlock(of blockSize: UInt64, at address: IntermediatePhysicalAddress) -> Bool {
    guard ipa.offset(in: blockSize) == userspaceAddress.offset(in: blockSize) else {
      return false
    }
    let start = address.aligned(to: blockSize)
    return start >= ipa && start + blockSize <= ipa + size
  }
}

/// The rule for clearing the bits of the dirty log and protecting pages again (`KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2`).
public enum DirtyLogProtection: String, CaseIterable, Sendable {
  /// Reading the log clears and protects.
  case automatic
  /// A call of its own clears and protects.
  case manual
  /// A call of its own clears and protects. In the beginning, every page is dirty and none is protected.
  case initiallySet = "initially-set"
}

/// The state that KVM keeps of a VM: `struct kvm`.
public struct KVM {
  /// The stage-2 table: `kvm->arch.mmu.pgt`.
  public var stage2: Stage2PageTable
  /// The memory slots: `kvm->memslots`.
  public internal(set) var slots: [MemorySlot] = []
  var dirtyLogProtection = DirtyLogProtection.automatic
  /// `mmu_invalidate_seq`: changes when the VMM's mappings have changed.
  var invalidationSequence = 0
  /// `mmu_invalidate_in_progress`
  var invalidationsInProgress = 0

  /// Logs a line into the host's kernel log: `printk`.
  @inlinable @inline(__always)
  public func printk(_ message: LogMessage) { stage2.events.emit(.log(message)) }

  /// Logs a line into the host's kernel log, with a text that is made as the program runs.
  ///
  /// - Parameters:
  ///   - text: The line.
  ///   - layer: The layer that logs: ``EventLayer/hook``, or ``EventLayer/checker`` for a line that no kernel has.
  public func printk(text: String, layer: EventLayer = .hook) { stage2.events.log(text, layer) }

  /// `gfn_to_memslot`
  func slot(for address: IntermediatePhysicalAddress) -> MemorySlot? {
    slots.index(for: address).map { slots[$0] }
  }
}

extension [MemorySlot] {
  /// The index of the slot that an address is in.
  @inline(__always)
  func index(for address: IntermediatePhysicalAddress) -> Int? {
    for index in indices where self[index].contains(address) { return index }
    return nil
  }
}

/// KVM_SET_USER_MEMORY_REGION, KVM_GET_DIRTY_LOG and KVM_CLEAR_DIRTY_LOG (virt/kvm/kvm_main.c).
extension KVM {
  /// `__kvm_set_memory_region`: makes a slot, changes it, or, with no size, deletes it.
  ///
  /// - Throws: `EINVAL` if the slot is not there, or if the change is not possible; `EEXIST` if the slot would
  ///   overlap another; `EFAULT` beyond the IPA range.
  mutating func setMemoryRegion(_ new: MemorySlot) throws(KernelError) {
    let pageSize = stage2.granule.pageSize
    guard new.ipa.isAligned(to: pageSize), new.size % pageSize == 0,
      new.userspaceAddress.isAligned(to: pageSize)
    else { throw .invalidArgument }
    guard let index = slots.firstIndex(where: { $0.id == new.id }) else {
      guard new.size > 0 else { throw .invalidArgument }
      try checkOverlap(of: new)
      try insert(new, dirtyBitmap: [])
      return
    }
    let old = slots[index]
    guard new.size > 0 else {
      unmap(old.range)
      slots.remove(at: index)
      return
    }
    guard
      new.userspaceAddress == old.userspaceAddress, new.size == old.size,
      new.isReadOnly == old.isReadOnly
    else { throw .invalidArgument }
    if new.ipa != old.ipa {
      try checkOverlap(of: new)
      // `kvm_invalidate_memslot`, `kvm_arch_flush_shadow_memslot`
      unmap(old.range)
    } else if new.flags == old.flags {
      return
    }
    slots.remove(at: index)
    do {
      try insert(new, dirtyBitmap: old.dirtyBitmap)
    } catch {
      slots.insert(old, at: index)
      throw error
    }
  }

  /// `kvm_check_memslot_overlap`
  private func checkOverlap(of new: MemorySlot) throws(KernelError) {
    guard !slots.contains(where: { $0.id != new.id && $0.range.overlaps(new.range) }) else {
      throw .exists
    }
  }

  /// `kvm_prepare_memory_region`, `kvm_arch_prepare_memory_region`, `kvm_arch_commit_memory_region`
  private mutating func insert(
    _ new: MemorySlot, dirtyBitmap: [UInt64]
  ) throws(KernelError) {
    guard new.range.upperBound <= IntermediatePhysicalAddress(1 << UInt64(stage2.ipaBits)) else {
      throw .badAddress
    }
    var new = new
    let logs = new.flags.contains(.logDirtyPages)
    if logs {
      new.dirtyBitmap = dirtyBitmap.isEmpty ? freshDirtyBitmap(of: new) : dirtyBitmap
    }
    slots.append(new)
    if logs, dirtyLogProtection != .initiallySet {
      // `kvm_mmu_wp_memory_region`
      writeProtect(new.range)
      flushTLBs()
    }
  }

  private func pageCount(of slot: MemorySlot) -> Int {
    Int(slot.size >> UInt64(stage2.granule.pageShift))
  }

  /// `kvm_alloc_dirty_bitmap`
  private func freshDirtyBitmap(of slot: MemorySlot) -> [UInt64] {
    let pages = pageCount(of: slot)
    var bitmap = [UInt64](
      repeating: dirtyLogProtection == .initiallySet ? .max : 0, count: (pages + 63) / 64)
    if pages % 64 != 0 { bitmap[bitmap.count - 1] &= 1 << UInt64(pages % 64) - 1 }
    return bitmap
  }

  /// `mark_page_dirty_in_slot`
  mutating func markDirty(_ address: IntermediatePhysicalAddress, in slot: MemorySlot) {
    guard slot.flags.contains(.logDirtyPages),
      let index = slots.firstIndex(where: { $0.id == slot.id })
    else { return }
    let page = Int((address - slot.ipa) >> UInt64(stage2.granule.pageShift))
    slots[index].dirtyBitmap[page / 64] |= 1 << UInt64(page % 64)
  }

  /// `kvm_get_dirty_log_protect`
  ///
  /// - Throws: `ENOENT` if the slot logs nothing.
  mutating func dirtyLog(ofSlot id: Int) throws(KernelError) -> [UInt64] {
    stage2.events.enter(.getDirtyLog)
    defer { stage2.events.leave() }
    guard let index = slots.firstIndex(where: { $0.id == id && !$0.dirtyBitmap.isEmpty }) else {
      throw .noEntry
    }
    let bitmap = slots[index].dirtyBitmap
    guard dirtyLogProtection == .automatic else { return bitmap }
    cleanPages(inWords: 0..<bitmap.count, ofSlotAt: index)
    return bitmap
  }

  /// `kvm_clear_dirty_log_protect` for all pages of a range.
  ///
  /// - Throws: `ENOENT` if the slot logs nothing; `EINVAL` if the range is not of whole groups of 64 pages.
  mutating func clearDirtyLog(
    ofSlot id: Int, firstPage: Int, pageCount count: Int
  ) throws(KernelError) {
    stage2.events.enter(.clearDirtyLog)
    defer { stage2.events.leave() }
    guard firstPage % 64 == 0 else { throw .invalidArgument }
    guard let index = slots.firstIndex(where: { $0.id == id && !$0.dirtyBitmap.isEmpty }) else {
      throw .noEntry
    }
    let pages = pageCount(of: slots[index])
    guard firstPage <= pages, count <= pages - firstPage,
      count == pages - firstPage || count % 64 == 0
    else { throw .invalidArgument }
    cleanPages(
      inWords: firstPage / 64..<(firstPage + count + 63) / 64, ofSlotAt: index)
  }

  /// Clears the bits of some words of the bitmap, and protects the pages that were dirty.
  private mutating func cleanPages(inWords words: Range<Int>, ofSlotAt index: Int) {
    var hasChanged = false
    for word in words {
      let mask = slots[index].dirtyBitmap[word]
      guard mask != 0 else { continue }
      hasChanged = true
      slots[index].dirtyBitmap[word] = 0
      writeProtect(pages: mask, from: word * 64, in: slots[index])
    }
    if hasChanged { flushTLBs() }
  }

  /// `kvm_arch_mmu_enable_log_dirty_pt_masked`, `kvm_mmu_write_protect_pt_masked`: from the first page of the mask to its
  /// last.
  private mutating func writeProtect(pages mask: UInt64, from first: Int, in slot: MemorySlot) {
    let size = stage2.granule.pageSize
    let start = slot.ipa + UInt64(first + mask.trailingZeroBitCount) * size
    let end = slot.ipa + UInt64(first + 64 - mask.leadingZeroBitCount) * size
    writeProtect(start..<end)
  }
}
