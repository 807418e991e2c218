import CharacterDeviceServer
import Stage2Sim

/// The records of a ring as lines of text, for a reader of all lines and for readers that follow.
final class RingText<Record>: GrowingText {
  let ring: Ring<Record>
  /// The number of the first record that ``text`` may show.
  private var cleared: UInt64 = 0
  private let line: (Record) -> String
  private let lostLine: (UInt64) -> String
  /// The lines that were made before, in blocks of records with consecutive numbers. Only new lines are made for a text.
  private var blocks: [UInt64: Block] = [:]
  /// The largest number of bytes of a line, for ``size``: that of a user's `printk`, its time, and what a trace has before it.
  private static var longestLine: UInt64 { 1152 }

  /// - Parameters:
  ///   - ring: The ring with the records.
  ///   - line: The line of a record, with its newline.
  ///   - lostLine: The line in the place of records that were overwritten before a reader came to them, by their number.
  init(
    _ ring: Ring<Record>, line: @escaping (Record) -> String,
    lostLine: @escaping (UInt64) -> String
  ) {
    self.ring = ring
    self.line = line
    self.lostLine = lostLine
  }

  /// Removes all lines from ``text``. Readers that follow still get them.
  func clear() { cleared = ring.end }

  /// The number of records since the last ``clear()``, and the number of them that the ring keeps.
  var written: UInt64 { ring.end - cleared }
  var kept: UInt64 { ring.end - start }

  private var start: UInt64 { max(ring.start, cleared) }

  /// The lines of all records that the ring keeps, in a part for each block.
  var text: [ArraySlice<UInt8>] {
    let (start, end) = (start, ring.end)
    guard start < end else {
      blocks = [:]
      return []
    }
    let numbers = start / Block.size...(end - 1) / Block.size
    blocks = blocks.filter { numbers.contains($0.key) }
    return numbers.map { number in
      let first = max(start, number * Block.size)
      // The records after the last line of the block may have been overwritten before a reader came.
      if blocks[number].map({ $0.end < first }) ?? true { blocks[number] = Block(first: first) }
      for record in blocks[number]!.end..<min(end, (number + 1) * Block.size) {
        blocks[number]!.append(line(ring[record]))
      }
      return blocks[number]!.lines(from: first)
    }
  }

  /// The lines of records with consecutive numbers.
  private struct Block {
    static var size: UInt64 { 256 }

    let first: UInt64
    private var bytes: [UInt8] = []
    /// The offsets at which the lines begin.
    private var starts: [Int] = []

    init(first: UInt64) { self.first = first }

    /// The number of the record of the next line.
    var end: UInt64 { first + UInt64(starts.count) }

    mutating func append(_ line: String) {
      starts.append(bytes.count)
      bytes += line.utf8
    }

    func lines(from number: UInt64) -> ArraySlice<UInt8> {
      number < end ? bytes[starts[Int(number - first)]...] : []
    }
  }

  // The size of one line more than there are. Programs take a file of size 0 for empty, and a file that was read to its size for
  // finished.
  var size: UInt64 { (ring.end + 1) * Self.longestLine }

  func makeReader() -> any GrowingTextReader { Reader(self) }

  private final class Reader: GrowingTextReader {
    private let text: RingText
    /// The number of the next record; at first that of the oldest record.
    private var number: UInt64

    init(_ text: RingText) {
      self.text = text
      number = text.ring.start
    }

    var hasMore: Bool { number < text.ring.end }

    /// The next lines, about a page. One read(2) of the kernel's trace_pipe gives as many.
    func next() -> [UInt8] {
      var bytes: [UInt8] = []
      let start = text.ring.start
      if number < start {
        bytes += text.lostLine(start - number).utf8
        number = start
      }
      while number < text.ring.end, bytes.count < 4096 {
        bytes += text.line(text.ring[number]).utf8
        number += 1
      }
      return bytes
    }
  }
}

/// `seconds.microseconds` in the form of the kernel's logs: seconds five characters wide, and six digits after the point.
func timestamp(_ nanoseconds: UInt64) -> String {
  let seconds = "\(nanoseconds / 1_000_000_000)"
  let microseconds = "\(nanoseconds / 1000 % 1_000_000)"
  return padded(seconds, to: 5) + "."
    + String(repeating: "0", count: 6 - microseconds.utf8.count) + microseconds
}

/// `text` with leading spaces up to `width` characters.
func padded(_ text: String, to width: Int) -> String {
  String(repeating: " ", count: max(0, width - text.utf8.count)) + text
}
