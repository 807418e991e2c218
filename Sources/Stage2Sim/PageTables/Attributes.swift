extension Stage2PageTable {
  /// Takes the write permission from the leaves of `size` bytes from `address`: `kvm_pgtable_stage2_wrprotect`. It
  /// invalidates no TLB: its callers do.
  ///
  /// - Throws: `ERANGE` beyond ``ipaBits``.
  public mutating func writeProtect(address: IntermediatePhysicalAddress, size: UInt64)
    throws(Stage2Error)
  {
    events.enter(.writeProtect)
    defer { events.leave() }
    _ = try updateLeafAttributes(
      address: address, size: size, set: 0, clear: Stage2Descriptor.write,
      flags: kernel.writeProtectFlags)
  }

  /// Sets the access flag of the leaf for `address`: `kvm_pgtable_stage2_mkyoung`.
  ///
  /// - Parameters:
  ///   - address: An IPA in bytes; rounded down to its page.
  ///   - flags: The flags of the walk, in 7.3. By default, these are the flags that KVM gives it at a fault.
  /// - Returns: The entry before; 0 if nothing is mapped. The function of 7.3 does not return it.
  @discardableResult
  public mutating func makeYoung(
    address: IntermediatePhysicalAddress, flags: WalkFlags? = nil
  ) -> Stage2Descriptor {
    events.enter(.makeYoung)
    defer { events.leave() }
    return update(
      address: address, set: Stage2Descriptor.accessFlag, flags: flags ?? kernel.faultFlags)
  }

  /// Clears the access flag of the leaf for `address`: `kvm_pgtable_stage2_mkold`, of versions before 6.5. It invalidates no
  /// TLB.
  ///
  /// - Returns: The entry before; 0 if nothing is mapped.
  @discardableResult
  public mutating func makeOld(address: IntermediatePhysicalAddress) -> Stage2Descriptor {
    events.enter(.makeOld)
    defer { events.leave() }
    return update(address: address, clear: Stage2Descriptor.accessFlag)
  }

  /// Whether a leaf of `size` bytes from `address` has its access flag set: `kvm_pgtable_stage2_test_clear_young`, of 6.5 and
  /// later. It invalidates no TLB.
  ///
  /// - Parameters:
  ///   - address: An IPA in bytes; rounded down to its page.
  ///   - size: In bytes; the end is rounded up to a page.
  ///   - makesOld: Whether the flags are cleared.
  public mutating func testYoung(
    address: IntermediatePhysicalAddress, size: UInt64, makesOld: Bool
  ) -> Bool {
    events.enter(.testYoung)
    defer { events.leave() }
    var visitor = AgeVisitor(makesOld: makesOld)
    // The kernel warns of an error, and returns what the walk has seen.
    try? update(address: address, size: size, visitor: &visitor)
    return visitor.isYoung
  }

  /// Whether the leaf for `address` has its access flag set: `kvm_pgtable_stage2_is_young`, of versions before 6.5.
  public func isYoung(address: IntermediatePhysicalAddress) -> Bool {
    guard let entry = try? leaf(for: address).descriptor, entry.isValid else { return false }
    return entry.rawValue & Stage2Descriptor.accessFlag != 0
  }

  /// Gives the leaf for `address` the permissions it lacks; takes none: `kvm_pgtable_stage2_relax_perms`.
  ///
  /// Before 7.0, the function clears XN[1] to let the guest execute. With FEAT_XNX, that is not always enough: XN = 0b01, made by
  /// hiding a byte, still refuses EL1. Version 7.3 writes both bits.
  ///
  /// - Parameters:
  ///   - address: An IPA in bytes; rounded down to its page.
  ///   - protection: The permissions that the entry gets.
  ///   - flags: The flags of the walk, in 7.3. By default, these are the flags that KVM gives it at a fault.
  /// - Throws: `ERANGE` beyond ``ipaBits``; `EINVAL` for software bits, which 5.10 ignores; `EAGAIN` in 6.12 and 7.3 if nothing is
  ///   mapped.
  public mutating func relaxPermissions(
    address: IntermediatePhysicalAddress, protection: Protection, flags: WalkFlags? = nil
  ) throws(Stage2Error) {
    events.enter(.relaxPermissions)
    defer { events.leave() }
    guard kernel == .linux510 || protection.rawValue & Stage2Descriptor.software == 0 else {
      throw Stage2Error(.invalidArgument, address: address)
    }
    var set: UInt64 = 0
    var clear: UInt64 = 0
    if protection.contains(.read) { set |= Stage2Descriptor.read }
    if protection.contains(.write) { set |= Stage2Descriptor.write }
    if kernel != .linux73 {
      if protection.contains(.execute) { clear |= Stage2Descriptor.executeNever }
    } else if !protection.isDisjoint(with: [.execute, .privilegedExecute, .unprivilegedExecute]) {
      guard let executeNever = executeNever(protection) else {
        throw Stage2Error(.invalidArgument, address: address)
      }
      set |= executeNever
      clear |= ~executeNever & (Stage2Descriptor.executeNever | Stage2Descriptor.executeNever0)
    }
    guard rereadsEntries else {
      let old = try updateLeafAttributes(address: address, size: 1, set: set, clear: clear)
      events.emit(.invalidation(ipa: address, level: old?.level ?? 0))
      return
    }
    do throws(Stage2Error) {
      let old = try updateLeafAttributes(
        address: address, size: 1, set: set, clear: clear, flags: flags ?? kernel.faultFlags)
      events.emit(.localInvalidation(ipa: address, level: old?.level ?? 0))
    } catch {
      if error.code == .tryAgain { events.emit(.localInvalidation(ipa: address, level: 0)) }
      throw error
    }
  }

  /// Changes the leaf of one page. The kernel's callers ignore errors, and take the entry for 0 then.
  private mutating func update(
    address: IntermediatePhysicalAddress, set: UInt64 = 0, clear: UInt64 = 0, flags: WalkFlags = []
  ) -> Stage2Descriptor {
    let leaf = try? updateLeafAttributes(
      address: address, size: 1, set: set, clear: clear, flags: flags)
    return leaf?.descriptor ?? Stage2Descriptor(rawValue: 0)
  }

  /// `stage2_update_leaf_attrs`: the last valid leaf of the range before the change; nil if there is none.
  private mutating func updateLeafAttributes(
    address: IntermediatePhysicalAddress, size: UInt64, set: UInt64, clear: UInt64,
    flags: WalkFlags = []
  ) throws(Stage2Error) -> Leaf? {
    let attributes = kernel.leafAttributes
    let (set, clear) = (set & attributes, clear & attributes)
    guard rereadsEntries else {
      var visitor = AttributeVisitor(set: set, clear: clear, executeNever: kernel.executeNever)
      try update(address: address, size: size, visitor: &visitor)
      return visitor.previous
    }
    var visitor = AttributeVisitor612(
      attributes: AttributeVisitor(set: set, clear: clear, executeNever: kernel.executeNever),
      ignoresTryAgain: kernel.ignoresTryAgain(flags))
    try update(address: address, size: size, visitor: &visitor)
    return visitor.attributes.previous
  }
}

/// `stage2_attr_walker` before 6.3
private struct AttributeVisitor: Stage2Visitor {
  static let flags = WalkFlags.leaf
  static let kernelName = "stage2_attr_walker"

  let set: UInt64
  let clear: UInt64
  /// ``KernelVersion/executeNever``
  let executeNever: UInt64
  var previous: Leaf?

  init(set: UInt64, clear: UInt64, executeNever: UInt64) {
    self.set = set
    self.clear = clear
    self.executeNever = executeNever
  }

  @inline(__always)
  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) {
    let old = visit.old
    guard old.isValid else { return }
    previous = Leaf(descriptor: old, level: visit.level)
    let new = Stage2Descriptor(rawValue: old.rawValue & ~clear | set)
    guard new != old else { return }
    if table.isExecutable(new, executeNever: executeNever),
      !table.isExecutable(old, executeNever: executeNever)
    {
      table.invalidateInstructionCache(new, size: visit.size)
    }
    table.memory[visit.entry] = new
  }
}

/// `stage2_attr_walker` of 6.12 and 7.3: an invalid entry is `EAGAIN`.
private struct AttributeVisitor612: Stage2Visitor {
  static let flags = WalkFlags.leaf
  static let kernelName = "stage2_attr_walker"

  var attributes: AttributeVisitor
  /// Whether the walk goes on after `EAGAIN`.
  let ignoresTryAgain: Bool

  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) throws(Stage2Error) {
    if !visit.old.isValid, !ignoresTryAgain { throw visit.error(.tryAgain, in: table) }
    attributes.visit(visit, in: &table)
  }
}

/// `stage2_age_walker`
private struct AgeVisitor: Stage2Visitor {
  static let flags = WalkFlags.leaf
  static let kernelName = "stage2_age_walker"

  let makesOld: Bool
  var isYoung = false

  init(makesOld: Bool) { self.makesOld = makesOld }

  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) {
    guard visit.old.isValid, visit.old.rawValue & Stage2Descriptor.accessFlag != 0 else { return }
    isYoung = true
    if makesOld {
      table.memory[visit.entry] = Stage2Descriptor(
        rawValue: visit.old.rawValue & ~Stage2Descriptor.accessFlag)
    }
  }
}
