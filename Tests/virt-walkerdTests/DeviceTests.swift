import Foundation
import SystemPackage
import Testing

/// The device at its node, on this machine's FUSE, and on CUSE in a virtual machine.
@Suite(.timeLimit(.minutes(15))) struct DeviceTests {
  @Test(arguments: ["cortex-a72", "cortex-a76"], ["huge", "anonymous"])
  func checkDevice(cpu: String, backing: String) async throws {
    let daemon = try await RunningDaemon("--cpu \(cpu) --backing \(backing)")
    let fresh = try await shell("head -c1 \(daemon.node) | od -An -tx1")
    #expect(fresh.output == " 00\n")
    let check = try await shell("\(repository)/scripts/check-device \(daemon.node)")
    #expect(report(tap: check.output, from: "check-device") >= 31)
    #expect(check.succeeded, "\(check.errors)")
    try await daemon.stop()
  }

  /// The two lines of the README.
  @Test func echoAndHead() async throws {
    let daemon = try await RunningDaemon()
    let result = try await shell("echo -n A > \(daemon.node); head -c1 \(daemon.node)")
    #expect(result.output == "A")
    try await daemon.stop()
  }

  /// However it waits for requests; and where none comes it sleeps: the last close may reach it late, but then the thread that
  /// serves does not run for half a second.
  @Test(arguments: ["auto", "never", "200"])
  func polling(policy: String) async throws {
    let daemon = try await RunningDaemon("--poll \(policy)")
    let pid = try await daemon.pid
    let result = try await shell(
      """
      for i in $(seq 200); do printf A >\(daemon.node); head -c1 \(daemon.node); done | tr -d A | wc -c
      runs() { cut -d' ' -f14,15 /proc/\(pid)/stat; grep ctxt_switches /proc/\(pid)/status; }
      until before=$(runs); sleep 0.5; [ "$before" = "$(runs)" ]; do :; done
      echo idle
      """)
    #expect(result.output == "0\nidle\n")
    try await daemon.stop()
  }

  @Test func systemCallsAnswerAsTheTableSays() async throws {
    let daemon = try await RunningDaemon()
    let probe = try await Probe.shared.path()
    let check = try await shell(
      "\(repository)/scripts/check-file-operations \(daemon.node) fuse \(probe)")
    #expect(report(tap: check.output, from: "check-file-operations") >= 80)
    #expect(check.succeeded, "\(check.errors)")
    try await daemon.stop()
  }

  /// A plain file is no device: a test that cannot fail proves nothing.
  @Test func checkDeviceRefusesAPlainFile() async throws {
    let file = "/tmp/\(RunningDaemon.uniqueName())"
    let check = try await shell(
      ": >\(file); \(repository)/scripts/check-device \(file); status=$?; rm \(file); exit $status")
    #expect(!check.succeeded)
    #expect(check.output.contains("\nnot ok "))
  }

  /// A character device of the kernel's own: a Debian kernel under QEMU, everything in scripts/cuse-vm-guest.
  @Test func cuseInAVirtualMachine() async throws {
    let daemon = repository.appending(".build-static/release/virt-walkerd")
    try #require(
      FileManager.default.isExecutableFile(atPath: daemon.string),
      "the virtual machine runs the release build: scripts/test makes it")
    let probe = try await Probe.shared.path()
    let machine = try await shell(
      "\(repository)/scripts/cuse-vm --daemon \(daemon) --probe \(probe)")
    #expect(report(tap: machine.output, from: "cuse-vm") >= 200)
    #expect(machine.succeeded, "\(machine.errors)")
  }
}
