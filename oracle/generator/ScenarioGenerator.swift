import ArgumentParser
import Foundation

@main struct ScenarioGenerator: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "scenario-generator",
    abstract: "Writes the scenarios of the committed recordings, or prints a random one.",
    usage: """
      scenario-generator <directory>
      scenario-generator --random <seed> <steps>
      scenario-generator --random-merging <seed> <steps>
      """,
    discussion: """
      The same arguments give the same scenarios. The names of the files say what they are about:

      facts-*            the first facts about the hook
      bytes-*            every byte, hidden into a page and into a block, and the guest's accesses after that
      guest-*            every instruction form at every kind of address
      host-*             each event of the host's memory management, before and after a hide, on every backing
      explain-*          the events that virt-walkerd explain tries, on the machine that it explains
      ipa-*, granule-*   a reduced set for other sizes of the guest's address space and of the pages
      merge-*            more equal pages than KSM lets share one
      random-*           random steps at few addresses, so that they affect one another
      """)

  @Argument(help: "The directory for all scenarios; it is made if it is missing.")
  var directory: String?

  @Option(
    parsing: .upToNextOption,
    help: "Print the random scenario of a seed, with at least this number of steps.")
  var random: [Int] = []

  @Option(
    parsing: .upToNextOption,
    help: "Print a random scenario with many equal pages, which KSM merges.")
  var randomMerging: [Int] = []

  mutating func validate() throws {
    guard [directory != nil, !random.isEmpty, !randomMerging.isEmpty].count(where: { $0 }) == 1
    else {
      throw ValidationError("Give one of a directory, --random and --random-merging.")
    }
    for numbers in [random, randomMerging] where !numbers.isEmpty {
      guard numbers.count == 2, numbers.allSatisfy({ $0 >= 0 }) else {
        throw ValidationError("A random scenario takes a seed and a number of steps.")
      }
    }
  }

  func run() throws {
    if let directory {
      let folder = URL(filePath: directory, directoryHint: .isDirectory)
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
      for scenario in everyScenario() {
        try Data(scenario.text.utf8).write(to: folder.appending(path: "\(scenario.name).txt"))
      }
    } else if !random.isEmpty {
      print(randomScenario(seed: random[0], steps: random[1]).text, terminator: "")
    } else {
      print(
        randomMergingScenario(seed: randomMerging[0], steps: randomMerging[1]).text, terminator: "")
    }
  }
}
