/// The text of the debugfs file `stage2_page_tables` (arch/arm64/kvm/ptdump.c of Linux 7.2, `note_page` of
/// arch/arm64/mm/ptdump.c): ranges of entries with the same attributes.
///
/// The kernel prints a range when the next range begins. Therefore it does not print the last range, which ends with the IPA
/// range.
package struct TableDump {
  /// The first line of the text.
  package static let title = "---[ Guest IPA ]---"

  /// The text so far.
  package private(set) var text = "\(title)\n"
  /// The range of the entries so far.
  private var range: (start: IntermediatePhysicalAddress, level: Int, attributes: UInt64)?

  package init() {}

  /// Takes the next entry: `kvm_ptdump_visitor`.
  package mutating func note(_ address: IntermediatePhysicalAddress, _ leaf: Leaf) {
    let attributes = leaf.descriptor.rawValue & Self.mask
    if let range, range.level != leaf.level || range.attributes != attributes {
      let size = Self.size(address - range.start)
      let padding = String(repeating: " ", count: max(0, 10 - size.utf8.count))
      text +=
        "0x\(hexadecimal(range.start.rawValue, digits: 16))-0x\(hexadecimal(address.rawValue, digits: 16))   \(padding)\(size) \(range.level)\(Self.describe(range.attributes))\n"
      self.range = nil
    }
    if range == nil { range = (address, leaf.level, attributes) }
  }

  /// A size in the largest unit without a fraction.
  package static func size(_ bytes: UInt64) -> String {
    var size = bytes >> 10
    var units = "KMGTPE"
    while size & 1023 == 0, units.count > 1 {
      size >>= 10
      units.removeFirst()
    }
    return "\(size)\(units.prefix(1))"
  }

  private static let executeNever =
    Stage2Descriptor.executeNever | Stage2Descriptor.executeNever0
  private static let type = Stage2Descriptor.valid | Stage2Descriptor.tableOrPage
  private static let mask =
    type | Stage2Descriptor.read | Stage2Descriptor.write | executeNever
    | Stage2Descriptor.accessFlag

  /// `dump_prot` with `stage2_pte_bits`
  private static func describe(_ attributes: UInt64) -> String {
    guard attributes != 0 else { return "" }
    func has(_ bit: UInt64) -> Bool { attributes & bit != 0 }
    let execution =
      switch (has(Stage2Descriptor.executeNever), has(Stage2Descriptor.executeNever0)) {
      case (false, false): "px ux "
      case (false, true): "PXNux "
      case (true, false): "PXNUXN"
      case (true, true): "px UXN"
      }
    return [
      "", has(Stage2Descriptor.valid) ? " " : "F", has(Stage2Descriptor.read) ? "R" : " ",
      has(Stage2Descriptor.write) ? "W" : " ", execution,
      has(Stage2Descriptor.accessFlag) ? "AF" : "  ",
      attributes & type == Stage2Descriptor.valid ? "BLK" : "   ",
    ].joined(separator: " ")
  }
}

extension Stage2PageTable {
  /// The table in the form of the debugfs file `stage2_page_tables`.
  package var dump: String {
    var dump = TableDump()
    forEachLeaf { dump.note($0, $1) }
    return dump.text
  }
}
