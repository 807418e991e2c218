import ArgumentParser
import Glibc

@main
struct ModelBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "model-bench",
    abstract: "Measure the model without a node, and print JSON. Times are nanoseconds.",
    subcommands: [Operations.self, Pairs.self, Profile.self, Tables.self, Machines.self])
}

func now() -> UInt64 {
  var time = timespec()
  clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }
