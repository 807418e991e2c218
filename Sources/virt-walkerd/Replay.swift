import ArgumentParser
import Glibc
import Scenarios
import SystemPackage
import UserCode

struct Replay: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Run scenarios on the model, or compare recordings of the real kernel with it.",
    discussion: """
      A scenario is a text with a line for the machine and a line for each step of its guest or its host. A recording \
      also has the observations of each step, below the step. docs/scenario.md describes the language. Without --check, the \
      command prints one recording for each file: the lines of the file, with the model's observations instead of the \
      file's observations.

      Exit status: 0 success; 1 with --check, a recording differs; 65 a text is not a scenario, or with --check not a \
      recording, or the code of --hook does not compile; 66 a file cannot be read; 69 the model does not support the machine. No file is run unless all files \
      can be read.
      """)

  @Flag(
    help: """
      Compare all observations with the model. Print the first difference of each file, the kernel on the left and the \
      model on the right, and the number of files that match.
      """)
  var check = false

  @OptionGroup(title: "Your own code") var ownHook: HookOptions

  @Argument(
    help: ArgumentHelp("Scenarios or recordings; - is standard input.", valueName: "file"))
  var files: [String]

  func validate() throws {
    guard !files.contains("") else { throw ValidationError("an empty name is not a file") }
    try ownHook.requireCode(ownHook.isGiven, by: "--hook")
  }

  func run() throws {
    try reportingFailures {
      // All files are read before the first one is played. Only one text at a time stays in memory.
      let texts = try files.map(Text.init)
      let hook = try HookRunner(ownHook)
      if check {
        try compare(texts, hook)
      } else {
        for text in texts { try text.play(hook) }
      }
    }
  }

  private func compare(_ texts: [Text], _ hook: HookRunner?) throws {
    for text in texts { try text.requireObservations() }
    let width = outputWidth()
    var matching = 0
    for text in texts {
      if let difference = try text.difference(width: width, hook) {
        try write(difference)
      } else {
        matching += 1
      }
    }
    guard matching == texts.count else {
      let differing = texts.count - matching
      try write(
        "\(matching) of \(count(texts.count, "recording")) match, \(differing) \(differing == 1 ? "differs" : "differ")\n"
      )
      throw ExitCode.failure
    }
    let steps = texts.map(\.stepCount).reduce(0, +)
    try write("\(count(texts.count, "recording")), \(count(steps, "step")): all match\n")
  }

  private func count(_ number: Int, _ what: String) -> String {
    "\(number) \(what)\(number == 1 ? "" : "s")"
  }
}

/// A scenario or recording that the command line names.
private struct Text {
  private let path: String
  private let name: String
  /// The content of a file that cannot be read a second time, such as a pipe.
  private let bytes: [UInt8]?
  private let machine: MachineDescription
  let stepCount: Int
  private let hasObservations: Bool

  init(_ path: String) throws {
    self.path = path
    name = path == "-" ? "standard input" : path
    let (bytes, canBeReadAgain) = try Self.read(path, name)
    self.bytes = canBeReadAgain ? nil : bytes
    (machine, stepCount, hasObservations) = try Self.parsing(bytes, name) { reader in
      while try reader.next(keepsObservations: false) != nil {}
      return (try reader.requireMachine(), reader.stepCount, reader.hasObservations)
    }
  }

  /// - Throws: ``Failure`` with the place of the error in the text.
  private static func parsing<Result>(
    _ bytes: [UInt8], _ name: String, _ parse: (inout RecordingReader) throws -> Result
  ) throws -> Result {
    guard bytes.count <= Scenario.maximumSize else {
      throw Failure(
        "\(name) is longer than \(Scenario.maximumSize >> 20) MiB: divide it into more scenarios",
        status: .dataError)
    }
    guard String(validating: bytes, as: UTF8.self) != nil else {
      throw Failure("\(name) is not UTF-8 text: give a scenario or a recording", status: .dataError)
    }
    do {
      var reader = try RecordingReader(bytes)
      return try parse(&reader)
    } catch let error as ScenarioError {
      throw Failure("\(name):\(error): docs/scenario.md describes the language", status: .dataError)
    }
  }

  /// Returns the bytes of the file, at most a little more than the maximum size, and whether the file can be read
  /// again.
  private static func read(_ path: String, _ name: String) throws -> ([UInt8], Bool) {
    do {
      let file =
        path == "-"
        ? FileDescriptor.standardInput
        : try FileDescriptor.open(FilePath(path), .readOnly, options: [.closeOnExec])
      defer { if path != "-" { try? file.close() } }
      var status = stat()
      guard fstat(file.rawValue, &status) == 0 else { throw Errno(rawValue: errno) }
      let isRegular = status.st_mode & S_IFMT == S_IFREG
      var bytes: [UInt8] = []
      if isRegular { bytes.reserveCapacity(min(Int(status.st_size), Scenario.maximumSize) + 1) }
      var buffer = [UInt8](repeating: 0, count: 1 << 16)
      while bytes.count <= Scenario.maximumSize {
        let count = try buffer.withUnsafeMutableBytes { try file.read(into: $0) }
        guard count > 0 else { break }
        bytes += buffer[..<count]
      }
      return (bytes, isRegular && path != "-")
    } catch {
      throw Failure(
        "cannot read \(name): \(error): give the path of a scenario or a recording",
        status: .noInput)
    }
  }

  private func parsingAgain<Result>(
    _ parse: (inout RecordingReader) throws -> Result
  ) throws -> Result {
    try Self.parsing(try bytes ?? Self.read(path, name).0, name, parse)
  }

  func requireObservations() throws {
    guard hasObservations else {
      throw Failure(
        "\(name) has no observations to compare: it is a scenario; run it without --check",
        status: .dataError)
    }
  }

  /// Prints each step after it was performed, with the comments before it.
  func play(_ hook: HookRunner?) throws {
    try parsingAgain { reader in
      let engine: any Engine
      do {
        engine = try hook.makeEngine(machine)
      } catch let failure as CodeFailure {
        throw failure
      } catch {
        throw Failure("cannot run \(name): \(error)", status: .unavailable)
      }
      var output = ""
      while let line = try reader.next(keepsObservations: false) {
        output += line.description
        if case .step(let step) = line.line.content {
          for seen in try engine.perform(step) { output += "  \(seen)\n" }
        } else if output.utf8.count < 1 << 16 {
          continue
        }
        try write(output)
        output = ""
      }
      try write(output)
    }
  }

  /// The first difference from the model, as text to print; nil if there is none.
  func difference(width: Int?, _ hook: HookRunner?) throws -> String? {
    let engine: any Engine
    do {
      engine = try hook.makeEngine(machine)
    } catch {
      return "\(name): cannot be played: \(error)\n"
    }
    return try parsingAgain { reader in
      while let line = try reader.next() {
        guard case .step(let step) = line.line.content,
          let difference = try engine.difference(
            performing: step, number: reader.stepCount, of: line)
        else { continue }
        let title = "\(name):\(difference.line): step \(difference.step): \(difference.text)"
        return ([title] + difference.sideBySide(width: width)).map { "\($0)\n" }.joined()
      }
      return nil
    }
  }
}

/// Prints `text`, which may come from another user, without the characters that would control the terminal.
func write(_ text: String) throws {
  _ = try FileDescriptor.standardOutput.writeAll(text.printable(allowing: ["\n"]).utf8)
}

/// The number of columns of the terminal; nil if lines can have any length.
private func outputWidth() -> Int? {
  if let columns = getenv("COLUMNS").flatMap({ Int(String(cString: $0)) }), columns > 0 {
    return columns
  }
  var size = winsize()
  guard ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return nil }
  return Int(size.ws_col)
}
