import Inspection
import Scenarios
import SystemPackage
import Testing
import VirtWalkerDevice

/// The lines of the two kernels' logs for a program that gets them as they come, such as the log of the daemon.
@Suite struct LogTests {
  // A node sends the reply at the end of the engine's call. A program that has the reply may look into the log at once.
  @Test func linesOfACallComeBeforeItsReply() throws {
    let engine = try ModelEngine(.init(), driver: VirtWalkerDriver.self)
    var lines: [String] = []
    let device = InspectedDevice(
      engine, node: "/dev/test", task: ("virt-walkerd", 4711), clock: { 0 }, cpuClock: { 0 },
      onGuestLine: { lines.append("guest: \($0)") }, onHostLine: { lines.append("host: \($0)") })
    try withExtendedLifetime(device) {
      lines = []
      _ = try engine.write([0x41].span)
      #expect(
        lines == [
          "guest: write length: 1 bytes",
          "host: MMIO to HIDE and SEEK register detected, len: 1",
        ])
    }
    // No line comes twice.
    lines = []
    _ = try device.write([0x42].span)
    #expect(lines.count == 2)
  }
}
