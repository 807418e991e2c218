import DaemonSupport
import Foundation
import SystemPackage
import Testing

/// Tests with a Debian kernel under QEMU: nodes by CUSE and by FUSE.
@Suite(.timeLimit(.minutes(15))) struct VirtualMachineTests {
  /// The programs of the release build, which the virtual machine runs.
  private func programs(_ names: [String]) throws -> [FilePath] {
    let programs = names.map { staticPrograms.appending($0) }
    for program in programs {
      try #require(
        FileManager.default.isExecutableFile(atPath: program.string),
        "there is no \(program): scripts/test machines makes it")
    }
    return programs
  }

  /// Runs all of scripts/vm/cuse-vm-guest.
  @Test func deviceOnCUSE() async throws {
    let daemon = try programs(["virt-walkerd"])[0]
    let probe = try await Probe.shared.path()
    let machine = try await shell(
      "\(repository)/scripts/vm/cuse-vm --daemon \(daemon) --probe \(probe)", limit: .seconds(860))
    #expect(report(tap: machine.output, from: "cuse-vm") >= 500)
    #expect(machine.succeeded, "\(machine.errors)")
  }

  /// The faults whose effects depend on the backend. FaultTests has the others.
  private let faults = [
    "bytes", "kill", "kill-both", "stop-daemon", "stop-clients", "kill-clients", "descriptors",
    "cgroup", "dev-read-only", "unmount", "clock", "many-clients",
  ]

  /// The faults of docs/faults.md on CUSE, in a virtual machine that is stopped and continued during the run.
  @Test func faultsOnCUSE() async throws {
    let programs = try programs(["virt-walkerd", "node-checker", "fault-checker"])
    let list = try await shell("\(programs[2]) --list --backend cuse")
    let known = Set(list.output.split(separator: "\n").map(String.init))
    #expect(known.isSuperset(of: faults), "\(list.output)")
    let machine = try await shell(
      """
      \(repository)/scripts/vm/cuse-vm --suspend --time-limit 800 --daemon \(programs[0]) \
        --program \(programs[1]) --program \(programs[2]) \
        --command 'fault-checker --backend cuse --daemon /usr/bin/virt-walkerd --checker /usr/bin/node-checker \
          --kills 2 --seconds 2 \(faults.joined(separator: " "))'
      """, limit: .seconds(860))
    #expect(report(tap: machine.output, from: "fault-checker in cuse-vm") >= 70)
    #expect(machine.output.contains("# the machine was stopped and went on "))
    #expect(machine.succeeded, "\(machine.errors)")
  }

  /// Tests of the devices of Examples, Tests/TestDevice and Tests/GuestDrivers: scripts/ci/check-examples.
  @Test func examplesOnCUSE() async throws {
    let programs = try programs([
      "mirror", "queue-device", "ioctl-device", "memory-device", "test-device", "guest-drivers",
    ])
    let client = try await Probe.deviceClient.path()
    let machine = try await shell(
      """
      \(repository)/scripts/vm/cuse-vm \(programs.map { "--program \($0)" }.joined(separator: " ")) --program \(client) \
        --command '/virt-walker/scripts/ci/check-examples cuse /usr/bin /usr/bin/device-client'
      """, limit: .seconds(860))
    #expect(report(tap: machine.output, from: "check-examples in cuse-vm") >= 140)
    #expect(machine.succeeded, "\(machine.errors)")
  }
}
