import DaemonSupport
import Foundation
import Subprocess
import Testing

@testable import virt_walkerd

/// Tests of `virt-walkerd watch` on a real terminal: the screen during the run, and the terminal after the end.
@Suite(.endingDaemons, .timeLimit(.minutes(15))) struct WatchTests {
  @Test func showsTheMachineAndWhatBecomesOfIt() async throws {
    try await withWatch { daemon, terminal in
      let first = try await terminal.wait { $0.contains("hidden byte 0x41 'A'") }
      #expect(first.hasPrefix("walk of 0x40000000: 4K granule, 40-bit IPA, start level 1\n"))
      #expect(first.contains("\n    2  0x0100002000      0  02080002004007fd  block of 2 MiB at"))
      #expect(first.contains("\n00000 01000001 000 0"))
      #expect(first.contains("writes        1 "))
      #expect(first.contains(": hide: byte 0x41 entry 00000002004007fd -> 02080002004007fd\n"))
      let lines = first.split(separator: "\n", omittingEmptySubsequences: false)
      #expect(lines.count == 24)
      #expect(lines.last?.hasPrefix("\(daemon.node): cortex-a76 huge 256M") == true)
      #expect(lines.last?.hasSuffix("p pauses  q quits") == true)

      _ = try await shell("printf K > \(daemon.node)")
      let second = try await terminal.wait { $0.contains("hidden byte 0x4b 'K'") }
      #expect(second.contains(": hide: byte 0x4b entry 02080002004007fd -> 02580002004007fd"))
      // A change is marked for a second. On a busy machine, the second may be over before the test reads the screen.
      var marked = second
      while !marked.contains(#/writes +\d+\*/#) {
        _ = try await shell("printf K > \(daemon.node)")
        marked = try await terminal.wait { $0.contains("hidden byte 0x4b 'K'") }
      }
      _ = try await terminal.wait { $0.contains(#/writes +\d+ /#) }
      let step = "echo host madvise dontneed 0x40000000 0x200000"
      #expect(try await shell("\(step) > \(daemon.tree)/control").succeeded)
      marked = try await terminal.wait {
        $0.contains("steps         1") && $0.contains("bytes_lost            1")
      }
      while !marked.contains(#/steps +\d+\*/#) || !marked.contains(#/bytes_lost +\d+\*/#) {
        _ = try await shell("printf K > \(daemon.node); \(step) > \(daemon.tree)/control")
        marked = try await terminal.wait { $0.contains("steps") }
      }
    }
  }

  @Test(arguments: ["p", "Space"]) func pauses(key: String) async throws {
    try await withWatch { daemon, terminal in
      _ = try await terminal.wait { $0.contains("hidden byte 0x41") }
      try await terminal.send(key)
      _ = try await terminal.wait { $0.contains("paused  p continues") }
      _ = try await shell("printf K > \(daemon.node)")
      // The paused view is drawn again after the write, and still shows the byte from before.
      try await terminal.resize(columns: 100, rows: 24)
      let paused = try await terminal.wait { $0.split(separator: "\n").last?.utf8.count == 100 }
      #expect(paused.contains("hidden byte 0x41"))
      // The codes of arrow and function keys contain letters that are not commands. One read returns several keys.
      try await terminal.send("Up", "F1", "F5", "M-p", key)
      _ = try await terminal.wait { $0.contains("hidden byte 0x4b") && $0.contains("p pauses") }
    }
  }

  @Test func fitsTheTerminal() async throws {
    try await withWatch { daemon, terminal in
      _ = try await shell("printf 123456789 | dd of=\(daemon.node) bs=1")
      let usual = try await terminal.wait {
        $0.contains("hidden byte 0x39") && !$0.contains(/\d\*/)
      }
      try await terminal.resize(columns: 132, rows: 60)
      let large = try await terminal.wait { $0.contains("\nsoftware     [58:55]") }
      #expect(large.occurrences(of: "_exit") > usual.occurrences(of: "_exit"))
      #expect(large.occurrences(of: "\n") == 59)
      try await terminal.resize(columns: 40, rows: 10)
      let small = try await terminal.wait { $0.hasSuffix("p pauses  q quits") }
      let lines = small.split(separator: "\n", omittingEmptySubsequences: false)
      #expect(lines.count == 10 && lines.allSatisfy { $0.utf8.count <= 40 })
      #expect(lines[0] == "walk of 0x40000000: 4K granule, 40-bit I")
      try await terminal.resize(columns: 80, rows: 24)
      let again = try await terminal.wait { $0.split(separator: "\n").last?.utf8.count == 80 }
      #expect(again == usual)
    }
  }

  @Test(arguments: ["q", "C-c", "C-\\", "TERM", "HUP", "stop"])
  func leavesTheTerminalAsItWas(way: String) async throws {
    try await withWatch(
      command: """
        stty -g | md5sum; $virt_walkerd watch $selector; echo "status $?"; stty -g | md5sum
        """
    ) { daemon, terminal in
      _ = try await terminal.wait { $0.contains("hidden byte") }
      #expect(try await terminal.cursorAndAlternateScreen == "0 1")
      switch way {
      case "TERM", "HUP":
        let watch = "pgrep -f '^[^ ]*virt-walkerd watch \(daemon.selector)$'"
        #expect(try await shell("kill -\(way) $(\(watch))").succeeded)
      case "stop": #expect(try await shell("$virt_walkerd stop \(daemon.selector)").succeeded)
      default: try await terminal.send(way)
      }
      let after = try await terminal.wait { $0.contains("\nstatus ") && isAtPrompt($0) }
      #expect(try await terminal.cursorAndAlternateScreen == "1 0")
      let lines = after.split(separator: "\n")
      #expect(lines.prefix(2).last == "what was there", "\(after)")
      let settings = lines.filter { $0.hasSuffix("  -") }
      #expect(settings.count == 2 && settings.first == settings.last, "\(after)")
      #expect(lines.contains(way == "stop" ? "status 69" : "status 0"), "\(after)")
      // The terminal has wrapped the message.
      #expect(
        after.replacing("\n", with: "").contains("\(daemon.node) is gone: its daemon has ended")
          == (way == "stop"))
    }
  }

  @Test func stopsAndContinues() async throws {
    try await withWatch { daemon, terminal in
      _ = try await terminal.wait { $0.contains("hidden byte") }
      try await terminal.send("C-z")
      _ = try await terminal.wait { isAtPrompt($0) }
      #expect(try await terminal.cursorAndAlternateScreen == "1 0")
      _ = try await shell("printf K > \(daemon.node)")
      try await terminal.send("fg", "Enter")
      _ = try await terminal.wait { $0.contains("hidden byte 0x4b") }
      #expect(try await terminal.cursorAndAlternateScreen == "0 1")
      try await terminal.send("q")
      _ = try await terminal.wait { isAtPrompt($0) }
    }
  }

  @Test func coloursWhereTheyAreWanted() async throws {
    for variable in ["NO_COLOR=", "NO_COLOR=1", "TERM=dumb"] {
      try await withWatch(command: "\(variable) $virt_walkerd watch $selector") { _, terminal in
        _ = try await terminal.wait { $0.contains("hidden byte") }
        let screen = try await terminal.screen(escapes: true)
        if variable == "NO_COLOR=" {
          #expect(screen.contains("00000 \u{1b}[30m\u{1b}[43m01000001\u{1b}["))
        } else {
          #expect(!screen.contains("\u{1b}"), "\(variable)")
        }
      }
    }
  }

  /// A trace that is full at the start does not delay the view.
  @Test func catchesUp() async throws {
    try await withWatch(
      command: """
        dd if=/dev/zero of=$node bs=1 count=4000 2>/dev/null; printf K > $node; \
        $virt_walkerd watch $selector --interval 60
        """
    ) { _, terminal in
      _ = try await terminal.wait {
        $0.contains(": hide: byte 0x4b") && !$0.contains("catching up")
      }
    }
  }

  /// `replay --step` goes forward and back, by events and by steps, and gives the terminal back.
  @Test func stepsOfAScenario() async throws {
    let terminal = try await Terminal(name: "vw_step_\(getpid())", columns: 120)
    func shows(_ text: String, _ word: String) -> (String) -> Bool {
      { $0.contains("\n> \(text)") && $0.contains(word) }
    }
    do {
      let file = "\(repository)/Tests/Recordings/6.1/facts-a76-page.txt"
      try await terminal.send("$virt_walkerd replay --step \(file); echo status $?", "Enter")
      let start = try await terminal.wait(until: shows("step ", "step 1 of 89: guest strb"))
      #expect(start.split(separator: "\n").last?.hasPrefix("n/space next") == true, "\(start)")
      try await terminal.send("nnnnnn")
      _ = try await terminal.wait(
        until: shows("  visit      LEAF level 1", "0000000000000000  empty"))
      // The table is shown as it is at the event.
      try await terminal.send("n")
      _ = try await terminal.wait(
        until: shows("  write      level 1 at 0x100000008", "0000000100002003  "))
      try await terminal.send("p")
      _ = try await terminal.wait(
        until: shows("  visit      LEAF level 1", "0000000000000000  empty"))
      try await terminal.send("N")
      _ = try await terminal.wait(until: shows("step ", "step 2 of 89: guest ldrb"))
      try await terminal.send("P")
      _ = try await terminal.wait(until: shows("step ", "step 1 of 89"))
      try await terminal.send("G")
      _ = try await terminal.wait(until: shows("  observed", "step 89 of 89"))
      try await terminal.send("Up", "g")
      _ = try await terminal.wait(until: shows("step ", "step 1 of 89"))
      try await terminal.send("q")
      _ = try await terminal.wait { $0.contains("status 0") }
      #expect(try await terminal.cursorAndAlternateScreen == "1 0")
    } catch {
      try await terminal.close()
      throw error
    }
    try await terminal.close()
  }

  @Test func treeIsNamed() async throws {
    let directory = "/tmp/\(RunningDaemon.uniqueName())"
    try await withWatch(
      options: "--tree \(directory)", command: "$virt_walkerd watch --tree \(directory)/"
    ) { daemon, terminal in
      _ = try await terminal.wait { $0.contains("\n\(daemon.node): cortex-a76") }
    }
  }

  @Test func withoutATerminalItSaysWhatElseThereIs() async throws {
    let daemon = try await RunningDaemon()
    let run = try await shell("$virt_walkerd watch \(daemon.selector)")
    #expect(run.status == .exited(64))
    #expect(run.output.isEmpty)
    #expect(
      run.errors
        == "virt-walkerd: standard output is not a terminal: watch on one, or print the walk once: virt-walkerd walk\n"
    )
    try await daemon.stop()
  }

  @Test func withoutATreeItSaysWhatIsMissing() async throws {
    let name = RunningDaemon.uniqueName()
    let none = try await shell("$virt_walkerd watch --name \(name)")
    #expect(none.status == .exited(69))
    #expect(
      none.errors
        == "virt-walkerd: nothing serves /dev/\(name): virt-walkerd status lists the daemons\n")
    let daemon = try await RunningDaemon("--tree none", name: name)
    let noTree = try await shell("$virt_walkerd watch --name \(name)")
    #expect(noTree.status == .exited(69))
    #expect(
      noTree.errors.contains("has no inspection tree: start its daemon again with --tree DIR"))
    try await daemon.stop()
    let other = try await shell("$virt_walkerd watch --tree /tmp")
    #expect(other.status == .exited(66))
    #expect(other.errors.contains("cannot open /tmp/walk: No such file or directory"))
  }

  @Test func othersAreToldWhoMay() async throws {
    let daemon = try await RunningDaemon()
    let copy = "/tmp/\(daemon.node.dropFirst(5))"
    let run = try await shell(
      """
      cp $virt_walkerd \(copy)
      setpriv --reuid=65534 --regid=65534 --clear-groups \(copy) watch \(daemon.selector)
      status=$?; rm \(copy); exit $status
      """, environment: ["LD_LIBRARY_PATH": ""])
    #expect(run.status == .exited(77))
    #expect(run.errors.contains("run as the daemon's user, or serve with another --tree-mode"))
    try await daemon.stop()
  }

  @Test(arguments: [
    ("--interval 0.05", "give 0.1 to 60 seconds"), ("--interval nan", "give 0.1 to 60 seconds"),
    ("--interval 61", "give 0.1 to 60 seconds"), ("--tree /tmp --name x", "give one of them"),
    ("--tree ''", "an empty name is not a directory"),
  ])
  func badOption(_ options: String, words: String) async throws {
    let run = try await shell("$virt_walkerd watch \(options)")
    #expect(run.status == .exited(64))
    #expect(run.errors.contains(words), "\(run.errors)")
  }

  // MARK: - The view without a terminal

  @Test func everySizeIsFilledAndNotExceeded() {
    var view = WatchView(title: "/dev/node: a machine")
    view.update(.sample, lately: 4)
    for columns in 1...140 {
      for rows in 1...70 {
        let lines = view.lines(columns: columns, rows: rows)
        #expect(lines.count == rows)
        let texts = lines.map { $0.rendered(columns: columns, colours: false) }
        #expect(texts.allSatisfy { $0.utf8.count <= columns })
        #expect(columns < 80 || rows < 20 || texts.contains { $0.hasSuffix("faults 7 ") })
      }
    }
  }

  @Test func changeIsMarkedForAWhile() {
    var view = WatchView(title: "")
    func reads() -> String? {
      view.lines(columns: 18, rows: 24).first { $0.text.hasPrefix("reads ") }?.text
    }
    view.update(.sample, lately: 2)
    #expect(reads() == "reads  1 ")
    var texts = WatchedTexts.sample
    texts.stats = "reads 2\nfaults 7\n"
    for expected in ["*", "*", " "] {
      view.update(texts, lately: 2)
      #expect(reads() == "reads  2\(expected)")
    }
  }

  /// Text of another user's tree cannot control the terminal. Lost events are reported.
  @Test func linesAreOfPrintableCharacters() {
    var view = WatchView(title: "/tmp/\u{1b}[2J\u{e9}")
    var texts = WatchedTexts.sample
    texts.trace += "CPU:0 [LOST 5 EVENTS]\n\u{1b}]0;x\u{7}\n"
    view.update(texts, lately: 4)
    let lines = view.lines(columns: 80, rows: 24)
    #expect(lines.contains(Line("CPU:0 [LOST 5 EVENTS]", .warning)))
    #expect(lines.contains(Line("?]0;x?")))
    #expect(lines.last?.text.hasPrefix("/tmp/?[2J??  ") == true)
    #expect(lines.last?.width == 80)
  }
}

extension WatchedTexts {
  fileprivate static let sample = WatchedTexts(
    walk: "walk of 0x0\n\ntable\n    1\n\n63 59\n00 11 0\n   == hidden byte\n\nfield\nXN\n\nlast\n",
    stats: "reads 1\nfaults 7\n",
    trace: "    virt-walkerd-1   [000] ..... 1.5: virt_walker_seek: byte 0x00\n")
}

/// Whether the shell waits for a command. The prompt ends in # for root and in $ for other users.
private func isAtPrompt(_ screen: String) -> Bool {
  ["#", "$"].contains(screen.split(separator: "\n").last)
}

extension String {
  fileprivate func occurrences(of text: String) -> Int { ranges(of: text).count }
}

/// Starts a daemon with a hidden 'A', and runs `command` on a terminal of 80 columns and 24 rows. Both are ended after
/// the test.
///
/// - Parameter command: A line of shell. `$selector` is the option that names the node, and `$node` is its path.
private func withWatch(
  options: String = "", command: String = "$virt_walkerd watch $selector",
  _ body: (RunningDaemon, Terminal) async throws -> Void
) async throws {
  let daemon = try await RunningDaemon(options)
  let terminal: Terminal
  do {
    _ = try await shell("printf A > \(daemon.node)")
    terminal = try await Terminal(daemon)
  } catch {
    try await daemon.stop()
    throw error
  }
  var problem: (any Error)?
  do {
    _ = try await terminal.wait { isAtPrompt($0) }
    try await terminal.send("echo what was there", "Enter")
    _ = try await terminal.wait { $0.contains("\nwhat was there\n") }
    try await terminal.send(command, "Enter")
    try await body(daemon, terminal)
  } catch {
    problem = error
  }
  try await terminal.close()
  // The test may have stopped the daemon already.
  if FileManager.default.fileExists(atPath: daemon.node) {
    try await daemon.stop()
  } else {
    try await expectNothingLeft(of: daemon.node)
  }
  if let problem { throw problem }
}

/// A terminal: a tmux server without a user's configuration, with a shell.
private struct Terminal {
  private let socket: String
  private let tmux: String

  init(_ daemon: RunningDaemon) async throws {
    try await self.init(
      name: "\(daemon.node.dropFirst(5))",
      variables: "node=\(daemon.node) selector='\(daemon.selector)'")
  }

  /// - Parameters:
  ///   - name: A name that no other terminal has.
  ///   - variables: The variables of the shell.
  init(name: String, variables: String = "", columns: Int = 80) async throws {
    let found = try await shell("command -v tmux")
    try #require(found.succeeded, "tmux is missing: scripts/lib/install-packages tmux")
    socket = "/tmp/\(name).tmux"
    tmux = "tmux -S \(socket) -f /dev/null"
    let start = try await shell(
      """
      env -u NO_COLOR -u TMUX -u ENV \(variables) \(tmux) new-session -d -x \(columns) -y 24 /bin/sh
      """)
    try #require(start.succeeded, "\(start.errors)")
  }

  func send(_ keys: String...) async throws {
    let words = keys.map { "'\($0)'" }.joined(separator: " ")
    try #require(try await shell("\(tmux) send-keys \(words)").succeeded)
  }

  func resize(columns: Int, rows: Int) async throws {
    let resize = try await shell("\(tmux) resize-window -x \(columns) -y \(rows)")
    try #require(resize.succeeded, "\(resize.errors)")
  }

  /// The text of the screen, with a line for each row down to the last row that is not empty.
  func screen(escapes: Bool = false) async throws -> String {
    let capture = try await shell("\(tmux) capture-pane -p\(escapes ? " -e" : "")")
    try #require(capture.succeeded, "\(capture.errors)")
    return capture.output.trimmingCharacters(in: .newlines)
  }

  /// Waits until `isExpected` is true for the screen, and returns the screen.
  func wait(
    _ sourceLocation: SourceLocation = #_sourceLocation, until isExpected: (String) -> Bool
  ) async throws -> String {
    // Other tests may occupy the CPUs.
    let deadline = ContinuousClock.now + .seconds(60)
    while true {
      let screen = try await screen()
      if isExpected(screen) { return screen }
      try #require(
        ContinuousClock.now < deadline, "it is still:\n\(screen)", sourceLocation: sourceLocation)
      try await Task.sleep(for: .milliseconds(20))
    }
  }

  var cursorAndAlternateScreen: String {
    get async throws {
      let flags = try await shell("\(tmux) display-message -p '#{cursor_flag} #{alternate_on}'")
      return flags.output.trimmingCharacters(in: .newlines)
    }
  }

  func close() async throws {
    let end = try await shell("\(tmux) kill-server; rm -f \(socket)")
    #expect(end.succeeded, "\(end.errors)")
  }
}
