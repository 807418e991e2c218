import Glibc
import SystemPackage
import Testing

@testable import CharacterDeviceServer

@Suite struct PollTests {
  private func learned(_ waits: [UInt64], _ policy: PollPolicy = .automatic) -> UInt64 {
    var window = PollWindow(policy)
    for wait in waits { window.learn(waited: wait * 1000) }
    return window.current / 1000
  }

  /// As halt_poll_ns grows and shrinks.
  @Test func windowFollowsTheTraffic() {
    #expect(learned([]) == 0)
    // Requests that come soon are worth waiting for.
    #expect(learned([40]) == 10)
    #expect(learned([40, 40]) == 20)
    #expect(learned([40, 40, 40, 40, 40, 40]) == 40)
    #expect(learned(Array(repeating: 90, count: 10)) == 100)
    // Those that come late are not.
    #expect(learned(Array(repeating: 90, count: 10) + [5000]) == 0)
    #expect(learned([5000, 5000]) == 0)
    #expect(learned([40], .never) == 0)
    #expect(learned([5000, 5000], .always(microseconds: 7)) == 7)
  }

  /// Where others need the CPU it is left to them, and longer each time.
  @Test func lostCPUEndsPolling() {
    var window = PollWindow(.automatic)
    func grow(_ count: Int) -> UInt64 {
      for _ in 0..<count { window.learn(waited: 50_000) }
      return window.current
    }
    #expect(grow(10) == 80_000)
    window.learn(yielded: 1000)
    #expect(window.current == 80_000)
    window.learn(yielded: 3_000_000)
    #expect(window.current == 0)
    #expect(grow(64) == 0)
    #expect(grow(1) == 10_000)
    window.learn(yielded: 3_000_000)
    #expect(grow(128) == 0)
    #expect(grow(10) == 80_000)
    // Who has been left alone for long forgives: 256 would be next.
    #expect(grow(1024) == 80_000)
    window.learn(yielded: 3_000_000)
    #expect(grow(128) == 0)
    #expect(grow(1) == 10_000)
  }

  /// Whoever polls one descriptor still hears of the others, and sleeps when nothing comes.
  @Test(arguments: [PollPolicy.never, .automatic, .always(microseconds: 50)])
  func everyDescriptorIsServed(policy: PollPolicy) throws {
    let loop = try EventLoop(polling: policy)
    let (hotRead, hotWrite) = try FileDescriptor.pipe()
    let (otherRead, otherWrite) = try FileDescriptor.pipe()
    _ = fcntl(hotRead.rawValue, F_SETFL, O_NONBLOCK)
    var bytes = 0
    try loop.add(polled: hotRead) {
      var byte: UInt8 = 0
      guard read(hotRead.rawValue, &byte, 1) == 1 else { return false }
      bytes += 1
      if bytes == 1000 { _ = try otherWrite.writeAll([0]) }
      _ = try hotWrite.writeAll([byte])
      return true
    }
    try loop.add(otherRead) { loop.stop() }
    _ = try hotWrite.writeAll([0])
    try loop.run()
    // The other is looked at now and then, not after each byte.
    #expect(bytes >= 1000)
    for descriptor in [hotRead, hotWrite, otherRead, otherWrite] { try descriptor.close() }
  }
}
