import Scenarios
import Testing

/// Tests of lines of two engines beside each other.
@Suite struct SideBySideTests {
  private func lines(_ kernel: String, _ model: String, width: Int? = nil) -> [String]? {
    func split(_ text: String) -> [String] { text.split(separator: " ").map(String.init) }
    return SideBySide(differencesOfKernel: split(kernel), fromModel: split(model))?
      .lines(width: width)
  }

  @Test func equalLinesAreNoDifference() {
    #expect(lines("a b c", "a b c") == nil)
    #expect(lines("", "") == nil)
  }

  @Test func equalLinesStandBesideEachOther() {
    #expect(
      lines("a new b", "a b gone") == [
        "  kernel   model", "  a        a", "  new    !", "  b        b", "         ! gone",
      ])
  }

  @Test func longEqualPartsAreLeftOut() {
    #expect(
      lines("1 2 3 4 5 x 6 7 8 9", "1 2 3 4 5 6 7 8 9") == [
        "  kernel   model", "  ...      ...", "  4        4", "  5        5", "  x      !",
        "  6        6", "  7        7", "  ...      ...",
      ])
  }

  @Test func narrowTerminalHasOneSideAboveTheOther() {
    #expect(
      lines("a long-line", "a other", width: 12) == [
        "  a", "! kernel: long-line", "! model:  other",
      ])
  }
}
