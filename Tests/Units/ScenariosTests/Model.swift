import Scenarios
import Stage2Sim
import VirtWalkerDevice

extension Recording {
  /// A new engine with the machine of the recording.
  func engine() throws -> ModelEngine { try ModelEngine(machine) }
}

extension Explainer {
  /// Makes an explainer on the model.
  init(cpu: CPUModel, backing: Backing, granule: Granule = .kib4, ipaBits: Int = 40) throws {
    let machine = Self.machine(cpu: cpu, backing: backing, granule: granule, ipaBits: ipaBits)
    self.init(on: try ModelEngine(machine))
  }
}
