import Foundation
import Subprocess
import SystemPackage
import Testing

/// Runs the whole checker on real nodes, of a correct device and of devices with a fault in one of some thousand
/// requests.
@Suite(.serialized, .timeLimit(.minutes(15))) struct MutationTests {
  private let directory = FilePath("/tmp/node-checker-\(UUID().uuidString)")
  private static let programs: FilePath = {
    let tests = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
    return FilePath(tests ?? "").removingLastComponent()
  }()

  /// The checker's exit status and output for two nodes that have `fault`.
  private func check(
    _ fault: String, options: String = "--seconds 240"
  ) async throws -> (status: TerminationStatus, output: String) {
    let script = """
      mkdir $directory && cd $directory || exit 98
      $programs/faulty-device \(fault) $directory/one $directory/two >log 2>&1 & server=$!
      until grep -q ready log; do kill -0 $server || { cat log; exit 99; }; sleep 0.02; done
      $programs/node-checker $directory/one $directory/two \(options) 2>&1; status=$?
      kill $server; wait $server
      rm log && cd / && rmdir $directory || exit 97
      exit $status
      """
    let result = try await run(
      // After the time limit, timeout(1) kills the shell and all that it has started.
      .path("/usr/bin/timeout"), arguments: ["-s", "KILL", "400", "/bin/sh", "-c", script],
      environment: .inherit.updating([
        "directory": directory.string, "programs": Self.programs.string,
      ]),
      output: .string(limit: 1 << 20), error: .string(limit: 1 << 20))
    return (result.terminationStatus, result.standardOutput + result.standardError)
  }

  @Test(arguments: ["", "--reopen", "--interrupt", "--initial 00"])
  func rightDeviceIsRight(options: String) async throws {
    let result = try await check("none", options: "--seconds 240 --operations 2000 \(options)")
    #expect(result.status == .exited(0), "\(result.output)")
    #expect(
      result.output.contains("/one: 8000 writes, 8000 reads of "), "\(result.output)")
  }

  @Test(arguments: ["lose", "mix", "invent", "stale"])
  func wrongByteIsFound(fault: String) async throws {
    let result = try await check(fault)
    #expect(result.status == .exited(1))
    #expect(result.output.contains("; NOT LINEARIZABLE\n"), "\(result.output)")
    #expect(result.output.contains("cannot be explained"))
  }

  @Test func emptyReadIsFound() async throws {
    let result = try await check("empty")
    #expect(result.status == .exited(1))
    #expect(result.output.contains("moved 0 bytes, with no error"), "\(result.output)")
  }

  @Test func failureIsAFault() async throws {
    let result = try await check("none", options: "/dev/full")
    #expect(result.status == .exited(1))
    #expect(result.output.contains("/dev/full: a call failed: write: No space left on device"))
    let expected = try await check("none", options: "/dev/full --until-error --seconds 2")
    #expect(expected.status == .exited(1))
    #expect(expected.output.contains("there are clients of which no call has failed"))
  }
}
