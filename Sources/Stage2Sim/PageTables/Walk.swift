/// The entries at which a walk calls its visitor (`enum kvm_pgtable_walk_flags`).
@frozen public struct WalkFlags: OptionSet, Hashable, Sendable {
  public let rawValue: Int

  @inlinable public init(rawValue: Int) { self.rawValue = rawValue }

  /// Entries that point to no table, valid or not: `KVM_PGTABLE_WALK_LEAF`.
  @inlinable public static var leaf: WalkFlags { WalkFlags(rawValue: 1 << 0) }
  /// Tables, on the way down: `KVM_PGTABLE_WALK_TABLE_PRE`.
  @inlinable public static var tablePre: WalkFlags { WalkFlags(rawValue: 1 << 1) }
  /// Tables, on the way up: `KVM_PGTABLE_WALK_TABLE_POST`.
  @inlinable public static var tablePost: WalkFlags { WalkFlags(rawValue: 1 << 2) }
  /// Other walks may change the table at the same time: `KVM_PGTABLE_WALK_SHARED`, of 6.2 and later.
  @inlinable public static var shared: WalkFlags { WalkFlags(rawValue: 1 << 3) }
  /// The walk is for a fault, and ends at `EAGAIN`: `KVM_PGTABLE_WALK_HANDLE_FAULT`, of 6.3 and later, but not of 7.3.
  @inlinable public static var handleFault: WalkFlags { WalkFlags(rawValue: 1 << 4) }
  /// No TLB is invalidated when an entry is replaced: `KVM_PGTABLE_WALK_SKIP_BBM_TLBI`, of 6.4 and later.
  @inlinable public static var skipTLBInvalidation: WalkFlags { WalkFlags(rawValue: 1 << 5) }
  /// No cache is maintained when an entry is replaced: `KVM_PGTABLE_WALK_SKIP_CMO`, of 6.4 and later.
  @inlinable public static var skipCacheMaintenance: WalkFlags { WalkFlags(rawValue: 1 << 6) }
  /// The walk goes on after `EAGAIN`: `KVM_PGTABLE_WALK_IGNORE_EAGAIN`, which has the bit of ``handleFault`` in 7.3.
  @inlinable public static var ignoreTryAgain: WalkFlags { WalkFlags(rawValue: 1 << 7) }
}

/// One call of a visitor: the arguments of `kvm_pgtable_visitor_fn_t`.
public struct Visit: Sendable {
  /// Which of the flags this visit is for: exactly one.
  public let kind: WalkFlags
  /// The IPA that the walk is at. It is not aligned to the entry if the walk began inside the entry.
  public let address: IntermediatePhysicalAddress
  /// The end of the walk, exclusive.
  public let end: IntermediatePhysicalAddress
  /// The level of the entry, 0 to 3.
  public let level: Int
  /// The bytes that the entry maps.
  public let size: UInt64
  /// The place of the entry.
  public let entry: EntryReference
  /// The entry when the walk read it last (`ctx->old` of 6.2 and later): before the visit, or, on the way up, before the walk went
  /// down. Before 6.2, visitors read the entry themselves.
  public let old: Stage2Descriptor

  @inlinable
  init(
    kind: WalkFlags, address: IntermediatePhysicalAddress, end: IntermediatePhysicalAddress,
    level: Int, size: UInt64, entry: EntryReference, old: Stage2Descriptor
  ) {
    self.kind = kind
    self.address = address
    self.end = end
    self.level = level
    self.size = size
    self.entry = entry
    self.old = old
  }

  /// The place of the entry. A function that is not inlined in a loop over entries takes this part of a visit: the loop would put a
  /// whole visit into memory for each entry, and unmapping a range took 1.4 times as long.
  @inline(__always)
  var place: EntryPlace { EntryPlace(address: address, level: level, entry: entry) }

  /// The entry that a visitor of KVM's own sees on the way up.
  @inline(__always)
  func tableEntry(in table: Stage2PageTable) -> Stage2Descriptor {
    table.rereadsEntries ? old : table[entry]
  }

  /// The error that a visitor throws to end the walk here.
  @inline(__always)
  public func error(_ code: KernelError, in table: Stage2PageTable) -> Stage2Error {
    place.error(code, in: table)
  }
}

/// The place of an entry in the walk.
struct EntryPlace {
  let address: IntermediatePhysicalAddress
  let level: Int
  let entry: EntryReference

  /// The error that ends the walk here.
  @inline(never)
  func error(_ code: KernelError, in table: Stage2PageTable) -> Stage2Error {
    Stage2Error(code, address: address, level: level, entry: table[entry])
  }
}

/// An operation on the entries of a walk (`struct kvm_pgtable_walker`).
public protocol Stage2Visitor {
  /// The entries at which the walk calls ``visit(_:in:)``.
  static var flags: WalkFlags { get }

  /// Whether the walk is a hook's: it reports each entry that it comes to as ``MachineEvent/visit(_:)``, also the entries at
  /// which the visitor is not called. False unless the visitor says otherwise.
  static var reportsVisits: Bool { get }

  /// The name of the visitor in the kernel, for ``WalkPart``. Empty unless the visitor says otherwise.
  static var kernelName: String { get }

  /// Looks at, or changes, one entry (`kvm_pgtable_visitor_cb` calls it). An error ends the walk, which throws it.
  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) throws(Stage2Error)
}

extension Stage2Visitor {
  public static var reportsVisits: Bool { false }
  public static var kernelName: String { "" }
}

extension Stage2PageTable {
  /// The entry at `reference`.
  ///
  /// A write is not one of KVM's own functions, but for example one of a hook: it takes no reference and invalidates no TLB.
  /// The observer gets a ``Stage2Warning`` for each rule that the write violates.
  public subscript(reference: EntryReference) -> Stage2Descriptor {
    @inlinable get { memory[reference] }
    set {
      if events.isConnected {
        events.warn(
          of: EntryChange(entry: reference, old: memory[reference], new: newValue),
          granule: granule, hasXNX: hasXNX, kernel: kernel)
      }
      memory.makeUnique()
      memory[reference] = newValue
    }
  }

  /// Calls `visitor` at the entries for `size` bytes from `address`: `kvm_pgtable_walk`, with `_kvm_pgtable_walk`.
  ///
  /// - Parameters:
  ///   - address: An IPA in bytes; rounded down to its page.
  ///   - size: In bytes; the end is rounded up to a page.
  ///   - visitor: The visitor, which is called at the entries of its ``Stage2Visitor/flags``.
  /// - Throws: `ERANGE` for addresses beyond ``ipaBits``, or the error of the visitor; `EFAULT` if an entry points to a
  ///   page that is no table. The kernel follows such an entry.
  public mutating func walk<Visitor: Stage2Visitor>(
    address: IntermediatePhysicalAddress, size: UInt64, visitor: inout Visitor
  ) throws(Stage2Error) {
    try walk(
      address: address, size: size, flags: Visitor.flags, reportsVisits: Visitor.reportsVisits
    ) { (visit, table) throws(Stage2Error) in try visitor.visit(visit, in: &table) }
  }

  /// Calls a function at the entries for `size` bytes from `address`: `kvm_pgtable_walk`, as a hook calls it with a callback.
  ///
  /// The walk, and the functions that the walk calls, are `@inlinable`: the compiler puts the callback of a hook in another module
  /// into the loop over the entries. A call for each entry took one and a half times as long (`scripts/bench tables.hide_seek`).
  ///
  /// - Parameters:
  ///   - address: An IPA in bytes; rounded down to its page.
  ///   - size: In bytes; the end is rounded up to a page.
  ///   - flags: The entries at which the function is called.
  ///   - reportsVisits: Whether each entry that the walk comes to is reported as ``MachineEvent/visit(_:)``.
  ///   - callback: Looks at, or changes, one entry. An error ends the walk.
  /// - Throws: As ``walk(address:size:visitor:)``.
  @inlinable
  public mutating func walk(
    address: IntermediatePhysicalAddress, size: UInt64, flags: WalkFlags,
    reportsVisits: Bool = false,
    _ callback: (Visit, inout Stage2PageTable) throws(Stage2Error) -> Void
  ) throws(Stage2Error) {
    guard !rereadsEntries else {
      return try walkContinuing(
        address: address, size: size, flags: flags, reportsVisits: reportsVisits, callback)
    }
    let (start, end) = try walkRange(address: address, size: size)
    guard start < end else { return }
    try walkEntries(
      from: WalkPosition(address: start, in: self), end: end, flags: flags,
      reportsVisits: reportsVisits, callback)
  }

  /// ``walk(address:size:flags:reportsVisits:_:)`` of versions with `kvm_pgtable_walk_continue`, whose walks can go on after `EAGAIN`.
  // Never inlined, so that the code in hooks is short.
  @usableFromInline @inline(never)
  mutating func walkContinuing(
    address: IntermediatePhysicalAddress, size: UInt64, flags: WalkFlags, reportsVisits: Bool,
    _ callback: (Visit, inout Stage2PageTable) throws(Stage2Error) -> Void
  ) throws(Stage2Error) {
    let (start, end) = try walkRange(address: address, size: size)
    guard start < end else { return }
    try walkEntries(
      from: WalkPosition(address: start, in: self), end: end, flags: flags,
      reportsVisits: reportsVisits
    ) { (visit, table) throws(Stage2Error) in
      do throws(Stage2Error) {
        try callback(visit, &table)
      } catch {
        guard error.code == .tryAgain, table.kernel.ignoresTryAgain(flags) else { throw error }
      }
    }
  }

  /// The range of a walk, in whole pages (`kvm_pgtable_walk`).
  @inlinable @inline(__always)
  func walkRange(
    address: IntermediatePhysicalAddress, size: UInt64
  ) throws(Stage2Error) -> (
    start: IntermediatePhysicalAddress, end: IntermediatePhysicalAddress
  ) {
    let start = address.aligned(to: granule.pageSize)
    let end = (start &+ size).alignedUp(to: granule.pageSize)
    let limit = IntermediatePhysicalAddress(1 &<< UInt64(truncatingIfNeeded: ipaBits))
    guard start <= limit, end <= limit else { throw Stage2Error(.outOfRange, address: start) }
    return (start, end)
  }

  /// `__kvm_pgtable_walk` from an entry of the start tables, or of a table that no entry points to. It is inlined, so that the code
  /// of a visitor is in the loop over the entries.
  @inlinable @inline(__always)
  mutating func walkEntries(
    from start: WalkPosition, end: IntermediatePhysicalAddress, flags: WalkFlags,
    reportsVisits: Bool,
    _ callback: (Visit, inout Stage2PageTable) throws(Stage2Error) -> Void
  ) throws(Stage2Error) {
    // `__kvm_pgtable_walk` calls itself for the table below an entry, and comes back to the entry; this one keeps the
    // entries that it has to come back to.
    var position = start
    if end &- start.address == granule.pageSize, !flags.contains(.tablePost) {
      // One entry in each table, and no visit on the way up: there is nothing to come back to.
      while let child = try visitEntry(
        at: &position, end: end, flags: flags, reportsVisits: reportsVisits, callback)
      {
        position.enter(child)
      }
      return
    }
    var path = WalkPath(position)
    tables: while true {
      repeat {
        if let child = try visitEntry(
          at: &position, end: end, flags: flags, reportsVisits: reportsVisits, callback)
        {
          path[position.level] = (position.address, position.entry, position.old)
          position.enter(child)
          continue tables
        }
        position.advance()
      } while position.address < end && position.isInTable
      // Up, until there is more in the table. Without `tablePost`, the walk ends without visits on the way up.
      repeat {
        let next = position.address
        guard !position.isInStartTable, next < end || flags.contains(.tablePost) else { return }
        position.rise(on: path)
        if flags.contains(.tablePost) {
          try callback(position.visit(.tablePost, end: end), &self)
        }
        position.advance(to: next)
      } while position.address >= end || !position.isInTable
    }
  }

  /// Reports something that a hook has done with an entry.
  @inlinable @inline(__always)
  public func report(_ event: HookEvent) { events.emit(.hook(event)) }

  /// ``walk(address:size:visitor:)`` for a visitor of KVM's own, which changes ``memory`` itself. The visitor throws no `EAGAIN` that
  /// the walk ignores.
  mutating func update<Visitor: Stage2Visitor>(
    address: IntermediatePhysicalAddress, size: UInt64, visitor: inout Visitor
  ) throws(Stage2Error) {
    memory.makeUnique()
    let (start, end) = try walkRange(address: address, size: size)
    guard start < end else { return }
    if let observer = events.observer, observer.followsWalks {
      return try follow(
        from: WalkPosition(address: start, in: self), end: end, visitor: &visitor, observer)
    }
    // A closure would not always be inlined in the loop over the entries.
    @inline(__always)
    func visit(_ visit: Visit, _ table: inout Stage2PageTable) throws(Stage2Error) {
      try visitor.visit(visit, in: &table)
    }
    try walkEntries(
      from: WalkPosition(address: start, in: self), end: end, flags: Visitor.flags,
      reportsVisits: false, visit)
  }

  /// The walk of ``update(address:size:visitor:)``, of which an observer gets each part.
  @inline(never)
  private mutating func follow<Visitor: Stage2Visitor>(
    from start: WalkPosition, end: IntermediatePhysicalAddress, visitor: inout Visitor,
    _ observer: any MachineObserver
  ) throws(Stage2Error) {
    observer.observe(.begin(visitor: Visitor.kernelName, address: start.address, end: end))
    defer { observer.observe(.end) }
    try walkEntries(from: start, end: end, flags: Visitor.flags, reportsVisits: false) {
      (visit, table) throws(Stage2Error) in
      observer.observe(
        .visit(
          table.tableVisit(of: visit.entry, level: visit.level), visit.kind,
          address: visit.address))
      defer { observer.observe(.endOfVisit) }
      try visitor.visit(visit, in: &table)
    }
  }

  /// ``update(address:size:visitor:)`` for all entries of a table that no entry points to. The walk begins at IPA 0.
  ///
  /// - Parameter level: The level of the entry that would point to the table.
  mutating func update<Visitor: Stage2Visitor>(
    unlinked table: EntryReference, level: Int, visitor: inout Visitor
  ) throws(Stage2Error) {
    memory.makeUnique()
    let start = WalkPosition(unlinked: table, level: level + 1, granule: granule)
    let end = IntermediatePhysicalAddress(granule.size(level: level))
    if let observer = events.observer, observer.followsWalks {
      return try follow(from: start, end: end, visitor: &visitor, observer)
    }
    @inline(__always)
    func visit(_ visit: Visit, _ table: inout Stage2PageTable) throws(Stage2Error) {
      try visitor.visit(visit, in: &table)
    }
    try walkEntries(
      from: start, end: end, flags: Visitor.flags, reportsVisits: false, visit)
  }

  /// `__kvm_pgtable_visit`: one entry.
  ///
  /// Always inlined: the visitor's code is then in the loop over the entries, and a visit is no more than it needs.
  ///
  /// - Returns: The table below the entry, if there is one.
  @inlinable @inline(__always)
  mutating func visitEntry(
    at position: inout WalkPosition, end: IntermediatePhysicalAddress, flags: WalkFlags,
    reportsVisits: Bool,
    _ callback: (Visit, inout Stage2PageTable) throws(Stage2Error) -> Void
  ) throws(Stage2Error) -> EntryReference? {
    let (entry, level) = (position.entry, position.level)
    // Read before any callback: before 6.2, a callback on the way down may clear the entry and still have its table walked.
    position.old = self[entry]
    if reportsVisits { events.emit(.visit(tableVisit(of: entry, level: level))) }
    if position.old.isTable(level: level) {
      if flags.contains(.tablePre) {
        try callback(position.visit(.tablePre, end: end), &self)
        if rereadsEntries {
          position.old = self[entry]
          guard position.old.isTable(level: level) else { return nil }
        }
      }
    } else {
      guard flags.contains(.leaf) else { return nil }
      try callback(position.visit(.leaf, end: end), &self)
      // A leaf visit may have put a table there.
      position.old = self[entry]
      guard position.old.isTable(level: level) else { return nil }
    }
    return try table(below: position.old, address: position.address, level: level)
  }
}

/// The position of a walk.
@usableFromInline
struct WalkPosition {
  /// The address of the entry, or an address behind it if the walk began there.
  @usableFromInline var address: IntermediatePhysicalAddress
  @usableFromInline var entry: EntryReference
  /// The level of the table.
  @usableFromInline var level: Int
  /// The entry when it was read last.
  @usableFromInline var old = Stage2Descriptor(rawValue: 0)
  /// log2 of the bytes that an entry maps.
  @usableFromInline var shift: Int
  @usableFromInline let startLevel: Int
  /// log2 of the entries in a table.
  @usableFromInline let tableShift: Int

  @inlinable
  init(address: IntermediatePhysicalAddress, in table: Stage2PageTable) {
    self.address = address
    entry = table.rootEntry(for: address)
    level = table.startLevel
    shift = table.granule.shift(level: level)
    startLevel = level
    tableShift = table.granule.pageShift &- 3
  }

  /// The first entry of a table that no entry points to. The walk takes it for a start table.
  init(unlinked root: EntryReference, level: Int, granule: Granule) {
    address = 0
    entry = root
    self.level = level
    shift = granule.shift(level: level)
    startLevel = level
    tableShift = granule.pageShift &- 3
  }

  /// The bytes that an entry maps.
  @inlinable
  var size: UInt64 { 1 &<< UInt64(truncatingIfNeeded: shift) }

  @inlinable
  var lastIndex: Int { 1 &<< tableShift &- 1 }

  @inlinable
  var isInStartTable: Bool { level == startLevel }

  /// Whether it has not gone on from the last entry of a table. The start tables are as one.
  @inlinable
  var isInTable: Bool { entry.word & lastIndex != 0 || isInStartTable }

  /// Goes on to the next entry.
  @inlinable
  mutating func advance() { advance(to: address.aligned(to: size) &+ size) }

  /// Goes on to the next entry, which is for `address`.
  @inlinable
  mutating func advance(to address: IntermediatePhysicalAddress) {
    self.address = address
    entry = entry.advanced(by: 1)
  }

  /// Goes down to the table below the entry, to the entry there (`kvm_pgtable_idx`).
  @inlinable
  mutating func enter(_ table: EntryReference) {
    level &+= 1
    shift &-= tableShift
    let index = Int(truncatingIfNeeded: address.rawValue &>> UInt64(truncatingIfNeeded: shift))
    entry = table.advanced(by: index & lastIndex)
  }

  /// Goes back to the entry that points to the table.
  @inlinable
  mutating func rise(on path: WalkPath) {
    level &-= 1
    shift &+= tableShift
    (address, entry, old) = path[level]
  }

  @inlinable
  func visit(_ kind: WalkFlags, end: IntermediatePhysicalAddress) -> Visit {
    Visit(
      kind: kind, address: address, end: end, level: level, size: size, entry: entry, old: old)
  }
}

/// The entries that a walk comes back to when it is through with the tables below, the addresses that it came to them with, and
/// what it read there.
@usableFromInline
struct WalkPath {
  @usableFromInline typealias Step = (
    address: IntermediatePhysicalAddress, entry: EntryReference, old: Stage2Descriptor
  )

  // No array: it brings a check of the stack with it, and there is one of these in each walk.
  @usableFromInline var level0: Step
  @usableFromInline var level1: Step
  @usableFromInline var level2: Step

  @inlinable
  init(_ start: WalkPosition) {
    level0 = (start.address, start.entry, start.old)
    level1 = level0
    level2 = level0
  }

  @usableFromInline
  subscript(level: Int) -> Step {
    @inlinable get { level == 2 ? level2 : level == 1 ? level1 : level0 }
    @inlinable set {
      switch level {
      case 2: level2 = newValue
      case 1: level1 = newValue
      default: level0 = newValue
      }
    }
  }
}

extension Stage2PageTable {
  @inlinable
  func tableVisit(of entry: EntryReference, level: Int) -> TableVisit {
    let address = memory.physicalAddress(of: entry)
    let table = address.aligned(to: granule.pageSize)
    return TableVisit(
      level: level, table: table, index: Int((address - table) >> 3), descriptor: self[entry])
  }

  /// The entries on the way to the one that decides over `address`, from the start level down; empty for an address
  /// beyond ``ipaBits``.
  public func path(to address: IntermediatePhysicalAddress) -> [TableVisit] {
    zip(entries(for: address), startLevel...).map(tableVisit)
  }

  /// `kvm_pte_follow`: the table that an entry points to.
  ///
  /// - Throws: `EFAULT` if there is no table (``TableMemory/table(at:)``).
  @inlinable @inline(__always)
  func table(
    below descriptor: Stage2Descriptor, address: IntermediatePhysicalAddress, level: Int
  ) throws(Stage2Error) -> EntryReference {
    guard let table = memory.table(at: addressFormat.address(in: descriptor, granule)) else {
      throw Stage2Error(.badAddress, address: address, level: level, entry: descriptor)
    }
    return table
  }

  /// The table that the entry at a place points to.
  @inline(__always)
  func table(below place: EntryPlace) throws(Stage2Error) -> EntryReference {
    try table(below: self[place.entry], address: place.address, level: place.level)
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
  public func leaf(for address: IntermediatePhysicalAddress) throws(Stage2Error) -> Leaf {
    guard address.fits(bits: ipaBits) else {
      throw Stage2Error(.outOfRange, address: address)
    }
    let leaf = lastEntry(for: address)
    if leaf.descriptor.isTable(level: leaf.level) {
      throw Stage2Error(
        .badAddress, address: address, level: leaf.level, entry: leaf.descriptor)
    }
    return leaf
  }

  /// The entry that decides over an address of the IPA range, or an entry that points to a page that is no table.
  @inline(__always)
  func lastEntry(for address: IntermediatePhysicalAddress) -> Leaf {
    let (entry, level) = lastReference(for: address)
    return Leaf(descriptor: memory[entry], level: level)
  }

  /// The place of ``lastEntry(for:)``, and its level.
  @inline(__always)
  func lastReference(
    for address: IntermediatePhysicalAddress
  ) -> (entry: EntryReference, level: Int) {
    var position = WalkPosition(address: address, in: self)
    while let table = table(at: position) { position.enter(table) }
    return (position.entry, position.level)
  }

  /// Calls a function for each entry that points to no table, valid or not, in the order of their addresses, and changes
  /// nothing. It ends at an entry that leads out of table memory, and after as many entries as there are: more of them come only if a
  /// table is the table of several entries, which a wrong hook can do.
  ///
  /// - Parameter body: Called with the first address of the entry, its level and the entry.
  public func forEachLeaf(_ body: (_ address: IntermediatePhysicalAddress, Leaf) -> Void) {
    var entriesLeft = memory.entryCount
    _ = forEachLeaf(in: WalkPosition(address: 0, in: self), &entriesLeft, body)
  }

  /// - Returns: False at an entry that leads out of table memory.
  private func forEachLeaf(
    in start: WalkPosition, _ entriesLeft: inout Int,
    _ body: (IntermediatePhysicalAddress, Leaf) -> Void
  ) -> Bool {
    var position = start
    repeat {
      guard entriesLeft > 0 else { return false }
      entriesLeft -= 1
      let descriptor = memory[position.entry]
      if descriptor.isTable(level: position.level) {
        guard let table = table(at: position) else { return false }
        var child = position
        child.enter(table)
        guard forEachLeaf(in: child, &entriesLeft, body) else { return false }
      } else {
        body(position.address, Leaf(descriptor: descriptor, level: position.level))
      }
      position.advance()
    } while position.address.fits(bits: ipaBits) && position.isInTable
    return true
  }

  /// The table that the entry of a position points to, if it is one.
  @inline(__always)
  private func table(at position: WalkPosition) -> EntryReference? {
    let descriptor = memory[position.entry]
    guard descriptor.isTable(level: position.level) else { return nil }
    return memory.table(at: addressFormat.address(in: descriptor, granule))
  }
}

extension Stage2PageTable {
  /// `page_count` of each table page on the way to the leaf for `address`, from the start level down; empty for an
  /// address beyond ``ipaBits``.
  public func referenceCounts(for address: IntermediatePhysicalAddress) -> [Int] {
    entries(for: address).map { memory.count($0) }
  }

  /// The references of the table at `level` on the way to `address`; nil if there is no such table.
  public func references(for address: IntermediatePhysicalAddress, level: Int) -> TableReferences? {
    let path = entries(for: address)
    guard path.indices ~= level - startLevel else { return nil }
    let table = memory.table(of: path[level - startLevel])
    let entries = (0..<granule.entriesPerTable).filter {
      kernel.isCounted(self[table.advanced(by: $0)])
    }
    return TableReferences(count: memory.count(table), needed: 1 + entries.count)
  }

  /// The entries on the way to the leaf for `address`, from the start level down.
  private func entries(for address: IntermediatePhysicalAddress) -> [EntryReference] {
    guard address.fits(bits: ipaBits) else { return [] }
    var position = WalkPosition(address: address, in: self)
    var entries = [position.entry]
    while let table = table(at: position) {
      position.enter(table)
      entries.append(position.entry)
    }
    return entries
  }
}

/// The reference count of a table, and the number of entries that count.
public struct TableReferences: Hashable, Sendable {
  /// `page_count`
  public let count: Int
  /// The references that the table should have: one for itself, and one for each entry that is not zero (`stage2_pte_is_counted`).
  public let needed: Int

  package init(count: Int, needed: Int) {
    self.count = count
    self.needed = needed
  }
}
