import Scenarios
import SystemPackage
import Testing
import VirtWalkerDevice

@testable import Stage2Sim

@Suite struct DriverTests {
  private final class Lines: MachineObserver {
    var text: [String] = []

    func observe(_ event: MachineEvent) {
      switch event {
      case .log(let message):
        text.append("\(message.layer == .driver ? "guest" : "host"): \(message)")
      case .guestStopped: text.append("stopped")
      default: break
      }
    }
  }

  @Test func writeHidesTheFirstByteAndReadSeeksIt() throws {
    let engine = try Self.engine()
    #expect(try read(engine, count: 1) == [0])
    #expect(try engine.write([0x41, 0x42, 0x43].span) == 1)
    #expect(try read(engine, count: 4096) == [0x41])
    #expect(try read(engine, count: 0) == [])
    let entry = try #require(engine.leaf(for: HideSeek.target)).descriptor
    #expect(entry.hiddenByte == 0x41)
  }

  @Test func bothKernelsLogTheOriginalsLines() throws {
    let lines = Lines()
    let engine = try Self.engine()
    engine.virtualMachine.observer = lines
    _ = try engine.write([1, 2].span)
    _ = try read(engine, count: 100)
    #expect(
      lines.text == [
        "guest: write length: 2 bytes",
        "host: MMIO to HIDE and SEEK register detected, len: 1",
        "guest: read length: 100 bytes",
        "host: MMIO to HIDE and SEEK register detected, len: 1",
      ])
  }

  @Test func loadFailsWhereTheRegistersCannotBeMapped() throws {
    var machine = try VirtualMachine.bootedWithHideSeek()
    try machine.addPrivateMemory(slot: 1, at: HideSeek.hideAddress, size: 0x1000)
    #expect(throws: Errno.noMemory) { try VirtWalkerDriver(loadedIn: &machine) }
  }

  /// On a host without the hook, no part answers the access, and the guest cannot continue.
  @Test func stoppedGuestIsAnIOError() throws {
    let lines = Lines()
    let engine = try Self.engine(hooks: [])
    engine.virtualMachine.observer = lines
    #expect(throws: Errno.ioError) { try read(engine, count: 1) }
    #expect(throws: Errno.ioError) { try engine.write([1].span) }
    #expect(
      lines.text == [
        "guest: read length: 1 bytes", "stopped", "guest: write length: 1 bytes", "stopped",
      ])
    guard case .mmio(let mmio)? = engine.guestStop?.result else {
      Issue.record("\(String(describing: engine.guestStop))")
      return
    }
    #expect(mmio.address == HideSeek.hideAddress && mmio.isWrite)
  }

  private static func engine(hooks: [any MMIOHook] = [HideSeek()]) throws -> ModelEngine {
    try ModelEngine(MachineDescription(.init()), hooks: hooks, driver: VirtWalkerDriver.self)
  }

  private func read(_ engine: ModelEngine, count: Int) throws(Errno) -> [UInt8] {
    try [UInt8](capacity: count) { (buffer) throws(Errno) in try engine.read(into: &buffer) }
  }
}
