import CUserCode

/// A record of the log of a process with a user's code.
enum CodeRecord {
  /// A line of `printk()`, with its level.
  case line(String, level: UInt8)
  /// A mistake that does not end the code, and its place in the code; 0 if it has none.
  case finding(String, pc: UInt64)
  /// `kvm_pgtable_walk()` has come to an entry: its place in the tables' memory in bytes, and its level.
  case visit(offset: UInt64, level: UInt8)
  /// An invalidation of the TLB: of one intermediate physical address, or of all.
  case invalidation(ipa: UInt64, level: UInt8)

  /// The most bytes of a line: those of the kernel's `printk()`.
  static let longestLine = 992

  /// Reads the first record of some bytes.
  ///
  /// - Returns: The record, which is nil for a kind that this version does not know, and its size in the log; nil if there is no
  ///   record.
  static func parse(_ bytes: UnsafeRawBufferPointer) -> (CodeRecord?, size: Int)? {
    let headerSize = 16
    guard bytes.count >= headerSize else { return nil }
    let size = Int(bytes.loadUnaligned(as: UInt32.self))
    let kind = UInt32(bytes[4])
    let level = bytes[5]
    let length = Int(bytes.loadUnaligned(fromByteOffset: 6, as: UInt16.self))
    let pc = bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
    guard size >= headerSize + length, size % 8 == 0, size <= bytes.count else { return nil }
    let record: CodeRecord? =
      switch kind {
      case CHANNEL_RECORD_PRINTK.rawValue:
        .line(printable(bytes[headerSize..<headerSize + length]), level: level)
      case CHANNEL_RECORD_FINDING.rawValue:
        .finding(printable(bytes[headerSize..<headerSize + length]), pc: pc)
      case CHANNEL_RECORD_VISIT.rawValue: .visit(offset: pc, level: level)
      case CHANNEL_RECORD_INVALIDATE.rawValue: .invalidation(ipa: pc, level: level)
      default: nil
      }
    return (record, size)
  }

  /// A text for a log. A byte that is no printable character becomes `\x1b`, as in /dev/kmsg. Newlines stay.
  static func printable(_ bytes: some Collection<UInt8>) -> String {
    // Almost all texts need no change.
    if bytes.allSatisfy({ 0x20..<0x7f ~= $0 }) { return String(decoding: bytes, as: UTF8.self) }
    var text = ""
    for scalar in String(decoding: bytes, as: UTF8.self).unicodeScalars {
      switch scalar.value {
      case 0x0a, 0x09: text.unicodeScalars.append(scalar)
      case 0..<0x20, 0x7f..<0xa0:
        let digits = String(scalar.value, radix: 16)
        text += "\\x" + (digits.count < 2 ? "0" : "") + digits
      default: text.unicodeScalars.append(scalar)
      }
    }
    return text
  }

  /// The lines of a text, each no longer than a line of the kernel.
  static func lines(_ text: String) -> [String] {
    if text.utf8.count <= longestLine, !text.utf8.contains(UInt8(ascii: "\n")) { return [text] }
    return text.split(separator: "\n", omittingEmptySubsequences: false).map { line in
      line.utf8.count <= longestLine
        ? String(line) : String(decoding: line.utf8.prefix(longestLine), as: UTF8.self)
    }
  }
}
