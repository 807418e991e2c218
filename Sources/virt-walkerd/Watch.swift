import ArgumentParser
import CharacterDeviceServer
import Glibc
import SystemPackage

struct Watch: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "watch",
    abstract: "Watch a machine live on the terminal: the walk, the entry, counters and events.",
    discussion: """
      The content comes from the files walk, stats and trace_pipe of the inspection tree. The bits of the hidden byte are \
      marked. A counter that has changed is marked for a second. A large terminal also shows more events and the meaning \
      of the entry's fields.

      The key q ends the command. The key p or the space bar pauses and continues. If NO_COLOR is set, there are no colours.

      Exit status: 0 ended by q or a signal; 64 wrong usage, or no terminal; 66 the tree cannot be read; 69 \
      no daemon serves the node, the node has no tree, or the daemon has ended; 77 not permitted.
      """)

  @OptionGroup var place: RunningTreeOptions

  @Option(
    help: ArgumentHelp("The time between two updates, 0.1 to 60 seconds.", valueName: "seconds"))
  var interval = 0.25

  func validate() throws {
    guard (0.1...60).contains(interval) else {
      throw ValidationError("--interval \(interval): give 0.1 to 60 seconds")
    }
  }

  func run() throws {
    try reportingFailures {
      let tree = try place.find()
      let files = try WatchedFiles(tree)
      guard isatty(STDOUT_FILENO) == 1, let screen = try? Screen() else {
        throw Failure(
          "standard output is not a terminal: watch on one, or print the walk once: virt-walkerd walk",
          status: .validationFailure)
      }
      let watcher = Watcher(
        files, of: tree.subject, on: screen, WatchView(title: tree.title),
        milliseconds: Int(interval * 1000))
      try watcher.run()
    }
  }
}

/// The files of a tree that are shown. They are opened once, so that all of them belong to one daemon.
private struct WatchedFiles {
  private let walk: () throws -> String
  private let stats: () throws -> String
  /// The next lines of the trace; empty if there are none at the moment.
  private let nextTrace: () throws -> String

  /// The size of the buffer: larger than each text, and than the result of one read of the pipe.
  private static let size = 1 << 14
  /// The number of reads of the pipe in one update, of about a page each. The rest is read in the next update, so that
  /// neither the view nor the device waits for a long trace.
  private static let mostReads = 64

  init(_ tree: RunningTree) throws {
    switch tree.place {
    case .directory(let path):
      let (walk, stats) = (try path.openTreeFile("walk"), try path.openTreeFile("stats"))
      let trace = try path.openTreeFile("trace_pipe")
      self.walk = { try Self.text { try walk.read(fromAbsoluteOffset: 0, into: $0) } }
      self.stats = { try Self.text { try stats.read(fromAbsoluteOffset: 0, into: $0) } }
      nextTrace = {
        do {
          return try Self.text { try trace.read(into: $0) }
        } catch Errno.resourceTemporarilyUnavailable {
          return ""
        }
      }
    case .socket(let client):
      walk = { try client.read("walk") }
      stats = { try client.read("stats") }
      nextTrace = { try client.read("trace_pipe") }
    }
  }

  /// Returns the present texts of `walk` and `stats`, and the lines of `trace_pipe` since the last call.
  func read() throws -> WatchedTexts {
    // The events are read first, so that the walk is at least as new as they are.
    let (trace, isBehind) = try readTrace()
    return WatchedTexts(
      walk: try walk(), stats: try stats(), trace: trace, isBehind: isBehind)
  }

  private func readTrace() throws -> (text: String, isBehind: Bool) {
    var text = ""
    for _ in 0..<Self.mostReads {
      let part = try nextTrace()
      if part.isEmpty { return (text, false) }
      text += part
    }
    return (text, true)
  }

  private static func text(
    _ body: (UnsafeMutableRawBufferPointer) throws -> Int
  ) throws -> String {
    var bytes = [UInt8](repeating: 0, count: size)
    let count = try bytes.withUnsafeMutableBytes(body)
    return String(decoding: bytes.prefix(count), as: UTF8.self)
  }
}

/// Shows the files on the screen again and again until a key or a signal ends it.
private final class Watcher {
  private let files: WatchedFiles
  /// The node or the tree that is shown, for messages.
  private let subject: String
  private let screen: Screen
  private var view: WatchView
  private let interval: Int  // milliseconds
  /// The interval in milliseconds while the trace has more lines than one update takes.
  private static let catchingUp = 100

  init(
    _ files: WatchedFiles, of subject: String, on screen: Screen, _ view: WatchView,
    milliseconds: Int
  ) {
    self.files = files
    self.subject = subject
    self.screen = screen
    self.view = view
    interval = milliseconds
  }

  /// - Throws: ``Failure`` if the files no longer answer.
  func run() throws {
    let timer = try DelayTimer()
    let loop = try EventLoop()
    try screen.handleSignals(in: loop, draw)
    try loop.add(screen.descriptor) { [self] in
      guard let keys = screen.keys(), !keys.contains(UInt8(ascii: "q")) else { return loop.stop() }
      for key in keys where "p ".utf8.contains(key) { view.isPaused.toggle() }
      draw()
    }
    try loop.add(timer.descriptor) { [self] in
      timer.finish()
      if !view.isPaused { try refresh() }
      draw()
      timer.start(milliseconds: pause)
    }
    try refresh()
    screen.enter()
    defer { screen.leave() }
    draw()
    timer.start(milliseconds: pause)
    try loop.run()
  }

  /// The time until the next update, in milliseconds.
  private var pause: Int { view.isBehind ? min(interval, Self.catchingUp) : interval }

  private func refresh() throws {
    let texts: WatchedTexts
    do {
      texts = try files.read()
    } catch {
      throw Failure(
        "\(subject) is gone: its daemon has ended, or the tree was unmounted: virt-walkerd status lists the daemons",
        status: .unavailable)
    }
    view.update(texts, lately: max(1, 1000 / interval))
  }

  private func draw() {
    let size = screen.size
    screen.draw(
      view.lines(columns: size.columns, rows: size.rows)
        .map { $0.rendered(columns: size.columns, colours: Screen.hasColours) })
  }
}
