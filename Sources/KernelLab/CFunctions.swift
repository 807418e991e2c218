/// The functions that a C file defines.
struct CFunctions {
  struct Definition: Equatable {
    var name: String
    var isStatic: Bool
    /// The offset of the name in the file.
    var offset: Int
    /// The offset of the first byte of the definition: its type.
    var start: Int
    /// The offset behind the brace that begins the body.
    var body: Int
  }

  let definitions: [Definition]

  var globals: [Definition] { definitions.filter { !$0.isStatic } }

  func definition(of name: String) -> Definition? { definitions.first { $0.name == name } }

  /// Finds the functions. The text keeps its offsets: comments, strings and lines of the preprocessor become spaces first.
  init(in bytes: [UInt8]) {
    let text = Self.code(of: bytes)
    var found: [Definition] = []
    var depth = 0
    var start: Int?
    // The last identifier at depth 0, and the one before the first parenthesis of the present declaration.
    var word: (start: Int, end: Int)?
    var name: (start: Int, end: Int)?
    var parentheses = 0
    var isAssigned = false
    var index = 0
    while index < text.count {
      let byte = text[index]
      if depth == 0, Self.isWord(byte) {
        let first = index
        while index < text.count, Self.isWord(text[index]) { index += 1 }
        if start == nil { start = first }
        if parentheses == 0 { word = (first, index) }
        continue
      }
      switch byte {
      case UInt8(ascii: "("):
        if depth == 0 {
          let isAttribute = word.map { Self.string(text, $0).hasPrefix("__attribute") } ?? false
          if parentheses == 0, name == nil, !isAttribute { name = word }
          parentheses += 1
        }
      case UInt8(ascii: ")"): if depth == 0 { parentheses -= 1 }
      case UInt8(ascii: "="): if depth == 0 { isAssigned = true }
      case UInt8(ascii: "{"):
        if depth == 0, parentheses == 0, !isAssigned, let begin = start, let range = name {
          let head = text[begin..<range.start].split { !Self.isWord($0) }
            .map { String(decoding: $0, as: UTF8.self) }
          // A macro with a body has no type before its name.
          if !head.isEmpty {
            found.append(
              Definition(
                name: Self.string(text, range), isStatic: head.contains("static"),
                offset: range.start, start: begin, body: index + 1))
          }
        }
        depth += 1
      case UInt8(ascii: "}"):
        depth = max(0, depth - 1)
        // A function has no semicolon at its end.
        if depth == 0, !isAssigned, name != nil { (start, name, word) = (nil, nil, nil) }
      case UInt8(ascii: ";"):
        if depth == 0 {
          (start, name, word, isAssigned, parentheses) = (nil, nil, nil, false, 0)
        }
      default: break
      }
      index += 1
    }
    definitions = found
  }

  private static func string(_ text: [UInt8], _ range: (start: Int, end: Int)) -> String {
    String(decoding: text[range.start..<range.end], as: UTF8.self)
  }

  private static func isWord(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"):
      true
    default: false
    }
  }

  /// The text with spaces in the place of comments, strings and lines of the preprocessor.
  private static func code(of bytes: [UInt8]) -> [UInt8] {
    var text = bytes
    let (newline, backslash) = (UInt8(ascii: "\n"), UInt8(ascii: "\\"))
    var index = 0
    var isLineStart = true
    func blank(_ end: Int) {
      while index < min(end, text.count) {
        if text[index] != newline { text[index] = UInt8(ascii: " ") }
        index += 1
      }
    }
    func next(_ offset: Int) -> UInt8? {
      index + offset < text.count ? text[index + offset] : nil
    }
    while index < text.count {
      let byte = text[index]
      switch byte {
      case UInt8(ascii: "/") where next(1) == UInt8(ascii: "*"):
        var end = index + 2
        while end < text.count,
          !(text[end] == UInt8(ascii: "/") && text[end - 1] == UInt8(ascii: "*") && end > index + 2)
        { end += 1 }
        blank(end + 1)
        continue
      case UInt8(ascii: "/") where next(1) == UInt8(ascii: "/"):
        var end = index
        while end < text.count, text[end] != newline { end += 1 }
        blank(end)
        continue
      case UInt8(ascii: "\""), UInt8(ascii: "'"):
        var end = index + 1
        while end < text.count, text[end] != byte, text[end] != newline {
          end += text[end] == backslash ? 2 : 1
        }
        blank(end + 1)
        isLineStart = false
        continue
      case UInt8(ascii: "#") where isLineStart:
        var end = index
        while end < text.count, text[end] != newline {
          end += text[end] == backslash ? 2 : 1
        }
        blank(end)
        continue
      case newline: isLineStart = true
      case UInt8(ascii: " "), UInt8(ascii: "\t"): break
      default: isLineStart = false
      }
      index += 1
    }
    return text
  }
}
