import Scenarios
import Testing

/// Tests of the recorder's output while it comes.
@Suite struct RecordedStepsTests {
  private func steps(_ text: String) -> [[String]?] {
    var recorded = RecordedSteps()
    let seen = text.split(separator: "\n").map { recorded.take($0) }
    return seen + [recorded.finish()]
  }

  @Test func stepEndsWithTheNextOne() {
    #expect(
      steps(
        "machine cpu=max\nhost fork\n  result 0\n  leaf x\nguest fetch 0x0\nhost ksm\n  result ETIMEDOUT"
      ) == [
        nil, nil, nil, nil, ["result 0", "leaf x"], [], nil, ["result ETIMEDOUT"],
      ])
  }

  /// Text without a step, and observations before the first step, belong to no step.
  @Test func textWithoutAStepHasNone() {
    #expect(steps("machine cpu=max\n  lost") == [nil, nil, nil])
  }
}
