import ArgumentParser
import Stage2Sim

/// What `Pairs` times as `traced`, and nothing else.
struct Profile: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Hides and seeks by the machine with its trace, not timed: for a profiler.")

  @Argument(help: "Pairs.")
  var pairs: Int

  func run() throws {
    var machine = try VirtualMachine.booted()
    guard let registers = machine.ioremap(HideSeek.hideAddress, size: 2) else {
      throw ValidationError("the registers cannot be mapped")
    }
    machine.trace = TraceRing(capacity: 1 << 14)
    for index in 0..<pairs {
      try machine.writeb(UInt8(truncatingIfNeeded: index), to: registers)
      _ = try machine.readb(registers + 1)
    }
  }
}
