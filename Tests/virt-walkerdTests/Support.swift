import Foundation
import Subprocess
import SystemPackage
import Testing

/// The checkout that these tests stand in.
let repository = FilePath(#filePath).removingLastComponent().removingLastComponent()
  .removingLastComponent()

/// The daemon that was built with these tests.
let daemonProgram: FilePath = {
  let tests = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
  return FilePath(tests ?? "").removingLastComponent().appending("virt-walkerd")
}()

/// How a program ended, and what it said.
struct Outcome {
  let status: TerminationStatus
  let output: String
  let errors: String

  var succeeded: Bool { status.isSuccess }
}

/// Runs a line of shell. `$virt_walkerd` is the daemon's program.
func shell(_ line: String, environment: [Environment.Key: String] = [:]) async throws -> Outcome {
  var changes: [Environment.Key: String?] = ["virt_walkerd": daemonProgram.string]
  for (key, value) in environment { changes[key] = value }
  let result = try await run(
    .path("/bin/sh"), arguments: ["-c", line],
    environment: .inherit.updating(changes),
    output: .string(limit: 1 << 20), error: .string(limit: 1 << 20))
  return Outcome(
    status: result.terminationStatus, output: result.standardOutput,
    errors: result.standardError)
}

/// A daemon in the background at a node of its own, as users start it.
struct RunningDaemon {
  let node: String
  /// What selects the node on the command line.
  let selector: String
  /// The inspection tree, where the options do not say otherwise.
  var tree: String { "/run/\(node.dropFirst("/dev/".count))" }

  /// A name that no other test uses.
  static func uniqueName() -> String { "virt_walker_\(UUID().uuidString.prefix(8))" }

  init(_ options: String = "", name: String = uniqueName()) async throws {
    node = "/dev/\(name)"
    selector = "--name \(name)"
    let start = try await shell("$virt_walkerd serve --detach \(selector) \(options)")
    try #require(start.succeeded, "\(start.status): \(start.errors)")
    #expect(start.output.hasPrefix("\(node) is ready (fuse, pid "))
  }

  var pid: Int {
    get async throws {
      let status = try await shell(
        "$virt_walkerd status | sed -n 's|^\(node): .*pid \\([0-9]*\\).*|\\1|p'")
      return try #require(Int(status.output.dropLast()), "\(node) is not in the status")
    }
  }

  /// Kills it together with the process that would clean up after it.
  func killWithKeeper() async throws {
    let pid = try await pid
    let kill = try await shell(
      // A zombie has no program any more.
      "pkill -KILL -P \(pid) && kill -KILL \(pid) && while [ -e /proc/\(pid)/exe ]; do sleep 0.02; done"
    )
    #expect(kill.succeeded, "\(kill.errors)")
  }

  /// Ends it as users do, and makes sure that nothing is left.
  func stop() async throws {
    let stop = try await shell("$virt_walkerd stop \(selector)")
    #expect(stop.succeeded, "\(stop.errors)")
    try await expectNothingLeft(of: node)
  }
}

/// No node, no mount, no tree in its usual place and no record of `node`.
func expectNothingLeft(of node: String) async throws {
  let mounts = try String(contentsOfFile: "/proc/self/mounts", encoding: .utf8)
  let tree = "/run/\(FilePath(node).lastComponent?.string ?? "")"
  for path in [node, tree] {
    #expect(!FileManager.default.fileExists(atPath: path), "\(path) is left")
    #expect(!mounts.contains(" \(path) "), "\(path) is still mounted")
  }
  let status = try await shell("$virt_walkerd status")
  #expect(!status.output.contains("\(node):"), "a record of \(node) is left")
}

/// Makes each line of `tap` that did not pass an issue, with its diagnostics.
///
/// - Returns: How many tests there were. A plan that does not match is an issue, too.
@discardableResult
func report(tap: String, from what: String) -> Int {
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

/// A program in C beside these tests, compiled once.
actor Probe {
  /// The program behind scripts/ci/check-file-operations.
  static let shared = Probe("FileOperations/probe.c", "file-operations-probe")
  /// Reads files of a tree in the ways of several programs.
  static let treeClient = Probe("TreeClient/client.c", "tree-client")

  private let source: String
  private let name: String
  private var program: Task<FilePath, any Error>?

  private init(_ source: String, _ name: String) {
    self.source = source
    self.name = name
  }

  func path() async throws -> FilePath {
    if let program { return try await program.value }
    let task = Task { [source, name] in
      let program = daemonProgram.removingLastComponent().appending(name)
      let compiler = try await shell(
        "cc -std=gnu11 -O -Wall -static -o \(program) \(repository)/Tests/\(source)")
      try #require(compiler.succeeded, "\(compiler.errors)")
      return program
    }
    program = task
    return try await task.value
  }
}

/// The commands of GNU, uutils, busybox and toybox, downloaded once.
actor EverydayTools {
  static let shared = EverydayTools()
  private var directory: Task<FilePath, any Error>?

  func path() async throws -> FilePath {
    if let directory { return try await directory.value }
    let task = Task {
      let directory = repository.appending(".build/everyday-tools")
      let download = try await shell("\(repository)/scripts/lib/everyday-tools \(directory)")
      try #require(download.succeeded, "\(download.errors)")
      return directory
    }
    directory = task
    return try await task.value
  }
}
