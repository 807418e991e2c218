import ArgumentParser
import CharacterDeviceServer
import Glibc
import Scenarios
import SystemPackage

/// The part of the help that all commands for a tree share.
private let exitStatus = """
  Exit status: 64 wrong usage; 65 the machine has refused the command; 66 the file cannot be read or written; \
  69 nothing serves the node, or it has no tree; 77 not permitted.
  """

struct Walk: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "walk",
    abstract: "Print the walk to the entry with the hidden byte, level by level.",
    discussion: """
      The text is that of the file walk of the inspection tree. The machine is that of a daemon or of a running exec.

      \(exitStatus)
      """)

  @OptionGroup var place: RunningTreeOptions

  func run() throws {
    try reportingFailures { try printText(place.find().text(of: "walk")) }
  }
}

struct Tree: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tree",
    abstract: "List the files of the inspection tree, print one of them, or write to one.",
    discussion: """
      The tree is that of a daemon or of a running exec, which needs no FUSE for it. Of trace_pipe and dmesg_pipe, the command prints \
      the lines that are there. docs/inspection.md describes the files. For example, virt-walkerd tree reset 1 boots the machine anew.

      \(exitStatus)
      """)

  @OptionGroup var place: RunningTreeOptions

  @Argument(help: "The file, for example stats or guest/dmesg. (default: list the files)")
  var file: String?

  @Argument(help: "The text to write to the file. (default: print the file)")
  var text: String?

  func run() throws {
    try reportingFailures {
      let tree = try place.find()
      guard let file else { return printText(try tree.list().map { "\($0)\n" }.joined()) }
      guard let text else { return printText(try tree.text(of: file)) }
      try tree.write("\(text)\n", to: file)
    }
  }
}

struct Control: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "control",
    abstract: "Let the guest or the host of a machine perform a step, and print what happened.",
    discussion: """
      The words are one step of the language of scenarios (docs/scenario.md), for example: virt-walkerd control guest ldrb "w0,[0x40000000]". The command \
      prints the content of the file control afterwards: the step, and its observations.

      \(exitStatus)
      """)

  @OptionGroup var place: RunningTreeOptions

  @Argument(help: "The words of the step.")
  var step: [String]

  func run() throws {
    try reportingFailures {
      let tree = try place.find()
      do {
        try tree.write(step.joined(separator: " ") + "\n", to: "control")
      } catch let failure as Failure where failure.status == .dataError {
        let reason = try tree.text(of: "control").split(separator: "\n").first.map(String.init)
        throw Failure(
          "\(reason ?? failure.description): docs/scenario.md has the steps", status: .dataError)
      }
      printText(try tree.text(of: "control"))
    }
  }
}

/// Prints a text of a tree. It comes from another process, so it cannot steer the terminal.
private func printText(_ text: String) {
  _ = try? FileDescriptor.standardOutput.writeAll(text.printable(allowing: ["\n", "\t"]).utf8)
}
