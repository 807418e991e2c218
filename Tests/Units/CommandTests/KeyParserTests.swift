import Testing

@testable import virt_walkerd

@Suite struct KeyParserTests {
  /// Input as terminals send it, in one read, and the letters in it.
  @Test(arguments: [
    ("p", "p"),
    ("pq ", "pq "),
    // Up, and Up in application mode.
    ("\u{1b}[Ap", "p"),
    ("\u{1b}OAp", "p"),
    // F5, and Ctrl+Up.
    ("\u{1b}[15~q", "q"),
    ("\u{1b}[1;5Aq", "q"),
    // Alt+q, and two keys Esc before a letter of another sequence.
    ("\u{1b}qp", "p"),
    ("\u{1b}\u{1b}[Bp", "p"),
    ("\u{1b}", ""),
    ("\u{1b}[", ""),
  ])
  func lettersOfSequencesAreLeftOut(input: String, letters: String) {
    var parser = KeyParser()
    let keys = input.utf8.compactMap { parser.parse($0) }
    #expect(String(decoding: keys, as: UTF8.self) == letters)
  }
}
