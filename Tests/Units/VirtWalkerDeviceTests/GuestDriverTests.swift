import CharacterDeviceServer
import Scenarios
import Stage2Sim
import SystemPackage
import Testing

@testable import VirtWalkerDevice

/// A driver of one's own, without a node. Tests/GuestDrivers has drivers behind nodes.
@Suite struct GuestDriverTests {
  /// A driver with an open and a read: its read gives the number of opens.
  private struct OpenCounter: GuestDriver {
    private var opens: UInt8 = 0

    init(loadedIn machine: inout VirtualMachine) throws(Errno) {}

    mutating func open(
      _ file: inout GuestFile, on machine: inout VirtualMachine
    ) throws(GuestDriverError) {
      opens += 1
      file.privateData += UInt(opens)
    }

    mutating func read(
      into buffer: inout OutputSpan<UInt8>, _ file: inout GuestFile,
      on machine: inout VirtualMachine
    ) throws(GuestDriverError) {
      guard file.position < 2 else { throw .wait }
      file.position += 1
      buffer.append(UInt8(file.privateData))
      file.wakeUp()
    }
  }

  private struct NoOperations: GuestDriver {
    init(loadedIn machine: inout VirtualMachine) throws(Errno) {}
  }

  private func engine(_ driver: any GuestDriver.Type) throws -> ModelEngine {
    try ModelEngine(MachineDescription(.init()), driver: driver)
  }

  private func read(_ engine: ModelEngine) throws(Errno) -> [UInt8] {
    try [UInt8](capacity: 1) { (buffer) throws(Errno) in try engine.read(into: &buffer) }
  }

  /// NULL in `struct file_operations`.
  @Test func operationsThatAreLeftOut() throws {
    let engine = try engine(NoOperations.self)
    #expect(throws: Errno.invalidArgument) { try read(engine) }
    #expect(throws: Errno.invalidArgument) { try engine.write([1].span) }
    var machine = engine.virtualMachine
    var driver = try NoOperations(loadedIn: &machine)
    var file = GuestFile(flags: 0)
    #expect(throws: GuestDriverError.errno(.inappropriateIOCTLForDevice)) {
      try [UInt8](capacity: 4) { (output) throws(GuestDriverError) in
        _ = try driver.ioctl(
          IoctlCommand(.fromDevice, type: "x", number: 1, size: 4), 0, [UInt8]().span,
          into: &output, &file, on: &machine)
      }
    }
    #expect(throws: GuestDriverError.errno(.illegalSeek)) {
      try driver.llseek(0, from: .end, &file, on: &machine)
    }
    #expect(driver.poll(&file, on: &machine) == nil)
    #expect(!engine.isStream && !engine.givesTheSameAgain)
  }

  @Test func callThatHasToWaitGivesEAGAINWithoutANode() throws {
    let engine = try engine(OpenCounter.self)
    #expect(try read(engine) == [1])
    #expect(try read(engine) == [1])
    #expect(throws: Errno.resourceTemporarilyUnavailable) { try read(engine) }
  }

  /// The new driver of a machine that was made anew does not know the file.
  @Test func fileIsOpenedAnewAfterAReset() throws {
    let engine = try engine(OpenCounter.self)
    #expect(try read(engine) == [1])
    try engine.reset()
    #expect(try read(engine) == [1])
    #expect(throws: Errno.resourceTemporarilyUnavailable) { try read(engine) }
  }

  /// A request of FUSE has a position, and the kernel's position after reads alone is the number of bytes.
  @Test func positionOfACall() {
    var file = GuestFile(flags: 0)
    /// A read of at most 4 bytes at an offset, whose driver moves the position by 10. Gives the position at which the driver starts.
    func read(at offset: Int?, flags: Int32 = 0) -> Int {
      let own = file.begin(1, flags: flags, at: offset)
      defer { file.end(returningTo: own, at: offset, count: 4) }
      defer { file.position += 10 }
      return file.position
    }
    #expect(read(at: 0) == 0)
    #expect(read(at: 4) == 10)
    // pread(2), or after lseek(2).
    #expect(read(at: 100) == 100)
    #expect(read(at: 8) == 20)
    #expect(read(at: 50, flags: 0o2000) == 30)
    #expect(read(at: 54) == 40)
    #expect(read(at: nil) == 50)
  }
}
