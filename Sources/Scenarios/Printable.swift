extension String {
  /// The text with escapes for control and format characters, which steer a terminal: `\x1b` for a character of one byte, and
  /// `\u{202e}` for others.
  package var printable: String { printable(allowing: []) }

  /// The same text, but with the characters that are `allowed`.
  package func printable(allowing allowed: Set<Unicode.Scalar>) -> String {
    guard utf8.contains(where: { !(0x20...0x7e).contains($0) }) else { return self }
    var text = ""
    for scalar in unicodeScalars {
      if allowed.contains(scalar) || !scalar.steersTerminals {
        text.unicodeScalars.append(scalar)
      } else {
        let digits = String(scalar.value, radix: 16)
        text +=
          scalar.value < 0x100 ? "\\x\(digits.count < 2 ? "0" : "")\(digits)" : "\\u{\(digits)}"
      }
    }
    return text
  }
}

extension Unicode.Scalar {
  fileprivate var steersTerminals: Bool {
    switch properties.generalCategory {
    case .control, .format, .lineSeparator, .paragraphSeparator, .privateUse, .unassigned: true
    default: false
    }
  }
}
