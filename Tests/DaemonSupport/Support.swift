import Foundation
import Subprocess
import Synchronization
import SystemPackage
import Testing

/// The checkout that contains these tests.
package let repository = FilePath(#filePath).removingLastComponent().removingLastComponent()
  .removingLastComponent()

/// The daemon that was built with these tests.
package let daemonProgram: FilePath = {
  let tests = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
  return FilePath(tests ?? "").removingLastComponent().appending("virt-walkerd")
}()

/// The folder of the daemon and of the other programs that were built with these tests.
package let programs = daemonProgram.removingLastComponent()

/// The folder of the programs that virtual machines run.
package let staticPrograms = repository.appending(".build-static/release")

/// The exit status and the output of a program.
package struct Outcome {
  package let status: TerminationStatus
  package let output: String
  package let errors: String

  package var succeeded: Bool { status.isSuccess }
}

/// The factor of all time limits: 1, or the value of `TEST_PATIENCE` for a slow machine or build.
private let patience = Int(ProcessInfo.processInfo.environment["TEST_PATIENCE"] ?? "") ?? 1

/// The shell functions for every line. `soon COMMAND` repeats the command until it succeeds. If the command does not
/// succeed within a minute, the line and all its processes end, because the rest of the line would test nothing.
/// `kill_served PID` kills a server and waits until its keeper has removed the node and the tree.
private let shellFunctions = """
  soon() {
      soon_tries=0
      until "$@"; do
          soon_tries=$((soon_tries + 1))
          [ $soon_tries -lt \(1200 * patience) ] || { echo "not within a minute: $*" >&2; kill -KILL 0; }
          sleep 0.05
      done
  }
  kill_served() {
      kept_by=$(pgrep -P "$1") && kill -KILL "$1" && soon test ! -e "/proc/$kept_by/exe"
  }

  """

/// Runs a line of shell. `$virt_walkerd` is the daemon's program. `soon COMMAND` waits for a command that succeeds, and
/// `kill_served PID` kills a server and waits for its keeper.
///
/// The line has a process group of its own, which is killed after `limit`. The `errors` of the outcome then contain a
/// message.
package func shell(
  _ line: String, environment: [Environment.Key: String] = [:], limit: Duration = .seconds(300)
) async throws -> Outcome {
  var changes: [Environment.Key: String?] = ["virt_walkerd": daemonProgram.string]
  for (key, value) in environment { changes[key] = value }
  let limit = limit * patience
  let seconds = limit.components.seconds
  let start = ContinuousClock.now
  let (results, continuation) = AsyncStream<Result<Outcome, any Error>>.makeStream()
  let work = Task { [changes] in
    do {
      let result = try await run(
        .path("/usr/bin/timeout"),
        arguments: ["-s", "KILL", "\(seconds)", "/bin/sh", "-c", shellFunctions + line],
        environment: .inherit.updating(changes),
        output: .string(limit: 1 << 20), error: .string(limit: 1 << 20))
      var errors = result.standardError
      if !result.terminationStatus.isSuccess, start.duration(to: .now) >= limit {
        errors += "\nkilled after \(seconds) s, the time limit of this line of shell\n"
      }
      continuation.yield(
        .success(
          Outcome(
            status: result.terminationStatus, output: result.standardOutput, errors: errors)))
    } catch {
      continuation.yield(.failure(error))
    }
  }
  // A process that waits for a file server without an answer cannot be killed. Its pipes remain open, so the test stops
  // waiting for the end of the output.
  let guardian = Task {
    try await Task.sleep(for: limit + .seconds(20))
    continuation.finish()
  }
  defer {
    guardian.cancel()
    work.cancel()
  }
  for await result in results { return try result.get() }
  throw ShellTimeout(line: line, seconds: seconds)
}

/// A line of shell that has not ended, because SIGKILL does not end its processes or because the test was cancelled.
package struct ShellTimeout: Error, CustomStringConvertible {
  let line: String
  let seconds: Int64

  package var description: String {
    "not ended \(seconds) s after the start, or cancelled; SIGKILL does not end all processes of: \(line)"
  }
}

/// Ends the daemons of a failed test that did not reach its `stop`.
package struct EndingDaemons: SuiteTrait, TestTrait, TestScoping {
  /// The names of the daemons that the running test has started.
  final class Names: Sendable {
    private let names = Mutex<[String]>([])
    func add(_ name: String) { names.withLock { $0.append(name) } }
    var all: [String] { names.withLock { $0 } }
  }

  @TaskLocal static var names = Names()

  package init() {}

  package var isRecursive: Bool { true }

  package func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
  ) async throws {
    let names = Names()
    let result: Result<Void, any Error>
    do {
      result = .success(try await Self.$names.withValue(names) { try await function() })
    } catch {
      result = .failure(error)
    }
    // The task is detached, because the task of a test is cancelled after its time limit.
    await Task.detached { for name in names.all { await Self.end(name) } }.value
    try result.get()
  }

  /// Stops the daemon, and kills a daemon that does not stop.
  private static func end(_ name: String) async {
    let records = "/run/virt-walkerd"
    let files = (try? FileManager.default.contentsOfDirectory(atPath: records)) ?? []
    for file in files where file.hasPrefix("dev%2F\(name)") {
      _ = try? await shell(
        """
        record='\(records)/\(file)'; pid=$(sed -n 's/^pid=//p' "$record"); program=$(readlink /proc/$pid/exe)
        # The pid may belong to another process now.
        [ "$program" = "$(readlink -f "$virt_walkerd")" ] || exit
        kill -CONT $pid; timeout -s KILL 30 "$virt_walkerd" stop --name '\(file.dropFirst("dev%2F".count))'
        [ ! -e "$record" ] || kill -KILL $pid
        """, limit: .seconds(60))
    }
  }
}

extension Trait where Self == EndingDaemons {
  /// Ends the daemons that a test leaves behind.
  package static var endingDaemons: Self { EndingDaemons() }
}

/// A daemon in the background at a node of its own, as users start it.
package struct RunningDaemon {
  package let node: String
  /// The options that select the node on the command line.
  package let selector: String
  /// The inspection tree at its default path.
  package var tree: String { "/run/\(node.dropFirst("/dev/".count))" }

  /// A name that is different in each test.
  package static func uniqueName() -> String { "virt_walker_\(UUID().uuidString.prefix(8))" }

  package init(_ options: String = "", name: String = uniqueName()) async throws {
    node = "/dev/\(name)"
    selector = "--name \(name)"
    EndingDaemons.names.add(name)
    let start = try await shell("$virt_walkerd serve --detach \(selector) \(options)")
    try #require(start.succeeded, "\(start.status): \(start.errors)")
    #expect(start.output.hasPrefix("\(node) is ready (fuse, pid "))
  }

  package var pid: Int {
    get async throws {
      let status = try await shell(
        "$virt_walkerd status | sed -n 's|^\(node): .*pid \\([0-9]*\\).*|\\1|p'")
      return try #require(Int(status.output.dropLast()), "\(node) is not in the status")
    }
  }

  /// Kills the daemon together with its keeper, so that nothing cleans up.
  package func killWithKeeper() async throws {
    let pid = try await pid
    let kill = try await shell(
      // A zombie has no /proc/PID/exe any more.
      "pkill -KILL -P \(pid) && kill -KILL \(pid) && soon test ! -e /proc/\(pid)/exe"
    )
    #expect(kill.succeeded, "\(kill.errors)")
  }

  /// Stops the daemon by the command for users, and checks that nothing is left.
  package func stop() async throws {
    let stop = try await shell("$virt_walkerd stop \(selector)")
    #expect(stop.succeeded, "\(stop.errors)")
    try await expectNothingLeft(of: node)
  }
}

/// Checks that there is no node, mount, record or tree at the default path of `node`.
package func expectNothingLeft(of node: String) async throws {
  let mounts = try String(contentsOfFile: "/proc/self/mounts", encoding: .utf8)
  let tree = "/run/\(FilePath(node).lastComponent?.string ?? "")"
  for path in [node, tree] {
    #expect(!FileManager.default.fileExists(atPath: path), "\(path) is left")
    #expect(!mounts.contains(" \(path) "), "\(path) is still mounted")
  }
  let status = try await shell("$virt_walkerd status")
  #expect(!status.output.contains("\(node):"), "a record of \(node) is left")
}

/// Records an issue, with its diagnostics, for each line of `tap` that did not pass.
///
/// - Returns: The number of tests. A plan with another number is an issue, too.
@discardableResult
package func report(tap: String, from what: String) -> Int {
  var results = 0
  var planned: Int?
  let lines = tap.split(separator: "\n")
  for (index, line) in lines.enumerated() {
    if line.hasPrefix("1..") { planned = Int(line.dropFirst(3)) }
    if line.hasPrefix("ok ") { results += 1 }
    if line.hasPrefix("not ok ") {
      results += 1
      let diagnostics = lines[(index + 1)...].prefix { $0.hasPrefix("#") }
      Issue.record("\(what): \(([line] + diagnostics).joined(separator: "\n"))")
    }
    if line.hasPrefix("Bail out!") { Issue.record("\(what): \(line)") }
  }
  #expect(planned == results && results > 0, "\(what) did not come to its end:\n\(tap)")
  return results
}

/// A program in C from this folder, compiled once.
package actor Probe {
  /// The client of scripts/ci/check-file-operations.
  package static let shared = Probe("FileOperations/probe.c", "file-operations-probe")
  /// A client that reads the files of a tree in the ways of several programs.
  package static let treeClient = Probe("TreeClient/client.c", "tree-client")
  /// A client that makes each system call on the devices of the examples.
  package static let deviceClient = Probe("DeviceClient/client.c", "device-client")
  /// A client that makes system calls as no ordinary program does.
  package static let hostileClient = Probe("HostileClient/client.c", "hostile-client")
  /// A program that forbids a system call.
  package static let refuser = Probe("Refuser/refuser.c", "refuser")
  /// A program in the place of QEMU.
  package static let fakeHost = Probe("FakeHost/fake-host.c", "fake-host")

  private let source: String
  private let name: String
  private var program: Task<FilePath, any Error>?

  private init(_ source: String, _ name: String) {
    self.source = source
    self.name = name
  }

  package func path() async throws -> FilePath {
    if let program { return try await program.value }
    let task = Task { [source, name] in
      let program = daemonProgram.removingLastComponent().appending(name)
      let compiler = try await shell(
        "cc -std=gnu11 -O -Wall -static -o \(program) \(repository)/Tests/\(source)",
        limit: .seconds(300))
      try #require(compiler.succeeded, "\(compiler.errors)")
      return program
    }
    program = task
    return try await task.value
  }
}

/// The commands of GNU, uutils, busybox and toybox, downloaded once.
package actor EverydayTools {
  package static let shared = EverydayTools()
  private var directory: Task<FilePath, any Error>?

  package func path() async throws -> FilePath {
    if let directory { return try await directory.value }
    let task = Task {
      let directory = repository.appending(".build/everyday-tools")
      let download = try await shell(
        "\(repository)/scripts/lib/everyday-tools \(directory)", limit: .seconds(600))
      try #require(download.succeeded, "\(download.errors)")
      return directory
    }
    directory = task
    return try await task.value
  }
}
