import ArgumentParser
import Stage2Sim

/// Runs the work that `Pairs` times as `traced`, and nothing else.
struct Profile: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Hides and seeks by the machine with its trace, not timed: for a profiler.")

  @Argument(help: "Pairs.")
  var pairs: Int

  func run() throws {
    var (machine, registers) = try bootedMachine()
    machine.events = EventStream(capacity: 1 << 14)
    for index in 0..<pairs {
      _ = try hideAndSeek(UInt8(truncatingIfNeeded: index), on: &machine, registers)
    }
  }
}
