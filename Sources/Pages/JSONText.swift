/// A text in JSON for the inside of an HTML element: no character of it can end the element.
struct JSONText {
  private(set) var text = ""

  mutating func append(_ raw: String) { text += raw }

  mutating func append(_ number: Int) { text += "\(number)" }

  mutating func append(string: String) {
    text += "\""
    for scalar in string.unicodeScalars {
      switch scalar {
      case "\"", "\\": text += "\\\(scalar)"
      // "<" begins a tag, and "&" a character reference. U+2028 and U+2029 are line ends for JavaScript.
      case "\0"..."\u{1f}", "<", ">", "&", "\u{7f}"..."\u{9f}", "\u{2028}", "\u{2029}":
        let digits = String(scalar.value, radix: 16)
        text += "\\u" + String(repeating: "0", count: 4 - digits.utf8.count) + digits
      default: text.unicodeScalars.append(scalar)
      }
    }
    text += "\""
  }

  /// Appends the elements between brackets.
  mutating func appendList<Element>(
    _ elements: some Sequence<Element>, _ append: (inout JSONText, Element) -> Void
  ) {
    text += "["
    var isFirst = true
    for element in elements {
      if !isFirst { text += "," }
      isFirst = false
      append(&self, element)
    }
    text += "]"
  }

  mutating func append(_ numbers: [Int]) { appendList(numbers) { $0.append($1) } }

  mutating func append(_ strings: [String]) { appendList(strings) { $0.append(string: $1) } }
}
