/// At which entries a walk calls its visitor (`enum kvm_pgtable_walk_flags`).
public struct WalkFlags: OptionSet, Sendable {
  public let rawValue: Int

  public init(rawValue: Int) { self.rawValue = rawValue }

  /// Entries that point to no table, valid or not: `KVM_PGTABLE_WALK_LEAF`.
  public static let leaf = WalkFlags(rawValue: 1 << 0)
  /// Tables, on the way down: `KVM_PGTABLE_WALK_TABLE_PRE`.
  public static let tablePre = WalkFlags(rawValue: 1 << 1)
  /// Tables, on the way up: `KVM_PGTABLE_WALK_TABLE_POST`.
  public static let tablePost = WalkFlags(rawValue: 1 << 2)
}

/// One call of a visitor: the arguments of `kvm_pgtable_visitor_fn_t`.
public struct Visit: Sendable {
  /// Which of the flags this visit is for: exactly one.
  public let kind: WalkFlags
  /// The IPA that the walk is at. Not aligned to the entry where the walk began inside it.
  public let address: UInt64
  /// The end of the walk, exclusive.
  public let end: UInt64
  /// The level of the entry, 0 to 3.
  public let level: Int
  /// Where the entry stands.
  public let entry: EntryReference

  /// What a visitor throws to end the walk here.
  public func error(_ code: KernelError, in table: Stage2PageTable) -> Stage2Error {
    Stage2Error(code, address: address, level: level, entry: table[entry])
  }
}

/// What is done at each entry of a walk (`struct kvm_pgtable_walker`).
public protocol Stage2Visitor {
  /// Where the walk calls ``visit(_:in:)``.
  static var flags: WalkFlags { get }

  /// Whether the observer hears of each entry that the walk comes to, also of those where the visitor is not called. It
  /// does not, unless the visitor says so.
  static var isTraced: Bool { get }

  /// Looks at, or changes, one entry (`kvm_pgtable_visitor_cb` calls it). An error ends the walk, which throws it.
  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) throws(Stage2Error)
}

extension Stage2Visitor {
  public static var isTraced: Bool { false }
}

extension Stage2PageTable {
  /// The entry at `reference`.
  ///
  /// A write is one that KVM's own functions do not make, as a hook's: it takes no reference and invalidates no TLB. The
  /// observer hears what can go wrong then (``Stage2Warning``).
  public subscript(reference: EntryReference) -> Stage2Descriptor {
    get { memory[reference] }
    set {
      if events.isConnected {
        events.warn(
          of: EntryChange(entry: reference, old: memory[reference], new: newValue),
          granule: granule, hasXNX: hasXNX)
      }
      memory[reference] = newValue
    }
  }

  /// Calls `visitor` at the entries for `size` bytes from `address`: `kvm_pgtable_walk`, with `_kvm_pgtable_walk`.
  ///
  /// - Parameters:
  ///   - address: An IPA in bytes; rounded down to its page.
  ///   - size: In bytes; the end is rounded up to a page.
  ///   - visitor: What is called, at the entries that its ``Stage2Visitor/flags`` name.
  /// - Throws: `ERANGE` for addresses beyond ``ipaBits``, or what the visitor throws; `EFAULT` where an entry points to what
  ///   is no table, which the kernel follows all the same.
  public mutating func walk<Visitor: Stage2Visitor>(
    address: UInt64, size: UInt64, visitor: inout Visitor
  ) throws(Stage2Error) {
    let pageMask = granule.pageSize - 1
    var address = address & ~pageMask
    let end = (address &+ size &+ pageMask) & ~pageMask
    let limit = UInt64(1) << UInt64(ipaBits)
    guard address <= limit, end <= limit else {
      throw Stage2Error(.outOfRange, address: address)
    }

    while address < end {
      try walkTable(
        rootTable(for: address), level: startLevel, address: &address, end: end,
        visitor: &visitor)
    }
  }

  /// `__kvm_pgtable_walk`: one table, from the entry for `address` on.
  mutating func walkTable<Visitor: Stage2Visitor>(
    _ table: EntryReference, level: Int, address: inout UInt64, end: UInt64,
    visitor: inout Visitor
  ) throws(Stage2Error) {
    guard level <= Granule.lastLevel else {
      throw Stage2Error(.invalidArgument, address: address, level: level)
    }
    var entry = entry(for: address, in: table, level: level)
    let last = table.advanced(by: granule.entriesPerTable)
    while entry.word < last.word, address < end {
      try visitEntry(entry, level: level, address: &address, end: end, visitor: &visitor)
      entry = entry.advanced(by: 1)
    }
  }

  /// `__kvm_pgtable_visit`: one entry, and the table below it where there is one.
  mutating func visitEntry<Visitor: Stage2Visitor>(
    _ entry: EntryReference, level: Int, address: inout UInt64, end: UInt64,
    visitor: inout Visitor
  ) throws(Stage2Error) {
    let start = address
    func visit(_ kind: WalkFlags) -> Visit {
      Visit(kind: kind, address: start, end: end, level: level, entry: entry)
    }
    // Read before any callback: a callback on the way down may clear the entry and still have its table walked.
    var descriptor = self[entry]
    if Visitor.isTraced { events.emit(.visit(tableVisit(of: entry, level: level))) }
    if descriptor.isTable(level: level) {
      if Visitor.flags.contains(.tablePre) { try visitor.visit(visit(.tablePre), in: &self) }
    } else if Visitor.flags.contains(.leaf) {
      try visitor.visit(visit(.leaf), in: &self)
      // A leaf visit may have put a table there.
      descriptor = self[entry]
    }
    guard descriptor.isTable(level: level) else {
      let size = granule.size(level: level)
      address = (address & ~(size - 1)) + size
      return
    }
    let child = try table(below: descriptor, address: address, level: level)
    try walkTable(child, level: level + 1, address: &address, end: end, visitor: &visitor)
    if Visitor.flags.contains(.tablePost) { try visitor.visit(visit(.tablePost), in: &self) }
  }
}

extension Stage2PageTable {
  private func tableVisit(of entry: EntryReference, level: Int) -> TableVisit {
    let address = memory.physicalAddress(of: entry)
    let table = address & ~(granule.pageSize - 1)
    return TableVisit(
      level: level, table: table, index: Int((address - table) >> 3), descriptor: self[entry])
  }

  /// The entries on the way to the one that decides over `address`, from the start level down; empty for an address
  /// beyond ``ipaBits``.
  public func path(to address: UInt64) -> [TableVisit] {
    let tables = tables(for: address)
    return zip(tables, startLevel...).map { table, level in
      tableVisit(of: entry(for: address, in: table, level: level), level: level)
    }
  }

  /// `kvm_pte_follow`: the table that an entry points to.
  ///
  /// - Throws: `EFAULT` where there is none (``TableMemory/table(at:)``).
  func table(
    below descriptor: Stage2Descriptor, address: UInt64, level: Int
  ) throws(Stage2Error) -> EntryReference {
    guard let table = memory.table(at: descriptor.outputAddress(granule)) else {
      throw Stage2Error(.badAddress, address: address, level: level, entry: descriptor)
    }
    return table
  }

  /// The table that the entry of a visit points to.
  func table(below visit: Visit) throws(Stage2Error) -> EntryReference {
    try table(below: self[visit.entry], address: visit.address, level: visit.level)
  }
}

/// The entry that a walk of one page ended at.
public struct Leaf: Hashable, Sendable {
  /// The entry, valid or not.
  public let descriptor: Stage2Descriptor
  /// 1 to 3.
  public let level: Int

  package init(descriptor: Stage2Descriptor, level: Int) {
    self.descriptor = descriptor
    self.level = level
  }
}

extension Stage2PageTable {
  /// The entry, valid or not, that decides over `address`: `kvm_pgtable_get_leaf`, whose visitor is `leaf_walker`.
  ///
  /// - Throws: `ERANGE` for an address beyond ``ipaBits``.
  public func leaf(for address: UInt64) throws(Stage2Error) -> Leaf {
    guard address >> UInt64(ipaBits) == 0 else {
      throw Stage2Error(.outOfRange, address: address)
    }
    var level = startLevel
    var descriptor = self[entry(for: address, in: rootTable(for: address), level: level)]
    while descriptor.isTable(level: level) {
      let table = try table(below: descriptor, address: address, level: level)
      level += 1
      descriptor = self[entry(for: address, in: table, level: level)]
    }
    return Leaf(descriptor: descriptor, level: level)
  }
}

extension Stage2PageTable {
  /// `page_count` of each table page on the way to the leaf for `address`, from the start level down; empty for an
  /// address beyond ``ipaBits``.
  public func referenceCounts(for address: UInt64) -> [Int] {
    tables(for: address).map { memory.count($0) }
  }

  /// The references of the table at `level` on the way to `address`; nil where there is none.
  public func references(for address: UInt64, level: Int) -> TableReferences? {
    let tables = tables(for: address)
    guard tables.indices ~= level - startLevel else { return nil }
    let table = tables[level - startLevel]
    let entries = (0..<granule.entriesPerTable).filter {
      self[table.advanced(by: $0)].isCounted
    }
    return TableReferences(count: memory.count(table), needed: 1 + entries.count)
  }

  /// The tables on the way to the leaf for `address`, from the start level down.
  private func tables(for address: UInt64) -> [EntryReference] {
    guard address >> UInt64(ipaBits) == 0 else { return [] }
    var tables = [rootTable(for: address)]
    for level in startLevel..<Granule.lastLevel {
      let descriptor = self[entry(for: address, in: tables[tables.count - 1], level: level)]
      guard descriptor.isTable(level: level),
        let next = memory.table(at: descriptor.outputAddress(granule))
      else { break }
      tables.append(next)
    }
    return tables
  }
}

/// What KVM takes to be in a table, and what is in it.
public struct TableReferences: Hashable, Sendable {
  /// `page_count`
  public let count: Int
  /// One for the table itself, and one for each entry that is not zero (`stage2_pte_is_counted`).
  public let needed: Int
}
