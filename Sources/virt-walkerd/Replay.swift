import ArgumentParser
import Glibc
import Scenarios
import SystemPackage

struct Replay: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Run scenarios on the model, or check recordings of the real kernel against it.",
    discussion: """
      A scenario is a text: a line for the machine, and a line for each step of its guest or its host. Below each \
      step a recording has what was seen; docs/scenario.md has the language. Without --check what the files have \
      seen is left out, and what the model shows is printed in its place, the other lines as they are: one recording \
      for each file, one after the other.

      Exit status: 0; with --check, 1 where a recording differs. 65 a text that is no scenario, or with --check no \
      recording; 66 a file that cannot be read; 69 a machine that the model does not have. No file is played unless \
      all can be read.
      """)

  @Flag(
    help: """
      Compare all that was seen, print the first difference of each file, the kernel's side left and the model's \
      right, and count.
      """)
  var check = false

  @Argument(
    help: ArgumentHelp("Scenarios or recordings; - is standard input.", valueName: "file"))
  var files: [String]

  func validate() throws {
    guard !files.contains("") else { throw ValidationError("an empty name is no file") }
  }

  func run() throws {
    try reportingFailures {
      let texts = try files.map(Text.init)
      if check {
        try compare(texts)
      } else {
        for text in texts { try text.play() }
      }
    }
  }

  private func compare(_ texts: [Text]) throws {
    for text in texts { try text.requireObservations() }
    let width = outputWidth()
    var matching = 0
    for text in texts {
      if let difference = text.difference(width: width) {
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
    let steps = texts.map(\.recording.steps.count).reduce(0, +)
    try write("\(count(texts.count, "recording")), \(count(steps, "step")): all match\n")
  }

  private func count(_ number: Int, _ what: String) -> String {
    "\(number) \(what)\(number == 1 ? "" : "s")"
  }
}

/// A file of the command line.
private struct Text {
  let name: String
  let recording: Recording

  init(_ path: String) throws {
    name = path == "-" ? "standard input" : path
    let bytes = try Self.read(path, name)
    guard bytes.count <= Scenario.maximumSize else {
      throw Failure(
        "\(name) is longer than \(Scenario.maximumSize >> 20) MiB: divide it into more scenarios",
        status: .dataError)
    }
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw Failure("\(name) is no UTF-8 text: give a scenario or a recording", status: .dataError)
    }
    do {
      recording = try Recording(parsing: text)
    } catch {
      throw Failure("\(name):\(error): docs/scenario.md has the language", status: .dataError)
    }
  }

  /// All bytes of the file, or the first of what is too long.
  private static func read(_ path: String, _ name: String) throws -> [UInt8] {
    do {
      let file =
        path == "-"
        ? FileDescriptor.standardInput
        : try FileDescriptor.open(FilePath(path), .readOnly, options: [.closeOnExec])
      defer { if path != "-" { try? file.close() } }
      var bytes: [UInt8] = []
      var buffer = [UInt8](repeating: 0, count: 1 << 16)
      while bytes.count <= Scenario.maximumSize {
        let count = try buffer.withUnsafeMutableBytes { try file.read(into: $0) }
        guard count > 0 else { break }
        bytes += buffer[..<count]
      }
      return bytes
    } catch {
      throw Failure(
        "cannot read \(name): \(error): give the path of a scenario or a recording",
        status: .noInput)
    }
  }

  func requireObservations() throws {
    guard recording.steps.contains(where: { !$0.line.observations.isEmpty }) else {
      throw Failure(
        "\(name) has no observations to compare: it is a scenario; run it without --check",
        status: .dataError)
    }
  }

  func play() throws {
    do {
      for line in try Recording.Playback(of: recording) { try write(line.description) }
    } catch let error as UnplayableMachine {
      throw Failure("cannot play \(name): \(error)", status: .unavailable)
    }
  }

  /// Where the model first differs, to print; nil where it does not.
  func difference(width: Int?) -> String? {
    do {
      guard let difference = try recording.firstDifference() else { return nil }
      let title = "\(name):\(difference.line): step \(difference.step): \(difference.text)"
      return ([title] + difference.sideBySide(width: width)).map { "\($0)\n" }.joined()
    } catch {
      return "\(name): cannot be played: \(error)\n"
    }
  }
}

/// Prints `text` without what would steer a terminal, as it may be somebody else's.
func write(_ text: String) throws {
  _ = try FileDescriptor.standardOutput.writeAll(printable(text, allowing: ["\n"]).utf8)
}

/// The columns of the terminal; nil where lines may be of any length.
private func outputWidth() -> Int? {
  if let columns = getenv("COLUMNS").flatMap({ Int(String(cString: $0)) }), columns > 0 {
    return columns
  }
  var size = winsize()
  guard ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return nil }
  return Int(size.ws_col)
}
