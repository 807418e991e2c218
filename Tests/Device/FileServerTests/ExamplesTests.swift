import DaemonSupport
import SystemPackage
import Testing

/// Tests of the devices of Examples, Tests/TestDevice and Tests/GuestDrivers with a client in C: scripts/ci/check-examples.
@Suite(.timeLimit(.minutes(10))) struct ExamplesTests {
  @Test func devicesWorkOnFUSE() async throws {
    let client = try await Probe.deviceClient.path()
    let check = try await shell(
      "\(repository)/scripts/ci/check-examples fuse \(programs) \(client)", limit: .seconds(300))
    #expect(report(tap: check.output, from: "check-examples") >= 210)
    #expect(check.succeeded, "\(check.errors)")
  }
}
