import CharacterDeviceServer
import Stage2Sim

/// A ring's records as lines of text: at once, or to follow.
final class RingText<Record>: GrowingText {
  let ring: Ring<Record>
  /// The number of the first that ``text`` shows.
  private var cleared: UInt64 = 0
  private let line: (Record) -> String
  private let lostLine: (UInt64) -> String
  /// The lines that were made already, in blocks by their numbers: a text is made of them, and of the lines that are new.
  private var blocks: [UInt64: Block] = [:]
  /// No line is longer, in bytes: what ``size`` counts on.
  private static var longestLine: UInt64 { 512 }

  /// - Parameters:
  ///   - ring: Where the records are.
  ///   - line: A record's line, with its newline.
  ///   - lostLine: What a reader sees in the place of as many records that were overwritten before it came to them.
  init(
    _ ring: Ring<Record>, line: @escaping (Record) -> String,
    lostLine: @escaping (UInt64) -> String
  ) {
    self.ring = ring
    self.line = line
    self.lostLine = lostLine
  }

  /// What is kept is shown no more, but to those who follow.
  func clear() { cleared = ring.end }

  /// How many there were since the last ``clear()``, and how many of them are kept.
  var written: UInt64 { ring.end - cleared }
  var kept: UInt64 { ring.end - start }

  private var start: UInt64 { max(ring.start, cleared) }

  /// The lines of all that are kept, a part for each block.
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
      // Lines after the block's last may have been overwritten before anybody read them.
      if blocks[number].map({ $0.end < first }) ?? true { blocks[number] = Block(first: first) }
      for record in blocks[number]!.end..<min(end, (number + 1) * Block.size) {
        blocks[number]!.append(line(ring[record]))
      }
      return blocks[number]!.lines(from: first)
    }
  }

  /// Lines of records that follow one another.
  private struct Block {
    static var size: UInt64 { 256 }

    let first: UInt64
    private var bytes: [UInt8] = []
    /// Where each line begins.
    private var starts: [Int] = []

    init(first: UInt64) { self.first = first }

    /// The number of the record whose line comes next.
    var end: UInt64 { first + UInt64(starts.count) }

    mutating func append(_ line: String) {
      starts.append(bytes.count)
      bytes += line.utf8
    }

    func lines(from number: UInt64) -> ArraySlice<UInt8> {
      number < end ? bytes[starts[Int(number - first)]...] : []
    }
  }

  // One more than there are, as a file of size 0 is empty to many programs, and one that is read to its size has ended.
  var size: UInt64 { (ring.end + 1) * Self.longestLine }

  func makeReader() -> any GrowingTextReader { Reader(self) }

  private final class Reader: GrowingTextReader {
    private let text: RingText
    /// The number of what comes next: at first the oldest that is kept.
    private var number: UInt64

    init(_ text: RingText) {
      self.text = text
      number = text.ring.start
    }

    var hasMore: Bool { number < text.ring.end }

    /// About a page, as one read(2) of the kernel's own trace_pipe gives.
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

/// `seconds.microseconds` as the kernel's logs have it: five digits wide, six behind the point.
func timestamp(_ nanoseconds: UInt64) -> String {
  let seconds = "\(nanoseconds / 1_000_000_000)"
  let microseconds = "\(nanoseconds / 1000 % 1_000_000)"
  return padded(seconds, to: 5) + "."
    + String(repeating: "0", count: 6 - microseconds.utf8.count) + microseconds
}

/// `text` with spaces in front of it, at least `width` characters.
func padded(_ text: String, to width: Int) -> String {
  String(repeating: " ", count: max(0, width - text.utf8.count)) + text
}
