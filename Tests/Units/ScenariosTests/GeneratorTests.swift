import Testing

@testable import scenario_generator

/// The scenario generator of the oracle, against the committed recordings.
@Suite struct GeneratorTests {
  private let scenarios = everyScenario()

  /// A recording without its head and without what was seen is the scenario that was recorded.
  @Test func eachScenarioIsThatOfItsRecording() throws {
    #expect(scenarios.count == 641)
    #expect(Set(scenarios.map(\.name)).count == scenarios.count)
    for scenario in scenarios {
      let recorded = try recordingText(scenario.name).split(separator: "\n")
        .filter { !$0.hasPrefix("# Recorded ") && !$0.hasPrefix("  ") }
      #expect(scenario.text == recorded.map { "\($0)\n" }.joined(), "\(scenario.name)")
    }
  }

  /// A recording with a name of one of the generator's groups has a scenario; others may have been written by hand.
  @Test func eachRecordingOfAGroupHasItsScenario() throws {
    func group(_ name: String) -> Substring { name.prefix { $0 != "-" } }
    let groups = Set(scenarios.map { group($0.name) })
    let recorded = try committedRecordings().map(\.name).filter { groups.contains(group($0)) }
    #expect(Set(recorded) == Set(scenarios.map(\.name)))
  }
}
