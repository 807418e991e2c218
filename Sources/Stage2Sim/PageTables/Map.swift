/// The permissions of a mapping, and the kind of its memory (`enum kvm_pgtable_prot`, with its bits).
public struct Protection: OptionSet, Hashable, Sendable {
  public let rawValue: UInt64

  public init(rawValue: UInt64) { self.rawValue = rawValue }

  /// The guest may execute (`KVM_PGTABLE_PROT_X`).
  public static let execute = Protection(rawValue: 1 << 0)
  /// The guest may write (`KVM_PGTABLE_PROT_W`).
  public static let write = Protection(rawValue: 1 << 1)
  /// The guest may read (`KVM_PGTABLE_PROT_R`).
  public static let read = Protection(rawValue: 1 << 2)
  /// Device-nGnRE memory, never executable.
  public static let device = Protection(rawValue: 1 << 3)
  /// Bit 55 of the entry, the first of four bits for software (`KVM_PGTABLE_PROT_SW0`).
  public static let software0 = Protection(rawValue: 1 << 55)
  /// Bit 56 of the entry, as ``software0``.
  public static let software1 = Protection(rawValue: 1 << 56)
  /// Bit 57 of the entry, as ``software0``.
  public static let software2 = Protection(rawValue: 1 << 57)
  /// Bit 58 of the entry, as ``software0``.
  public static let software3 = Protection(rawValue: 1 << 58)
}

extension Stage2PageTable {
  /// Maps `size` bytes from `address` to `physical`, with blocks if both are aligned to one:
  /// `kvm_pgtable_stage2_map`.
  ///
  /// A table that a block can replace is taken down; a block that is mapped smaller becomes a table.
  ///
  /// - Parameters:
  ///   - address: An IPA in bytes; rounded down to its page.
  ///   - size: In bytes; the end is rounded up to a page.
  ///   - physical: The address of the memory; rounded down to its page.
  ///   - protection: The permissions of the guest.
  ///   - canAllocate: False without a `memcache`, so that there is no page for a new table.
  /// - Throws: `EAGAIN` if the same mapping is there already, with any permissions: KVM relaxes permissions by another
  ///   function. `ENOMEM` if a table is missing and must not be made. `ERANGE` beyond ``ipaBits``. `EINVAL` for executable
  ///   device memory.
  public mutating func map(
    address: IntermediatePhysicalAddress, size: UInt64, physical: PhysicalAddress,
    protection: Protection,
    canAllocate: Bool = true
  ) throws(Stage2Error) {
    guard !protection.isSuperset(of: [.device, .execute]) else {
      throw Stage2Error(.invalidArgument, address: address)
    }
    var visitor = MapVisitor(
      physical: physical.aligned(to: granule.pageSize), attributes: leafAttributes(protection),
      permissions: kernel.permissions, canAllocate: canAllocate)
    try update(address: address, size: size, visitor: &visitor)
  }

  /// Unmaps `size` bytes from `address` and notes the owner of the pages in their invalid entries:
  /// `kvm_pgtable_stage2_set_owner`, which protected KVM uses.
  ///
  /// - Parameters:
  ///   - address: An IPA in bytes; rounded down to its page.
  ///   - size: In bytes; the end is rounded up to a page.
  ///   - owner: 0 for the owner of the table, whose entries are zero, up to `KVM_MAX_OWNER_ID`.
  ///   - canAllocate: False without a `memcache`.
  /// - Throws: `EINVAL` for other owners; as ``map(address:size:physical:protection:canAllocate:)``.
  public mutating func setOwner(
    address: IntermediatePhysicalAddress, size: UInt64, owner: UInt8, canAllocate: Bool = true
  ) throws(Stage2Error) {
    guard owner <= kernel.largestOwner else {
      throw Stage2Error(.invalidArgument, address: address)
    }
    var visitor = MapVisitor(
      physical: PhysicalAddress(.max), attributes: 0, permissions: kernel.permissions, owner: owner,
      canAllocate: canAllocate, forcesPages: true)
    try update(address: address, size: size, visitor: &visitor)
  }

  /// `stage2_set_prot_attr`
  func leafAttributes(_ protection: Protection) -> UInt64 {
    var attributes =
      memoryAttributes(isDevice: protection.contains(.device)) | Stage2Descriptor.innerShareable
      | Stage2Descriptor.accessFlag | protection.rawValue & Stage2Descriptor.software
    if !protection.contains(.execute) { attributes |= Stage2Descriptor.executeNever }
    if protection.contains(.read) { attributes |= Stage2Descriptor.read }
    if protection.contains(.write) { attributes |= Stage2Descriptor.write }
    return attributes & kernel.leafAttributes
  }

  /// MemAttr (`PAGE_S2_MEMATTR`): with FEAT_S2FWB normal memory is 0b0110, which the guest cannot weaken; without it
  /// 0b1111. Device-nGnRE is 0b0001 with both.
  func memoryAttributes(isDevice: Bool) -> UInt64 {
    (isDevice ? 0b0001 : hasFWB ? 0b0110 : 0b1111) << 2
  }

  /// `stage2_pte_cacheable`
  func isCacheable(_ descriptor: Stage2Descriptor) -> Bool {
    descriptor.rawValue & Stage2Descriptor.memoryAttributes == memoryAttributes(isDevice: false)
  }

  /// Clears the entry of `visit` (`kvm_clear_pte`) with break-before-make if it was valid, and drops its reference:
  /// `stage2_put_pte`.
  @inline(__always)  // as it is part of what loops do
  mutating func removeEntry(_ visit: Visit) {
    let old = self[visit.entry]
    if old.isValid {
      memory[visit.entry] = Stage2Descriptor(rawValue: 0)
      let level = old.isTable(level: visit.level) ? 0 : visit.level
      events.emit(.invalidation(ipa: visit.address, level: level))
    }
    memory.release(visit.entry)
  }

  /// `dcache_clean_inval_poc` for the memory that `descriptor` maps.
  func cleanDataCache(_ descriptor: Stage2Descriptor, size: UInt64) {
    events.emit(.dataCacheClean(physical: descriptor.outputAddress(granule), size: size))
  }

  /// `icache_inval_pou` for the memory that `descriptor` maps.
  func invalidateInstructionCache(_ descriptor: Stage2Descriptor, size: UInt64) {
    events.emit(
      .instructionCacheInvalidation(physical: descriptor.outputAddress(granule), size: size))
  }
}

/// `stage2_map_walker` with its `struct stage2_map_data`.
///
/// On the way down it looks for a table that one block can replace (the anchor), and detaches it; below an anchor the
/// leaves only lose their references, and on the way up the tables are freed and the block takes the anchor's place.
private struct MapVisitor: Stage2Visitor {
  static let flags: WalkFlags = [.tablePre, .leaf, .tablePost]

  /// The address that is mapped; an address that no CPU has (``isPhysicalValid``) if pages get an owner instead.
  var physical: PhysicalAddress
  let attributes: UInt64
  /// ``KernelVersion/permissions``
  let permissions: UInt64
  let owner: UInt8
  let canAllocate: Bool
  let forcesPages: Bool
  var anchor: EntryReference?
  var detached: EntryReference?

  init(
    physical: PhysicalAddress, attributes: UInt64, permissions: UInt64, owner: UInt8 = 0,
    canAllocate: Bool, forcesPages: Bool = false
  ) {
    self.physical = physical
    self.attributes = attributes
    self.permissions = permissions
    self.owner = owner
    self.canAllocate = canAllocate
    self.forcesPages = forcesPages
  }

  // The code for each leaf is short, so that the compiler inlines it in the walk's loop. The other functions are never inlined.
  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) throws(Stage2Error) {
    switch visit.kind {
    case .tablePre:
      if anchor == nil, isLeafAllowed(visit, granule: table.granule) {
        try visitTableBefore(visit, in: &table)
      }
    case .tablePost:
      if anchor != nil { try visitTableAfter(visit, in: &table) }
    default: try visitLeaf(visit, in: &table)
    }
  }

  /// `stage2_map_walk_table_pre`, at a table that one leaf can replace.
  @inline(never)
  private mutating func visitTableBefore(
    _ visit: Visit, in table: inout Stage2PageTable
  ) throws(Stage2Error) {
    detached = try table.table(below: visit)
    table.memory[visit.entry] = Stage2Descriptor(rawValue: 0)
    table.events.emit(.invalidationOfAll)
    anchor = visit.entry
  }

  /// `stage2_map_walk_leaf`
  @inline(__always)
  private mutating func visitLeaf(
    _ visit: Visit, in table: inout Stage2PageTable
  ) throws(Stage2Error) {
    if anchor != nil {
      if table[visit.entry].isCounted { table.memory.release(visit.entry) }
    } else if isLeafAllowed(visit, granule: table.granule) {
      try installLeaf(visit, in: &table)
    } else {
      try installTable(visit, in: &table)
    }
  }

  /// `stage2_map_walk_leaf` if no leaf of this level fits.
  @inline(never)
  private func installTable(
    _ visit: Visit, in table: inout Stage2PageTable
  ) throws(Stage2Error) {
    guard canAllocate, table.memory.hasRoom else { throw visit.error(.outOfMemory, in: table) }
    // Read first: the new table can be the page that the entry stands in, freed too early.
    let old = table[visit.entry]
    let child = table.memory.allocate()
    if old.isCounted { table.removeEntry(visit) }
    table.memory[visit.entry] = Stage2Descriptor(tableAt: table.memory.physicalAddress(of: child))
    table.memory.retain(visit.entry)
  }

  /// `stage2_map_walk_table_post`, at an anchor or below.
  @inline(never)
  private mutating func visitTableAfter(
    _ visit: Visit, in table: inout Stage2PageTable
  ) throws(Stage2Error) {
    let child: EntryReference
    if anchor == visit.entry, let detached {
      child = detached
      self.anchor = nil
      self.detached = nil
      // The call cannot fail: the entry is clear, and a leaf of this level was found to fit.
      try visitLeaf(visit, in: &table)
    } else {
      child = try table.table(below: visit)
    }
    table.memory.release(child)
    table.memory.release(visit.entry)
  }

  /// `stage2_map_walker_try_leaf`, if a leaf of this level fits. Otherwise, the kernel's function returns `E2BIG`.
  private mutating func installLeaf(
    _ visit: Visit, in table: inout Stage2PageTable
  ) throws(Stage2Error) {
    let new =
      isPhysicalValid
      ? Stage2Descriptor(
        leafAt: visit.level, mapping: physical, attributes: attributes, granule: table.granule)
      : Stage2Descriptor(invalidOwnedBy: owner)
    if table[visit.entry].isCounted { try breakEntry(for: new, visit, in: &table) }
    // The kernel looks at the attributes of an entry with an owner, too.
    if table.events.isConnected {
      if table.isCacheable(new) { table.cleanDataCache(new, size: visit.size) }
      if new.isExecutable { table.invalidateInstructionCache(new, size: visit.size) }
    }
    table.memory[visit.entry] = new
    if new.isCounted { table.memory.retain(visit.entry) }
    if isPhysicalValid { physical = physical &+ visit.size }
  }

  /// `stage2_pte_needs_update`, and the end of the old entry.
  @inline(never)
  private func breakEntry(
    for new: Stage2Descriptor, _ visit: Visit, in table: inout Stage2PageTable
  ) throws(Stage2Error) {
    let old = table[visit.entry]
    let changed = (old.rawValue ^ new.rawValue) & ~permissions
    if old.isValid && new.isValid && changed == 0 { throw visit.error(.tryAgain, in: table) }
    table.removeEntry(visit)
  }

  /// `stage2_leaf_mapping_allowed`
  private func isLeafAllowed(_ visit: Visit, granule: Granule) -> Bool {
    guard !forcesPages || visit.level == Granule.lastLevel else { return false }
    // `kvm_block_mapping_supported`
    return visit.size <= visit.end &- visit.address && granule.allowsLeaf(level: visit.level)
      && (!isPhysicalValid || physical.isAligned(to: visit.size))
      && visit.address.isAligned(to: visit.size)
  }

  /// `kvm_phys_is_valid`, with 48-bit physical addresses.
  var isPhysicalValid: Bool { physical.fits(bits: 48) }
}
