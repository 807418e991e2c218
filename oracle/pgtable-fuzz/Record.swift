import PageTableCases
import Stage2Sim

extension TableCase {
  /// The record of the kernel's code, as lines.
  func record(on kernel: KernelLibrary) -> [String] {
    kernel.create(machine)
    var recorder = TableRecorder(machine.granule)
    var lines = machine.header + recorder.changes(to: kernel.state).map { "  \($0)" }
    for operation in operations {
      lines.append("\(operation)")
      let outcome = kernel.run(operation)
      guard !kernel.isLost else { return lines + ["  \(CaseReader.lostResult)"] }
      lines += recorder.results(of: operation, outcome, kernel.events, kernel.state)
        .map { "  \($0)" }
    }
    return lines
  }
}
