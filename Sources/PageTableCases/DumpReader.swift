import Stage2Sim

/// A reader of the debugfs file `stage2_page_tables`, which makes the table that the file shows.
///
/// The file has no output addresses, and not all attributes. A valid entry maps its own address (the output address is the IPA) as normal memory;
/// other bits are 0. Linux before 7.3 does not print the last range: it is taken for free memory if that is another range than the one
/// before, and otherwise for memory that is mapped for reading and writing.
package struct DumpReader {
  private let machine: TableMachine
  private var loader: TableLoader
  /// The level and the attributes of the last range; nil before the first one.
  private var last: (level: Int, attributes: UInt64)?
  /// Whether the file has one letter X for XN, as 6.12 prints it; nil as long as no line tells.
  private var isOldForm: Bool?
  private var number = 0

  /// The most bytes of tables.
  private static let mostTables: UInt64 = 256 << 20

  /// Reads a dump.
  ///
  /// - Parameters:
  ///   - lines: The text.
  ///   - machine: The machine of the table.
  /// - Returns: The table.
  /// - Throws: ``CaseError`` for the first line that no table of the machine can have, or an error of the text's origin.
  package static func table(
    of lines: TextLines, on machine: TableMachine
  ) throws -> Stage2PageTable {
    var lines = lines
    var reader = DumpReader(machine: machine, loader: TableLoader(machine.table))
    guard let title = try lines.next(), title.hasPrefix(TableDump.title) else {
      throw CaseError(
        "the first line is not '\(TableDump.title)': give a file stage2_page_tables of /sys/kernel/debug/kvm or of the inspection tree",
        line: 1)
    }
    while let line = try lines.next() {
      reader.number = lines.number
      try reader.read(line)
    }
    try reader.finish()
    return reader.loader.table
  }

  private func error(_ message: String) -> CaseError { CaseError(message, line: number) }

  private var granule: Granule { machine.granule }
  private var startLevel: Int { loader.table.startLevel }

  private mutating func read(_ line: String) throws(CaseError) {
    let words = line.split(separator: " ")
    guard words.count >= 3, let (start, end) = Self.range(words[0]), let level = Int(words[2])
    else {
      throw error(
        "'\(line)' is not a range: expected 0xSTART-0xEND, the size, the level and the attributes")
    }
    guard start == loader.end.rawValue else {
      throw error(
        start < loader.end.rawValue
          ? "the range begins at \(hex(start)), before \(hex(loader.end.rawValue)), the end of the range above: ranges follow each other"
          : "the range begins at \(hex(start)), and the range above ends at \(hex(loader.end.rawValue)): the ranges have no gap; take the whole file"
      )
    }
    guard start < end else { throw error("the range ends at \(hex(end)), before it begins") }
    guard words[1] == TableDump.size(end - start) else {
      throw error(
        "the size is \(words[1]), and the range has \(TableDump.size(end - start)): correct one of them"
      )
    }
    guard end <= 1 << UInt64(machine.ipaBits) else {
      throw error(
        "the range ends at \(hex(end)), beyond \(machine.ipaBits) bits: give the machine the number of the file ipa_range, ipa=\(max(32, 64 - (end - 1).leadingZeroBitCount))"
      )
    }
    guard (startLevel...Granule.lastLevel).contains(level) else {
      throw error(
        "there is no level \(level): a table with ipa=\(machine.ipaBits) granule=\(granule) has levels \(startLevel) to \(Granule.lastLevel)"
      )
    }
    let size = granule.size(level: level)
    guard start % size == 0, end % size == 0 else {
      throw error(
        "an entry of level \(level) maps \(TableDump.size(size)) with granule=\(granule), and the range is not a number of these: the level or the granule is another one"
      )
    }
    let attributes = try attributes(words.dropFirst(3), level: level)
    try append(to: end, level: level, attributes: attributes)
  }

  private mutating func append(
    to end: UInt64, level: Int, attributes: UInt64
  ) throws(CaseError) {
    let end = IntermediatePhysicalAddress(end)
    guard
      loader.tables(afterAppendingTo: end, level: level) << UInt64(granule.pageShift)
        <= Self.mostTables
    else {
      throw error(
        "the range needs tables of more than \(TableDump.size(Self.mostTables)): such a table cannot be loaded"
      )
    }
    loader.append(to: end, level: level, attributes: attributes)
    last = (level, attributes)
  }

  private static func range(_ word: Substring) -> (start: UInt64, end: UInt64)? {
    let parts = word.split(separator: "-", omittingEmptySubsequences: false)
    guard parts.count == 2, let start = address(parts[0]), let end = address(parts[1]) else {
      return nil
    }
    return (start, end)
  }

  private static func address(_ word: Substring) -> UInt64? {
    guard word.hasPrefix("0x"), word.utf8.count <= 18,
      word.utf8.dropFirst(2).first != UInt8(ascii: "+")
    else { return nil }
    return UInt64(word.dropFirst(2), radix: 16)
  }

  // MARK: - Attributes

  /// The entry without its output address.
  private mutating func attributes(
    _ words: ArraySlice<Substring>, level: Int
  ) throws(CaseError) -> UInt64 {
    guard !words.isEmpty else {
      guard last?.level != level || last?.attributes != 0 else { throw repeated() }
      return 0
    }
    var rest = words
    func take(_ word: String) -> Bool {
      guard rest.first ?? "" == word else { return false }
      rest.removeFirst()
      return true
    }
    let isInvalid = take("F")
    var bits: UInt64 = 0
    if take("R") { bits |= Stage2Descriptor.read }
    if take("W") { bits |= Stage2Descriptor.write }
    let isOld: Bool
    if take("px") {
      isOld = false
      if take("UXN") {
        bits |= Stage2Descriptor.executeNever | Stage2Descriptor.executeNever0
      } else if !take("ux") {
        throw unknown(rest)
      }
    } else if take("PXNux") {
      isOld = false
      bits |= Stage2Descriptor.executeNever0
    } else if take("PXNUXN") {
      isOld = false
      bits |= Stage2Descriptor.executeNever
    } else {
      isOld = true
      if take("X") { bits |= Stage2Descriptor.executeNever }
    }
    if take("AF") { bits |= Stage2Descriptor.accessFlag }
    let isBlock = take("BLK")
    guard rest.isEmpty else { throw unknown(rest) }
    guard isOldForm ?? isOld == isOld else {
      throw error("the file has XN in the forms of two versions of Linux: take one file")
    }
    isOldForm = isOld
    return isInvalid
      ? try invalid(bits, level: level, isOld: isOld, isBlock: isBlock)
      : try valid(bits, level: level, isBlock: isBlock)
  }

  private func valid(_ bits: UInt64, level: Int, isBlock: Bool) throws(CaseError) -> UInt64 {
    guard isBlock == (level != Granule.lastLevel) else {
      throw error(
        isBlock
          ? "level 3 has pages, and no BLK: the line or its level is wrong"
          : "a valid entry of level \(level) is a block or points to a table: BLK is missing, or the level is another one"
      )
    }
    guard granule.allowsLeaf(level: level) else {
      throw error("there are no blocks of level \(level) with granule=\(granule)")
    }
    let entry = loader.table.normalMemory(level: level) | bits
    guard last?.level != level || last?.attributes != entry else { throw repeated() }
    return entry
  }

  /// An invalid entry that is not 0. The kernel compares bit 1, and prints it for valid entries only.
  private func invalid(
    _ bits: UInt64, level: Int, isOld: Bool, isBlock: Bool
  ) throws(CaseError) -> UInt64 {
    guard !isBlock else { throw error("an entry cannot be both invalid (F) and a block (BLK)") }
    guard !isOld else {
      throw error(
        "Linux 6.12 prints no bits of an invalid entry (F): unmap this memory, and take the file again"
      )
    }
    let page = Stage2Descriptor.tableOrPage
    let entries =
      level == Granule.lastLevel || bits == 0 ? [bits | page, bits] : [bits, bits | page]
    for entry in entries
    where entry != 0 && (last?.level != level || last?.attributes != entry) {
      return entry
    }
    throw repeated()
  }

  private func repeated() -> CaseError {
    error(
      "the range has the level and the attributes of the range above: the kernel prints both as one range"
    )
  }

  private func unknown(_ words: ArraySlice<Substring>) -> CaseError {
    error(
      "'\(words.first ?? "px")' is not expected here: the attributes are F, R, W, one of 'px ux', PXNux, PXNUXN and 'px UXN', AF, BLK"
    )
  }

  // MARK: - The end

  /// Makes the last range, which versions before 7.3 do not print.
  private mutating func finish() throws(CaseError) {
    let end = UInt64(1) << UInt64(machine.ipaBits)
    let start = loader.end.rawValue
    guard start < end, let last else { return }
    let level = (startLevel...Granule.lastLevel).first { start % granule.size(level: $0) == 0 }!
    if level > startLevel {
      // The range is in one table, because the kernel frees a table without an entry.
      let tableSize = granule.size(level: level - 1)
      guard (start / tableSize + 1) * tableSize >= end else {
        throw error(
          "the file ends at \(hex(start)), in the middle of a table: it is cut off; take the whole file"
        )
      }
    }
    // Free memory is there already.
    guard last == (level, 0) else { return }
    let leaf = (level...Granule.lastLevel).first { granule.allowsLeaf(level: $0) }!
    try append(
      to: end, level: leaf,
      attributes: loader.table.normalMemory(level: leaf) | Stage2Descriptor.read
        | Stage2Descriptor.write | Stage2Descriptor.executeNever | Stage2Descriptor.accessFlag)
  }
}
