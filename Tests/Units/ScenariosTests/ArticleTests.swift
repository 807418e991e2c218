import Foundation
import Scenarios
import Testing
import VirtWalkerDevice

/// The code of the articles in Sources/Scenarios/Scenarios.docc, compiled and run.
@Suite struct ArticleTests {
  @Test func scenarios() throws {
    let text = """
      machine cpu=cortex-a76 backing=anonymous memory=64M
      host write 0x40000000 0x41
        result 0
        leaf 0x40000000 level 1 0000000000000000 counts 1
      guest ldrb w0,[0x40000000]
        run retired pc +4 x0 0x42
      """
    let recording = try Recording(parsing: text)
    let difference = try #require(
      try recording.firstDifference(on: ModelEngine(recording.machine)))
    #expect(difference.step == 2 && difference.line == 5)
    #expect(difference.kernel == ["run retired pc +4 x0 0x42"])
    #expect(difference.model.first == "run retired pc +4 x0 0x41")

    let onTheModel = try recording.played(on: ModelEngine(recording.machine))
    #expect(try onTheModel.firstDifference(on: ModelEngine(recording.machine)) == nil)

    let refusal = ScenarioError(
      line: 1, column: 16, message: "expected MiB with an M, 4 to 1024, found '2'")
    #expect(throws: refusal) { try Scenario(parsing: "machine memory=2M") }
  }

  @Test func codeOfTheArticleIsInThisTest() throws {
    let article = try String(
      contentsOf: repository.appending(path: "Sources/Scenarios/Scenarios.docc/Scenarios.md"),
      encoding: .utf8)
    let tests = try String(contentsOfFile: #filePath, encoding: .utf8)
    let blocks = article.matches(of: /(?s)```swift\n(.*?)```/).map(\.output.1)
    #expect(blocks.count == 2)
    for code in blocks {
      let lines = code.split(separator: "\n", omittingEmptySubsequences: false)
        .map { $0.isEmpty ? "" : "    \($0)" }
      #expect(tests.contains(lines.joined(separator: "\n")), "not in this test:\n\(code)")
    }
  }
}
