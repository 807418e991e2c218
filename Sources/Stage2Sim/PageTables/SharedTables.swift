/// The tables of a machine whose memory comes from a ``TableSource``, as another process sees them.
public struct SharedTables {
  /// The memory that the tables are in now. A table that grows gets another block.
  public let block: TableBlock
  /// The physical address of the first byte of the block.
  public let base: PhysicalAddress
  /// The physical address of the first start-level table: `pgd`, VTTBR_EL2.BADDR.
  public let pgd: PhysicalAddress
  /// The level at which a walk starts.
  public let startLevel: Int
  /// The size of the intermediate physical address in bits.
  public let ipaBits: Int
  /// The granule of the tables.
  public let granule: Granule
}

extension Stage2PageTable {
  /// The tables as another process may change them from now on, until this machine is used again.
  ///
  /// Copies of the table that share its pages keep the pages as they are: the table moves to a block of its own before.
  ///
  /// - Returns: Nil if the tables are in memory of this process alone.
  public mutating func shareTables() -> SharedTables? {
    memory.makeUnique()
    guard let block = memory.block else { return nil }
    return SharedTables(
      block: block, base: TableMemory.base, pgd: baseAddress, startLevel: startLevel,
      ipaBits: ipaBits, granule: granule)
  }

  /// Calls a function with the entries of every page that was ever a table, in the order of the physical addresses from
  /// ``TableMemory/base`` on.
  public func withTableWords<Result>(
    _ body: (UnsafeBufferPointer<UInt64>) throws -> Result
  ) rethrows -> Result {
    try memory.withWords(body)
  }

  /// Reports that a walk of a hook in another process has come to an entry.
  ///
  /// - Parameters:
  ///   - offset: The place of the entry in the memory of the tables, in bytes.
  ///   - level: The level of its table, 0 to 3.
  ///   - descriptor: The entry when the walk came to it; nil for the present one.
  /// - Returns: False if no entry is there: nothing is reported.
  @discardableResult
  public func reportVisit(
    at offset: UInt64, level: Int, descriptor: Stage2Descriptor? = nil
  ) -> Bool {
    guard offset % 8 == 0, (startLevel...Granule.lastLevel).contains(level),
      let entry = memory.entry(at: offset)
    else { return false }
    let visit = tableVisit(of: entry, level: level)
    events.emit(
      .visit(
        TableVisit(
          level: level, table: visit.table, index: visit.index,
          descriptor: descriptor ?? visit.descriptor)))
    return true
  }

  /// Reports that a hook in another process has invalidated TLB entries.
  ///
  /// - Parameters:
  ///   - ipa: The IPA; nil for all entries of the VM.
  ///   - level: The level of the entry; 0 for any.
  public func reportInvalidation(of ipa: IntermediatePhysicalAddress?, level: Int) {
    if let ipa {
      events.emit(.invalidation(ipa: ipa, level: level))
    } else {
      events.emit(.invalidationOfAll)
    }
  }

  /// VTCR_EL2 of the machine: `kvm_get_vtcr` (arch/arm64/kvm/hyp/pgtable.c).
  ///
  /// - Parameter cpu: The host's CPU.
  public func vtcr(on cpu: CPUModel) -> UInt64 {
    // RES1, SH0 inner shareable, ORGN0 and IRGN0 write-back, and HA (CONFIG_ARM64_HW_AFDBM).
    var value: UInt64 = 1 << 31 | 3 << 12 | 1 << 10 | 1 << 8 | 1 << 21
    // VS: CPUs since Armv8.1 have VMIDs of 16 bits in the model.
    if cpu.hasXNX { value |= 1 << 19 }
    let (tg0, slBase): (UInt64, Int) =
      switch granule.pageShift {
      case 12: (0, 2)
      case 14: (2, 3)
      default: (1, 3)
      }
    value |= tg0 << 14
    let physicalSize: UInt64 =
      switch min(cpu.physicalAddressBits, 48) {
      case 48: 5
      case 44: 4
      case 42: 3
      default: 2
      }
    value |= physicalSize << 16
    value |= UInt64(slBase - startLevel) << 6
    return value | UInt64(64 - ipaBits)
  }
}

extension TableMemory {
  fileprivate func withWords<Result>(
    _ body: (UnsafeBufferPointer<UInt64>) throws -> Result
  ) rethrows -> Result {
    try body(storage.allEntries)
  }

  fileprivate func entry(at offset: UInt64) -> EntryReference? {
    let word = Int(truncatingIfNeeded: offset >> 3)
    return storage.contains(word: word) ? EntryReference(word: word) : nil
  }
}
