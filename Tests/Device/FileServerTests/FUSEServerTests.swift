import CharacterDeviceServer
import Foundation
import Subprocess
import SystemPackage
import Testing

/// A device without a function, for servers that must not start.
private final class NoDevice: SimpleDevice {
  func read(into buffer: inout OutputSpan<UInt8>) throws(Errno) { throw .ioError }
  func write(_ bytes: Span<UInt8>) throws(Errno) -> Int { throw .ioError }
}

/// Tests of the library with the device of Examples/Mirror, in a process of its own. A process that serves a node and
/// forks can wait for itself: the child closes its copy of a client's descriptor, and this close asks the server.
@Suite(.timeLimit(.minutes(15))) struct FUSEServerTests {
  private let node = FilePath("/tmp/virt-walker-test-\(UUID().uuidString)")

  /// Runs `body`, a line of shell, while the mirror is served at `$node`.
  private func withMirror(_ body: String) async throws -> (
    status: TerminationStatus, output: String
  ) {
    let tests = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
    let mirror = FilePath(tests).removingLastComponent().appending("mirror")
    let script = """
      \(mirror) $node >$node.log 2>&1 & server=$!
      until grep -q 'is ready' $node.log; do kill -0 $server || { cat $node.log; exit 99; }; sleep 0.02; done
      rm $node.log
      \(body)
      kill $server 2>/dev/null
      wait $server && [ ! -e $node ] && ! grep -q " $node " /proc/self/mounts
      """
    let result = try await run(
      // After the time limit, timeout(1) kills the shell and all that it has started.
      .path("/usr/bin/timeout"), arguments: ["-s", "KILL", "120", "/bin/sh", "-c", script],
      environment: .inherit.updating(["node": node.string]),
      output: .string(limit: 65536), error: .discarded)
    return (result.terminationStatus, result.standardOutput)
  }

  @Test func deviceOfAnyKindIsServed() async throws {
    let result = try await withMirror("printf hello >$node; cat $node; echo; head -c2 $node")
    #expect(result.output == "olleh\nol")
    #expect(result.status.isSuccess)
  }

  /// Each client that opens the device reads from the first byte to the end of the file.
  @Test func everyOpeningReadsAllOfIt() async throws {
    let result = try await withMirror(
      "printf hello >$node; for size in 1 5 9; do head -c$size $node; echo; cat $node; echo; done")
    #expect(result.output == "o\nolleh\nolleh\nolleh\nolleh\nolleh\n")
    let parts = try await withMirror(
      "printf hello >$node; exec 3<$node; head -c1 <&3; echo; head -c3 <&3; echo; cat <&3; echo; cat <&3"
    )
    #expect(parts.output == "o\nlle\nh\n")
    #expect(parts.status.isSuccess)
  }

  @Test func errorsOfTheDeviceReachTheClient() async throws {
    let result = try await withMirror("echo '!' | dd of=$node 2>&1 | grep -o 'Invalid argument'")
    #expect(result.output == "Invalid argument\n")
    #expect(result.status.isSuccess)
  }

  /// An open descriptor of a client neither delays the end of the server nor makes the client hang.
  @Test func closingWithAClientLeavesNothing() async throws {
    let result = try await withMirror(
      "exec 3<>$node; kill $server; wait $server; printf x >&3 || echo refused")
    #expect(result.output == "refused\n")
  }

  @Test func aliveMountIsNotTakenForAStaleOne() async throws {
    let result = try await withMirror("printf ab >$node; \(Self.secondServer); cat $node")
    #expect(result.output == "1\nba")
    #expect(result.status.isSuccess)
  }

  /// Another server at the same node, and its exit status.
  private static let secondServer = "/proc/$server/exe $node >/dev/null 2>&1; echo $?"

  @Test func deadMountIsClearedAway() async throws {
    let killed = try await withMirror("kill -9 $server; wait $server")
    #expect(!killed.status.isSuccess)
    let result = try await withMirror("printf ab >$node; cat $node")
    #expect(result.output == "ba")
    #expect(result.status.isSuccess)
  }

  @Test func whatIsThereStays() throws {
    try "mine".write(toFile: node.string, atomically: false, encoding: .utf8)
    let error = #expect(throws: NodeError.self) {
      try FUSEServer(path: node, application: Application(name: "none"), device: NoDevice())
    }
    #expect(error?.kind == .exists)
    #expect(error?.description.contains("rm \(node)") == true)
    #expect(try String(contentsOfFile: node.string, encoding: .utf8) == "mine")
    try FileManager.default.removeItem(atPath: node.string)
  }

  @Test func directoryThatDoesNotExistIsNamed() {
    let error = #expect(throws: NodeError.self) {
      try FUSEServer(
        path: node.appending("node"), application: Application(name: "none"), device: NoDevice())
    }
    #expect(error?.description.hasPrefix("cannot ") == true)
    #expect(error?.description.contains(node.string) == true)
  }

  @Test func cuseSaysWhatToDoWhereItIsMissing() throws {
    try #require(
      !FileManager.default.fileExists(atPath: "/dev/cuse"),
      "this machine has CUSE; scripts/vm/cuse-vm tests it")
    let error = #expect(throws: NodeError.self) {
      try CUSEServer(
        name: "virt-walker-test", application: Application(name: "none"), device: NoDevice())
    }
    #expect(
      error?.description
        == "/dev/cuse is missing: modprobe cuse, or serve the device by FUSE")
  }
}
