import ArgumentParser
import CharacterDeviceServer
import Scenarios
import SystemPackage
import UserCode

@main
struct VirtWalkerd: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "virt-walkerd",
    abstract: "Serve /dev/virt_walker: a byte hidden in a stage-2 page-table entry.",
    discussion: """
      Each one-byte write or read of the node goes through a guest driver, a trapped MMIO access and KVM's stage-2 \
      walk of a simulated arm64 machine. The byte is in bits [58:51] of the entry of guest physical address 0x40000000.

      Exit status: 0 ended by SIGTERM, SIGINT or SIGHUP; 64 wrong usage; 65 the code of --module or --hook \
      does not compile or does not start; 69 not possible on this machine; \
      71 a system error; 73 the node already exists or is already served; 77 not permitted. \
      For the other commands, see virt-walkerd help COMMAND.
      """,
    version: version,
    subcommands: [
      Serve.self, Exec.self, Status.self, Stop.self, Watch.self, Walk.self, Tree.self, Control.self,
      LivePageCommand.self,
      Replay.self, Explain.self, Compare.self,
      Grade.self, Lab.self,
    ],
    defaultSubcommand: Serve.self)

  /// Runs the command that the arguments name. An unknown word is reported here, because the parser would take it for
  /// an argument of the default command.
  static func main() {
    guard !CommandLine.arguments.isEmpty else {
      // Swift reads them from /proc/self/cmdline.
      _ = try? FileDescriptor.standardError.writeAll(
        "virt-walkerd: cannot read the arguments: mount /proc: mount -t proc proc /proc\n".utf8)
      exit(withError: ExitCode.unavailable)
    }
    if CodeBuilder.isRequested { CodeBuilder.run() }
    if SupervisedCommand.isRequested { SupervisedCommand.run("virt-walkerd") }
    var words = CommandLine.arguments.dropFirst()
    if words.first == "help" { words.removeFirst() }
    if let word = words.first, !word.hasPrefix("-"), !commands.contains(word) {
      _ = try? FileDescriptor.standardError.writeAll(
        "virt-walkerd: \(unknown(command: word).printable)\n".utf8)
      exit(withError: ExitCode.validationFailure)
    }
    do {
      var command = try parse()
      try command.run()
    } catch {
      // The parser takes Serve, whose options Exec has, for a command around it.
      let message = fullMessage(for: error).replacing(
        "virt-walkerd serve exec", with: "virt-walkerd exec")
      guard exitCode(for: error) == .validationFailure, !message.isEmpty else {
        exit(withError: error)
      }
      // The message quotes the arguments.
      _ = try? FileDescriptor.standardError.writeAll(
        "\(message.printable(allowing: ["\n"]))\n".utf8)
      exit(withError: ExitCode.validationFailure)
    }
  }

  /// Parses the arguments.
  ///
  /// The command that is named parses its arguments alone at first, because the parser of the whole tree also makes the options of the
  /// default command, and a start would take longer. Only help and an error need the whole tree, for their text.
  private static func parse() throws -> any ParsableCommand {
    let words = CommandLine.arguments.dropFirst()
    let named = configuration.subcommands.first { $0._commandName == words.first }
    if let named, named.configuration.subcommands.isEmpty,
      let command = try? named.parseAsRoot(Array(words.dropFirst())), type(of: command) == named
    {
      return command
    }
    return try parseAsRoot()
  }

  private static var commands: [String] {
    configuration.subcommands.map { $0._commandName } + ["help"]
  }

  private static func unknown(command word: String) -> String {
    let begun = commands.first { !word.isEmpty && $0.hasPrefix(word) }
    let alike = commands.map { (name: $0, distance: $0.editDistance(to: word)) }
      .filter { $0.distance <= 2 }.min { $0.distance < $1.distance }
    let near = begun ?? alike?.name
    guard let near else { return "no command '\(word)': virt-walkerd --help lists the commands" }
    return "no command '\(word)'; did you mean \(near)?"
  }
}

extension String {
  /// The number of characters to add, remove or replace to get the other string.
  fileprivate func editDistance(to other: String) -> Int {
    var row = Array(0...other.count)
    for (index, character) in enumerated() {
      var diagonal = row[0]
      row[0] = index + 1
      for (column, candidate) in other.enumerated() {
        let replaced = diagonal + (character == candidate ? 0 : 1)
        diagonal = row[column + 1]
        row[column + 1] = Swift.min(replaced, diagonal + 1, row[column] + 1)
      }
    }
    return row[other.count]
  }
}
