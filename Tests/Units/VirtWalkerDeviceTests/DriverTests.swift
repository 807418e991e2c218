import SystemPackage
import Testing
import VirtWalkerDevice

@testable import Stage2Sim

@Suite struct DriverTests {
  private final class Lines: MachineObserver {
    var text: [String] = []

    func observe(_ event: MachineEvent) {
      if case .log(let message) = event { text.append("host: \(message)") }
    }
  }

  @Test func writeHidesTheFirstByteAndReadSeeksIt() throws {
    let driver = try VirtWalkerDriver(loadedIn: .booted())
    #expect(try read(driver, count: 1) == [0])
    #expect(try driver.write([0x41, 0x42, 0x43].span) == 1)
    #expect(try read(driver, count: 4096) == [0x41])
    let entry = try driver.machine.leaf(for: HideSeek.target).descriptor
    #expect(entry.hiddenByte == 0x41)
  }

  @Test func bothKernelsLogTheOriginalsLines() throws {
    let lines = Lines()
    var machine = try VirtualMachine.booted()
    machine.observer = lines
    let driver = try VirtWalkerDriver(loadedIn: machine) { lines.text.append("guest: \($0)") }
    _ = try driver.write([1, 2].span)
    _ = try read(driver, count: 100)
    #expect(
      lines.text == [
        "guest: write length: 2 bytes",
        "host: MMIO to HIDE and SEEK register detected, len: 1",
        "guest: read length: 100 bytes",
        "host: MMIO to HIDE and SEEK register detected, len: 1",
      ])
  }

  @Test func loadFailsWhereTheRegistersCannotBeMapped() throws {
    var machine = try VirtualMachine.booted()
    try machine.addPrivateMemory(slot: 1, at: HideSeek.hideAddress, size: 0x1000)
    #expect(throws: Errno.noMemory) { try VirtWalkerDriver(loadedIn: machine) }
  }

  /// A host without the hook: nobody answers the access, and the guest cannot go on.
  @Test func stoppedGuestIsAnIOError() throws {
    let lines = Lines()
    let driver = try VirtWalkerDriver(loadedIn: VirtualMachine()) { lines.text.append("\($0)") }
    #expect(throws: Errno.ioError) { try read(driver, count: 1) }
    #expect(throws: Errno.ioError) { try driver.write([1].span) }
    #expect(lines.text.count == 4)
    #expect(lines.text.filter { $0.hasPrefix("the guest has stopped: ") }.count == 2)
  }

  private func read(_ driver: VirtWalkerDriver, count: Int) throws(Errno) -> [UInt8] {
    try [UInt8](capacity: count) { (buffer) throws(Errno) in try driver.read(into: &buffer) }
  }
}
