import ArgumentParser
import Foundation
import PageTableCases
import Stage2Sim

@main
struct PgtableFuzz: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pgtable-fuzz",
    abstract: "Compares the model's page tables with the kernel's own code, pgtable.c.",
    discussion: """
      oracle/pgtable builds the libraries that it needs, and runs it.

      Exit status: 0 where there is no difference; 1 where there is one, or the run could not go on; 64 for wrong usage; \
      69 without the libraries.
      """,
    subcommands: [Fuzz.self, Cases.self, Time.self])
}

struct LibraryOptions: ParsableArguments {
  @Option(help: "The directory with a directory for each version, with libpgtable-4K.so and so on.")
  var libraries = ".build/oracle/pgtable"

  func library(_ kernel: KernelVersion, _ granule: Granule) throws -> KernelLibrary {
    do {
      return try KernelLibrary(kernel, granule, in: libraries)
    } catch {
      print("pgtable-fuzz: \(error)", to: .standardError)
      throw ExitCode(69)
    }
  }
}

extension KernelVersion: ExpressibleByArgument {}

extension Granule: ExpressibleByArgument {
  public init?(argument: String) { self.init(argument) }
}

struct Fuzz: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Runs random operations; prints the first difference as a short case.")

  @OptionGroup var libraries: LibraryOptions

  @Option(help: "The version of Linux.")
  var kernel = KernelVersion.linux61

  @Option(help: "The page size: 4K, 16K or 64K.")
  var granule = Granule.kib4

  @Option(help: "How many.")
  var operations: UInt64 = 100_000

  @Option(help: "The same seed gives the same operations.")
  var seed: UInt64 = 1

  /// The number of operations of a run that must reach all outcomes.
  private static let reach: UInt64 = 100_000

  func run() throws {
    let fuzzer = Fuzzer(kernel: try libraries.library(kernel, granule), seed: seed)
    let clock = ContinuousClock()
    let start = clock.now
    let difference = try fuzzer.run(operations: operations)
    guard let difference else {
      let seconds = (clock.now - start) / .seconds(1)
      print(fuzzer.summary, "\(Int(seconds.rounded())) s.")
      guard operations < Self.reach || fuzzer.unreached.isEmpty else {
        print(
          "pgtable-fuzz: Linux \(kernel.rawValue), \(granule), seed \(seed): the operations never reached \(fuzzer.unreached.joined(separator: ", ")): adapt Session.swift",
          to: .standardError)
        throw ExitCode.failure
      }
      return
    }
    try report(difference, of: fuzzer)
    throw ExitCode.failure
  }

  private func report(_ difference: Fuzzer.Difference, of fuzzer: Fuzzer) throws {
    guard try fuzzer.difference(in: difference.found) != nil else {
      print(
        "pgtable-fuzz: \(granule), seed \(seed): session \(difference.session) ended with \(difference.ending), but not when it was run alone: the fault is in pgtable-fuzz or in its library",
        to: .standardError)
      return
    }
    let shortest = try fuzzer.shrink(difference.found)
    print(
      "# \(granule), seed \(seed), session \(difference.session): \(shortest.operations.count) of \(difference.found.operations.count) operations are enough. The kernel's code:"
    )
    let original = shortest.record(on: fuzzer.kernel)
    print(original.joined(separator: "\n"))
    print("# The model, where it differs:")
    let ending = try fuzzer.kernel.inChild {
      fuzzer.kernel.limitTime(seconds: Fuzzer.patience)
      let model = shortest.played
      let difference = model.difference(from: original)
      for case .remove(_, let line, _) in difference.removals { print("# -\(line)") }
      for case .insert(_, let line, _) in difference.insertions { print("# +\(line)") }
    }
    switch ending {
    case .exited: break
    case .signal(SIGVTALRM): print("# does not come to an end")
    case .signal(let number): print("# traps (signal \(number))")
    }
    print(
      "pgtable-fuzz: the model differs from the kernel's code. Correct it in Sources/Stage2Sim/PageTables, and keep the case above as Tests/PageTableCases/\(kernel.rawValue)/NAME.txt",
      to: .standardError)
  }
}

struct Cases: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract:
      "Checks that the kernel's code has the results in the files of Tests/PageTableCases.")

  @OptionGroup var libraries: LibraryOptions

  @Flag(help: "Write the results into the files instead.")
  var write = false

  @Argument(help: ArgumentHelp("The cases.", valueName: "file"))
  var files: [String]

  func run() throws {
    struct Key: Hashable {
      let kernel: KernelVersion
      let granule: Granule
    }
    var kernels: [Key: KernelLibrary] = [:]
    var differences = 0
    for file in files {
      do {
        let text = try String(contentsOf: URL(filePath: file), encoding: .utf8)
        let tried = try TableCase(text)
        let key = Key(kernel: tried.machine.kernel, granule: tried.machine.granule)
        let kernel = try kernels[key] ?? libraries.library(key.kernel, key.granule)
        kernels[key] = kernel
        let comments = text.split(separator: "\n").prefix { $0.hasPrefix("#") }.map(String.init)
        let recorded =
          (comments + tried.record(on: kernel)).joined(separator: "\n") + "\n"
        if write {
          try recorded.write(to: URL(filePath: file), atomically: true, encoding: .utf8)
        } else if recorded != text {
          differences += 1
          print(
            "pgtable-fuzz: the results of the kernel's code differ from \(file):\n\(recorded)",
            to: .standardError)
        }
      } catch let error as CaseError {
        print("pgtable-fuzz: \(file):\(error)", to: .standardError)
        throw ExitCode.failure
      }
    }
    print("\(files.count) cases, \(write ? "written" : "\(differences) differ")")
    if differences > 0 { throw ExitCode.failure }
  }
}

struct Time: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Prints the times of operations for the model and for the kernel's code.")

  @OptionGroup var libraries: LibraryOptions

  @Option(help: "The version of Linux.")
  var kernel = KernelVersion.linux61

  func run() throws {
    for granule in Granule.allCases {
      let rows = Timing(kernel: try libraries.library(kernel, granule)).rows()
      print(
        "\n\(pad("\(granule), ns per operation", 38))\(pad("model", -8))\(pad("kernel", -8))\(pad("ratio", -8))"
      )
      for row in rows {
        let ratio = row.modelNanoseconds / row.kernelNanoseconds
        print(
          "\(pad(row.name, 38))\(pad(rounded(row.modelNanoseconds), -8))\(pad(rounded(row.kernelNanoseconds), -8))\(pad(rounded(ratio), -8))"
        )
      }
    }
  }

  private func rounded(_ value: Double) -> String {
    value < 100 ? String(format: "%.1f", value) : String(format: "%.0f", value)
  }

  /// Pads the text to a width: on the right, or on the left if the width is negative.
  private func pad(_ text: String, _ width: Int) -> String {
    let spaces = String(repeating: " ", count: max(0, abs(width) - text.count))
    return width > 0 ? text + spaces : spaces + text
  }
}

private enum Output { case standardError }

private func print(_ text: String, to _: Output) {
  FileHandle.standardError.write(Data("\(text)\n".utf8))
}
