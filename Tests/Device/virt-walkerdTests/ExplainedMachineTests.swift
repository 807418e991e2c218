import DaemonSupport
import Foundation
import Testing

/// Tests of `virt-walkerd explain` beside a running daemon.
@Suite(.endingDaemons, .timeLimit(.minutes(15))) struct ExplainedMachineTests {
  /// The explained machine is the machine that the daemon serves with the same options.
  @Test(arguments: [
    "", "--granule 64K --ipa 48 --cpu max", "--granule 16K --backing anonymous", "--ipa 32",
  ])
  func machineIsTheDaemons(options: String) async throws {
    let daemon = try await RunningDaemon(options)
    let status = try await shell("$virt_walkerd status | grep \(daemon.node):")
    try await daemon.stop()
    let machine = try #require(
      try await shell("$virt_walkerd explain 0 \(options)").output.firstMatch(
        of: /machine cpu=(\S+)(?: granule=(\S+))?(?: ipa=(\S+))? backing=(\S+) memory=(\S+)\n/)?
        .output)
    let served =
      ", \(machine.1) \(machine.4) \(machine.5) \(machine.2 ?? "4K") pages \(machine.3 ?? "40")-bit IPA, "
    #expect(status.output.contains(served))
  }
}
