/// The permissions of a mapping, and the kind of its memory (`enum kvm_pgtable_prot`, with the bits that 6.12 has).
public struct Protection: OptionSet, Hashable, Sendable {
  public let rawValue: UInt64

  public init(rawValue: UInt64) { self.rawValue = rawValue }

  /// The guest may execute at EL1 and at EL0 (`KVM_PGTABLE_PROT_X`).
  public static let execute = Protection(rawValue: 1 << 0)
  /// The guest may write (`KVM_PGTABLE_PROT_W`).
  public static let write = Protection(rawValue: 1 << 1)
  /// The guest may read (`KVM_PGTABLE_PROT_R`).
  public static let read = Protection(rawValue: 1 << 2)
  /// Device-nGnRE memory, never executable.
  public static let device = Protection(rawValue: 1 << 3)
  /// Normal memory that is not cached, never executable (`KVM_PGTABLE_PROT_NORMAL_NC`, of 6.9 and later).
  public static let normalNonCacheable = Protection(rawValue: 1 << 4)
  /// The guest may execute at EL1 only (`KVM_PGTABLE_PROT_PX`, of 7.0 and later). The CPU needs FEAT_XNX.
  public static let privilegedExecute = Protection(rawValue: 1 << 5)
  /// The guest may execute at EL0 only (`KVM_PGTABLE_PROT_UX`, of 7.0 and later). The CPU needs FEAT_XNX.
  public static let unprivilegedExecute = Protection(rawValue: 1 << 6)
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
  ///   - flags: The flags of the walk, in 6.12 and 7.3. By default, these are the flags that KVM gives it at a fault.
  /// - Throws: `EAGAIN` if the same mapping is there already, with any permissions: KVM relaxes permissions by another
  ///   function. Version 5.10 allows the same mapping, and replaces one with other permissions. `ENOMEM` if a table is missing
  ///   and must not be made. `ERANGE` beyond ``ipaBits``. `EINVAL` for device memory or memory that is not cached, if it is
  ///   executable.
  public mutating func map(
    address: IntermediatePhysicalAddress, size: UInt64, physical: PhysicalAddress,
    protection: Protection, canAllocate: Bool = true, flags: WalkFlags? = nil
  ) throws(Stage2Error) {
    events.enter(.map)
    defer { events.leave() }
    guard let attributes = leafAttributes(protection) else {
      throw Stage2Error(.invalidArgument, address: address)
    }
    let physical = physical.aligned(to: granule.pageSize)
    switch kernel {
    case .linux510:
      var visitor = MapVisitor510(
        physical: physical, attributes: attributes, canAllocate: canAllocate)
      try update(address: address, size: size, visitor: &visitor)
    case .linux61:
      var visitor = MapVisitor61(
        physical: physical, attributes: attributes, permissions: kernel.permissions,
        canAllocate: canAllocate)
      try update(address: address, size: size, visitor: &visitor)
    case .linux612, .linux73:
      var visitor = MapVisitor612(
        physical: physical, attributes: attributes, in: self, from: address,
        canAllocate: canAllocate, flags: flags ?? kernel.faultFlags)
      try mapReplacing(&visitor, address: address, size: size)
    }
  }

  /// Unmaps `size` bytes from `address` and notes the owner of the pages in their invalid entries:
  /// `kvm_pgtable_stage2_set_owner`, which protected KVM uses.
  ///
  /// - Parameters:
  ///   - address: An IPA in bytes; rounded down to its page.
  ///   - size: In bytes; the end is rounded up to a page.
  ///   - owner: 0 for the owner of the table, whose entries are zero, up to `KVM_MAX_OWNER_ID`.
  ///   - canAllocate: False without a `memcache`.
  /// - Throws: `EINVAL` for other owners; as ``map(address:size:physical:protection:canAllocate:flags:)``.
  public mutating func setOwner(
    address: IntermediatePhysicalAddress, size: UInt64, owner: UInt8, canAllocate: Bool = true
  ) throws(Stage2Error) {
    guard let largest = kernel.largestOwner, owner <= largest else {
      throw Stage2Error(.invalidArgument, address: address)
    }
    if rereadsEntries {
      var visitor = MapVisitor612(
        annotation: Stage2Descriptor(invalidOwnedBy: owner), in: self, from: address,
        canAllocate: canAllocate)
      try mapReplacing(&visitor, address: address, size: size)
    } else {
      var visitor = MapVisitor61(
        physical: PhysicalAddress(.max), attributes: 0, permissions: kernel.permissions,
        owner: owner, canAllocate: canAllocate, forcesPages: true)
      try update(address: address, size: size, visitor: &visitor)
    }
  }

  /// Unmaps `size` bytes from `address` and writes a note into the invalid entries of the pages: `kvm_pgtable_stage2_annotate`
  /// of 7.3, which protected KVM uses.
  ///
  /// - Parameters:
  ///   - address: An IPA in bytes; rounded down to its page.
  ///   - size: In bytes; the end is rounded up to a page.
  ///   - type: The kind of the note (`enum kvm_invalid_pte_type`), for bits [63:60] of the entry: 2 to 15.
  ///   - annotation: Bits [59:1] of the entry.
  ///   - canAllocate: False without a `memcache`.
  /// - Throws: `EINVAL` for other types and bits, and in other versions; as
  ///   ``map(address:size:physical:protection:canAllocate:flags:)``.
  public mutating func annotate(
    address: IntermediatePhysicalAddress, size: UInt64, type: UInt8, annotation: UInt64,
    canAllocate: Bool = true
  ) throws(Stage2Error) {
    guard kernel == .linux73, annotation & Stage2Descriptor.annotation == annotation,
      type != 0, type != Stage2Descriptor.lockedType
    else { throw Stage2Error(.invalidArgument, address: address) }
    let entry = Stage2Descriptor(rawValue: annotation | UInt64(type) << 60)
    var visitor = MapVisitor612(
      annotation: entry, in: self, from: address, canAllocate: canAllocate)
    try mapReplacing(&visitor, address: address, size: size)
  }

  /// `stage2_set_prot_attr`, in 5.10 `stage2_map_set_prot_attr`: nil for `EINVAL`.
  func leafAttributes(_ protection: Protection) -> UInt64? {
    let execute: Protection = [.execute, .privilegedExecute, .unprivilegedExecute]
    let isDevice = protection.contains(.device)
    let isNonCacheable = protection.contains(.normalNonCacheable) && kernel.hasNonCacheable
    guard !(isDevice && isNonCacheable),
      !(isDevice || isNonCacheable) || protection.isDisjoint(with: execute),
      let executeNever = executeNever(protection)
    else { return nil }
    var attributes = isNonCacheable ? 0b0101 << 2 : memoryAttributes(isDevice: isDevice)
    attributes |= Stage2Descriptor.accessFlag
    // With FEAT_LPA2, bits of the address are in the place of SH.
    if physicalAddressBits == 48 || granule == .kib64 {
      attributes |= Stage2Descriptor.innerShareable
    }
    attributes |= executeNever
    if kernel != .linux510 { attributes |= protection.rawValue & Stage2Descriptor.software }
    if protection.contains(.read) { attributes |= Stage2Descriptor.read }
    if protection.contains(.write) { attributes |= Stage2Descriptor.write }
    return attributes & kernel.leafAttributes
  }

  /// XN for a protection: `stage2_set_xn_attr` of 7.3. Nil if the CPU needs FEAT_XNX for it, and has none.
  func executeNever(_ protection: Protection) -> UInt64? {
    guard kernel == .linux73 else {
      return protection.contains(.execute) ? 0 : Stage2Descriptor.executeNever
    }
    let all = protection.contains(.execute)
    let privileged = all || protection.contains(.privilegedExecute)
    let unprivileged = all || protection.contains(.unprivilegedExecute)
    guard hasXNX || privileged == unprivileged else { return nil }
    return switch (privileged, unprivileged) {
    case (true, true): 0
    case (false, true): Stage2Descriptor.executeNever0
    case (false, false): Stage2Descriptor.executeNever
    case (true, false): Stage2Descriptor.executeNever | Stage2Descriptor.executeNever0
    }
  }

  /// MemAttr (`PAGE_S2_MEMATTR`): with FEAT_S2FWB normal memory is 0b0110, which the guest cannot weaken; without it
  /// 0b1111. Device-nGnRE is 0b0001 with both.
  func memoryAttributes(isDevice: Bool) -> UInt64 {
    (isDevice ? 0b0001 : hasFWB ? 0b0110 : 0b1111) << 2
  }

  /// `stage2_pte_cacheable`, without the test of bit 0 that later versions have in it
  func isCacheable(_ descriptor: Stage2Descriptor) -> Bool {
    descriptor.rawValue & Stage2Descriptor.memoryAttributes == memoryAttributes(isDevice: false)
  }

  /// Clears the entry at `place` (`kvm_clear_pte`) with break-before-make if it was valid, and drops its reference:
  /// `stage2_put_pte`, in 6.12 and 7.3 `stage2_unmap_put_pte`.
  ///
  /// - Parameter old: The entry before.
  @inline(__always)  // as it is part of what loops do
  mutating func removeEntry(_ place: EntryPlace, old: Stage2Descriptor) {
    if old.isValid {
      memory[place.entry] = Stage2Descriptor(rawValue: 0)
      let level = old.isTable(level: place.level) ? 0 : place.level
      events.emit(.invalidation(ipa: place.address, level: level))
    }
    memory.release(place.entry)
  }

  /// Whether the guest may execute what an entry maps (`stage2_pte_executable`).
  ///
  /// - Parameter executeNever: ``KernelVersion/executeNever``
  @inline(__always)
  func isExecutable(_ descriptor: Stage2Descriptor, executeNever: UInt64) -> Bool {
    descriptor.rawValue & executeNever != Stage2Descriptor.executeNever
  }

  /// `dcache_clean_inval_poc` for the memory that `descriptor` maps.
  func cleanDataCache(_ descriptor: Stage2Descriptor, size: UInt64) {
    events.emit(
      .dataCacheClean(physical: addressFormat.address(in: descriptor, granule), size: size))
  }

  /// `icache_inval_pou` for the memory that `descriptor` maps.
  func invalidateInstructionCache(_ descriptor: Stage2Descriptor, size: UInt64) {
    events.emit(
      .instructionCacheInvalidation(
        physical: addressFormat.address(in: descriptor, granule), size: size))
  }

  /// A leaf: `kvm_init_valid_leaf_pte`, in 5.10 part of `kvm_set_valid_leaf_pte`.
  @inline(__always)
  func leaf(
    at level: Int, mapping physical: PhysicalAddress, attributes: UInt64
  ) -> Stage2Descriptor {
    let type = level == Granule.lastLevel ? Stage2Descriptor.tableOrPage : 0
    return Stage2Descriptor(
      rawValue: addressFormat.bits(of: physical, granule) | attributes | type
        | Stage2Descriptor.valid)
  }
}

extension Visit {
  /// Whether a leaf of this level may map the memory: `kvm_block_mapping_supported`.
  @inline(__always)
  func supportsBlock(_ granule: Granule, physicalIsAligned: Bool) -> Bool {
    size <= end &- address && granule.allowsLeaf(level: level) && physicalIsAligned
      && address.isAligned(to: size)
  }
}
