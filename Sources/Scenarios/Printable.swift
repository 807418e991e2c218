extension String {
  /// The text with nothing in it that steers a terminal: each control and format character stands as `\x1b`, or, beyond a
  /// byte, as `\u{202e}`.
  package var printable: String { printable(allowing: []) }

  /// The same, with characters that are `allowed`.
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
