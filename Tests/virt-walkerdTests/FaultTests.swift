import Foundation
import SystemPackage
import Testing

/// What goes wrong around the daemon, and what its users see then: scripts/check-faults. scripts/soak has the long forms.
@Suite(.timeLimit(.minutes(15))) struct FaultTests {
  private static let faults = "\(repository)/scripts/check-faults"

  /// docs/faults.md says what each is.
  @Test func faultsOnFUSE() async throws {
    let checker = daemonProgram.removingLastComponent().appending("node-checker")
    let check = try await shell(
      "\(Self.faults) --daemon $virt_walkerd --checker \(checker) --kills 5", limit: .seconds(840))
    #expect(report(tap: check.output, from: "check-faults") >= 100)
    #expect(check.succeeded, "\(check.errors)")
  }

  /// The same on CUSE, in a virtual machine that is stopped and goes on meanwhile.
  @Test func faultsOnCUSEInAVirtualMachine() async throws {
    let build = repository.appending(".build-static/release")
    let programs = ["virt-walkerd", "node-checker"].map { build.appending($0) }
    for program in programs {
      try #require(
        FileManager.default.isExecutableFile(atPath: program.string),
        "the virtual machine runs the release build: scripts/test machines makes it")
    }
    let machine = try await shell(
      """
      \(repository)/scripts/vm/cuse-vm --suspend --time-limit 800 --daemon \(programs[0]) --program \(programs[1]) \
        --command '/virt-walker/scripts/check-faults --backend cuse --daemon /usr/bin/virt-walkerd \
          --checker /usr/bin/node-checker --kills 2 --seconds 2 bytes kill kill-both stop-daemon stop-clients kill-clients \
          descriptors cgroup dev-read-only unmount clock many-clients'
      """, limit: .seconds(860))
    #expect(report(tap: machine.output, from: "check-faults in cuse-vm") >= 70)
    #expect(machine.output.contains("# the machine was stopped and went on "))
    #expect(machine.succeeded, "\(machine.errors)")
  }
}
