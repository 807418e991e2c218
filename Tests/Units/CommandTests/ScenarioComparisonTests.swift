import Testing

@testable import virt_walkerd

/// Tests of the comparison of a scenario on both engines.
@Suite struct ScenarioComparisonTests {
  @Test(arguments: [
    ("log kvm [33]: hidden [5]", "log kvm [0]: hidden [5]"), ("log kvm [0]: x", "log kvm [0]: x"),
    ("log kvm [x]: y", "log kvm [x]: y"), ("log kvm [33] y", "log kvm [33] y"),
    ("log virt_walker: kvm [33]: y", "log virt_walker: kvm [33]: y"), ("tlbi all", "tlbi all"),
  ])
  func numberOfTheProcessIsNoDifference(line: String, compared: String) {
    #expect(ScenarioComparison.withoutProcess(line) == compared)
  }
}
