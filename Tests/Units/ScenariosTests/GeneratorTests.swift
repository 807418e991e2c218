import Testing

@testable import scenario_generator

/// Compares the scenario generator of the oracle with the committed recordings.
@Suite struct GeneratorTests {
  private let scenarios = everyScenario()

  /// A recording without its head and its observations is the scenario of the generator.
  @Test func eachScenarioIsThatOfItsRecording() throws {
    #expect(scenarios.count == 641)
    #expect(Set(scenarios.map(\.name)).count == scenarios.count)
    for scenario in scenarios {
      let recorded = try recordingText(scenario.name).split(separator: "\n")
        .filter { !$0.hasPrefix("# Recorded ") && !$0.hasPrefix("  ") }
      #expect(scenario.text == recorded.map { "\($0)\n" }.joined(), "\(scenario.name)")
    }
  }

  /// Each recording whose name belongs to a group of the generator has a scenario. Other recordings may be written by
  /// hand.
  @Test func eachRecordingOfAGroupHasItsScenario() throws {
    func group(_ name: String) -> Substring { name.prefix { $0 != "-" } }
    let groups = Set(scenarios.map { group($0.name) })
    let recorded = try committedRecordings().map(\.name).filter { groups.contains(group($0)) }
    #expect(Set(recorded) == Set(scenarios.map(\.name)))
  }
}
