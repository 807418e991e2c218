import DaemonSupport
import SystemPackage
import Testing

/// Faults in the environment of the daemon, and the behaviour that users see: docs/faults.md. scripts/soak has the long
/// forms, and VirtualMachineTests has the faults on CUSE.
@Suite(.timeLimit(.minutes(15))) struct FaultTests {
  private static let checker =
    "\(programs)/fault-checker --daemon $virt_walkerd --checker \(programs)/node-checker --kills 5"

  private static let faults = [
    "bytes", "kill", "kill-both", "stop-daemon", "stop-clients", "kill-clients", "descriptors",
    "address-space", "cgroup", "run-read-only", "run-full", "dev-read-only", "no-fusermount",
    "unmount", "many-clients", "memory",
  ]

  @Test func everyFaultHasATest() async throws {
    let list = try await shell("\(Self.checker) --list")
    let names = list.output.split(separator: "\n").map { String($0) }
    #expect(names == Self.faults)
  }

  @Test(arguments: faults)
  func fault(_ name: String) async throws {
    let check = try await shell("\(Self.checker) \(name)", limit: .seconds(600))
    let alone = "\(Self.checker.replacing("$virt_walkerd", with: daemonProgram.string)) \(name)"
    #expect(report(tap: check.output, from: alone) >= 2)
    #expect(check.succeeded, "\(alone)\n\(check.errors)")
  }
}
