extension Stage2PageTable {
  /// Gives the leaf for `address` the permissions it lacks; takes none: `kvm_pgtable_stage2_relax_perms`.
  ///
  /// To let the guest execute it clears XN[1], and with FEAT_XNX that is not always enough: XN = 0b01, made by
  /// hiding a byte, keeps refusing EL1.
  ///
  /// - Throws: `ERANGE` beyond ``ipaBits``.
  public mutating func relaxPermissions(
    address: UInt64, protection: Protection
  ) throws(KernelError) {
    var set: UInt64 = 0
    var clear: UInt64 = 0
    if protection.contains(.read) { set |= Stage2Descriptor.read }
    if protection.contains(.write) { set |= Stage2Descriptor.write }
    if protection.contains(.execute) { clear |= Stage2Descriptor.executeNever }
    let old = try updateLeafAttributes(address: address, size: 1, set: set, clear: clear)
    observer?.observe(.invalidation(ipa: address, level: old?.level ?? 0))
  }

  /// Sets the access flag of the leaf for `address`: `kvm_pgtable_stage2_mkyoung`.
  ///
  /// - Throws: `ERANGE` beyond ``ipaBits``.
  public mutating func makeYoung(address: UInt64) throws(KernelError) {
    _ = try updateLeafAttributes(
      address: address, size: 1, set: Stage2Descriptor.accessFlag, clear: 0)
  }

  /// `stage2_update_leaf_attrs`: the last valid leaf of the range as it was, nil where there is none.
  mutating func updateLeafAttributes(
    address: UInt64, size: UInt64, set: UInt64, clear: UInt64
  ) throws(KernelError) -> Leaf? {
    let attributes = Stage2Descriptor.lowAttributes | Stage2Descriptor.highAttributes
    var visitor = AttributeVisitor(set: set & attributes, clear: clear & attributes)
    try walk(address: address, size: size, visitor: &visitor)
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
    table[visit.entry] = Stage2Descriptor(rawValue: old.rawValue & ~clear | set)
  }
}
