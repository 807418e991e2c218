import DaemonSupport
import Foundation
import Testing

/// Tests of the functions that the tests of the daemon share.
@Suite(.timeLimit(.minutes(5))) struct SupportTests {
  @Test func lineOfShellIsKilledAtItsTimeLimit() async throws {
    let line = try await shell("sleep 1000 & echo $!; wait", limit: .seconds(1))
    #expect(!line.succeeded)
    #expect(line.errors.contains("the time limit of this line of shell"), "\(line.errors)")
    let process = try #require(Int(line.output.dropLast()))
    // A killed process ends a little later.
    let end = try await shell("soon test ! -e /proc/\(process)/exe")
    #expect(end.succeeded, "\(end.errors)")
  }

  @Test func soonWaits() async throws {
    let line = try await shell(
      "file=$(mktemp -u); { sleep 0.2; : >$file; } & soon test -e $file && rm $file; echo $?")
    #expect(line.output == "0\n")
  }

  /// The daemon of a failed test is ended, even if SIGSTOP has stopped it.
  @Test(arguments: ["true", "kill -STOP"])
  func daemonOfAFailedTestIsEnded(command: String) async throws {
    struct Failure: Error {}
    let name = RunningDaemon.uniqueName()
    await #expect(throws: Failure.self) {
      try await EndingDaemons().provideScope(for: #require(Test.current), testCase: nil) {
        let pid = try await RunningDaemon(name: name).pid
        _ = try await shell("\(command) \(pid)")
        throw Failure()
      }
    }
    _ = try await shell("soon test ! -e /dev/\(name)")
    try await expectNothingLeft(of: "/dev/\(name)")
  }
}
