extension Stage2PageTable {
  /// Takes the write permission from the leaves of `size` bytes from `address`: `kvm_pgtable_stage2_wrprotect`. It
  /// invalidates no TLB: its callers do.
  ///
  /// - Throws: `ERANGE` beyond ``ipaBits``.
  public mutating func writeProtect(address: IntermediatePhysicalAddress, size: UInt64)
    throws(Stage2Error)
  {
    _ = try updateLeafAttributes(
      address: address, size: size, set: 0, clear: Stage2Descriptor.write)
  }

  /// Sets the access flag of the leaf for `address`: `kvm_pgtable_stage2_mkyoung`.
  ///
  /// - Returns: The entry as it was; 0 where nothing is mapped.
  @discardableResult
  public mutating func makeYoung(address: IntermediatePhysicalAddress) -> Stage2Descriptor {
    update(address: address, set: Stage2Descriptor.accessFlag)
  }

  /// Clears the access flag of the leaf for `address`: `kvm_pgtable_stage2_mkold`. It invalidates no TLB.
  ///
  /// - Returns: The entry as it was; 0 where nothing is mapped.
  @discardableResult
  public mutating func makeOld(address: IntermediatePhysicalAddress) -> Stage2Descriptor {
    update(address: address, clear: Stage2Descriptor.accessFlag)
  }

  /// Whether the leaf for `address` has its access flag set: `kvm_pgtable_stage2_is_young`.
  public func isYoung(address: IntermediatePhysicalAddress) -> Bool {
    guard let entry = try? leaf(for: address).descriptor, entry.isValid else { return false }
    return entry.rawValue & Stage2Descriptor.accessFlag != 0
  }

  /// Gives the leaf for `address` the permissions it lacks; takes none: `kvm_pgtable_stage2_relax_perms`.
  ///
  /// To let the guest execute it clears XN[1], and with FEAT_XNX that is not always enough: XN = 0b01, made by
  /// hiding a byte, keeps refusing EL1.
  ///
  /// - Throws: `ERANGE` beyond ``ipaBits``; `EINVAL` for software bits.
  public mutating func relaxPermissions(
    address: IntermediatePhysicalAddress, protection: Protection
  ) throws(Stage2Error) {
    guard protection.rawValue & Stage2Descriptor.software == 0 else {
      throw Stage2Error(.invalidArgument, address: address)
    }
    var set: UInt64 = 0
    var clear: UInt64 = 0
    if protection.contains(.read) { set |= Stage2Descriptor.read }
    if protection.contains(.write) { set |= Stage2Descriptor.write }
    if protection.contains(.execute) { clear |= Stage2Descriptor.executeNever }
    let old = try updateLeafAttributes(address: address, size: 1, set: set, clear: clear)
    events.emit(.invalidation(ipa: address, level: old?.level ?? 0))
  }

  /// One page's leaf. The kernel's callers look at no error, and where there is one take the entry for 0.
  private mutating func update(
    address: IntermediatePhysicalAddress, set: UInt64 = 0, clear: UInt64 = 0
  ) -> Stage2Descriptor {
    let leaf = try? updateLeafAttributes(address: address, size: 1, set: set, clear: clear)
    return leaf?.descriptor ?? Stage2Descriptor(rawValue: 0)
  }

  /// `stage2_update_leaf_attrs`: the last valid leaf of the range as it was, nil where there is none.
  private mutating func updateLeafAttributes(
    address: IntermediatePhysicalAddress, size: UInt64, set: UInt64, clear: UInt64
  ) throws(Stage2Error) -> Leaf? {
    let attributes = kernel.leafAttributes
    var visitor = AttributeVisitor(set: set & attributes, clear: clear & attributes)
    try update(address: address, size: size, visitor: &visitor)
    return visitor.previous
  }
}

/// `stage2_attr_walker`
private struct AttributeVisitor: Stage2Visitor {
  static let flags = WalkFlags.leaf

  let set: UInt64
  let clear: UInt64
  var previous: Leaf?

  init(set: UInt64, clear: UInt64) {
    self.set = set
    self.clear = clear
  }

  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) {
    let old = table[visit.entry]
    guard old.isValid else { return }
    previous = Leaf(descriptor: old, level: visit.level)
    let new = Stage2Descriptor(rawValue: old.rawValue & ~clear | set)
    guard new != old else { return }
    if new.isExecutable, !old.isExecutable {
      table.invalidateInstructionCache(new, size: visit.size)
    }
    table.memory[visit.entry] = new
  }
}
