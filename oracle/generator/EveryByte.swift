import Scenarios
import Stage2Sim

/// Scenarios that hide every byte, or one byte in `stride`, into a page and into a block, with the accesses of the guest after
/// that.
func everyByte(_ cpu: CPUModel, stride step: Int = 1) -> [ScenarioFile] {
  [("page", Backing.anonymous), ("huge", .huge)].map { name, backing in
    ScenarioFile(
      "bytes-\(cpu.shortName)-\(name)",
      "What each hidden byte does to loads, stores and fetches, and they to it.",
      on: MachineDescription(cpu, backing)
    ) {
      host("write", target, leave)
      store(target)
      for byte in stride(from: 0, to: 256, by: step) {
        hide(literal: "\(byte)")
        seek
        load(target)
        store(target)
        fetch(target)
        seek
      }
    }
  }
}
