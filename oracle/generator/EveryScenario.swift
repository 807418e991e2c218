import Scenarios
import Stage2Sim

/// The scenarios of the recordings in Tests/Recordings/6.1.
func everyScenario() -> [ScenarioFile] {
  var scenarios: [ScenarioFile] = []
  for cpu in [CPUModel.cortexA72, .cortexA76] {
    scenarios += firstFacts(cpu) + everyByte(cpu) + instructionFormScenarios(cpu)
    for backing in [Backing.anonymous, .huge] {
      scenarios += hostEventScenarios(cpu, backing) + hostStories(cpu, backing)
    }
  }
  for backing in [Backing.hugetlb, .memfd, .file] {
    scenarios += hostEventScenarios(.cortexA76, backing) + hostStories(.cortexA76, backing)
  }
  scenarios += everyByte(.max, stride: 5)
  for backing in [Backing.anonymous, .huge] {
    scenarios += hostStories(.max, backing)
  }
  scenarios += explanationScenarios() + otherSizes() + bookkeepingStories() + mergeLimits()
  scenarios += (1...120).map { randomScenario(seed: $0, steps: 70) }
  // A search for one content changes the order of the pages of another one.
  scenarios.append(randomMergingScenario(seed: 2022, steps: 120))
  return scenarios
}
