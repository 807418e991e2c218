/// The lines of a text, which comes in parts. It keeps no line that it has read.
package struct TextLines {
  /// The largest number of bytes of a line without its newline.
  package static let longestLine = 254

  private let nextPart: () throws -> [UInt8]
  private var part: [UInt8] = []
  private var position = 0
  private var isAtEnd = false
  /// The number of the last line that was read, from 1.
  package private(set) var number = 0

  /// - Parameter nextPart: A function that returns the next bytes of the text, and no bytes at its end.
  package init(parts nextPart: @escaping () throws -> [UInt8]) { self.nextPart = nextPart }

  package init(_ bytes: [UInt8]) {
    nextPart = { [] }
    part = bytes
  }

  /// The next line without its newline; nil at the end of the text.
  ///
  /// - Throws: ``CaseError`` for a line that is too long or no UTF-8 text.
  package mutating func next() throws -> String? {
    var line: [UInt8] = []
    while true {
      if position == part.count {
        if !isAtEnd { part = try nextPart() }
        position = 0
        isAtEnd = part.isEmpty
        guard !isAtEnd else {
          guard !line.isEmpty else { return nil }
          number += 1
          return try text(of: line[...])
        }
      }
      // One byte more than allowed is enough to see that a line is too long.
      let rest = part[position...].prefix(Self.longestLine + 1 - line.count)
      if let end = rest.firstIndex(of: UInt8(ascii: "\n")) {
        number += 1
        defer { position = end + 1 }
        return try text(of: line.isEmpty ? part[position..<end] : line[...] + part[position..<end])
      }
      line += rest
      position = rest.endIndex
      guard line.count <= Self.longestLine else {
        throw CaseError(
          "the line is too long: a line has at most \(Self.longestLine) bytes", line: number + 1)
      }
    }
  }

  private func text(of line: ArraySlice<UInt8>) throws(CaseError) -> String {
    guard let text = String(validating: line, as: UTF8.self) else {
      throw CaseError("the line is not UTF-8 text: remove the other bytes", line: number)
    }
    return text
  }
}
