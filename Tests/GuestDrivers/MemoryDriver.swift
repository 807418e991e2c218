import CharacterDeviceServer
import Stage2Sim
import SystemPackage
import VirtWalkerDevice

/// A driver of 64 KiB of the guest's memory: positions, `llseek`, and a number for each open file.
struct MemoryDriver: GuestDriver {
  /// `_IO('m', 1)`: the result is the number of the open file. Tests/DeviceClient has the same command.
  static let fileNumber = IoctlCommand([], type: "m", number: 1)

  private var memory = [UInt8](repeating: 0, count: 1 << 16)
  private var opens: UInt = 0

  init(loadedIn machine: inout VirtualMachine) throws(Errno) {}

  mutating func open(
    _ file: inout GuestFile, on machine: inout VirtualMachine
  ) throws(GuestDriverError) {
    opens += 1
    file.privateData = opens
  }

  mutating func read(
    into buffer: inout OutputSpan<UInt8>, _ file: inout GuestFile,
    on machine: inout VirtualMachine
  ) throws(GuestDriverError) {
    let part = memory.dropFirst(file.position).prefix(buffer.freeCapacity)
    for byte in part { buffer.append(byte) }
    file.position += part.count
  }

  mutating func write(
    _ new: Span<UInt8>, _ file: inout GuestFile, on machine: inout VirtualMachine
  ) throws(GuestDriverError) -> Int {
    let taken = min(new.count, memory.count - file.position)
    guard taken > 0 else { throw .errno(.noSpace) }
    for index in 0..<taken { memory[file.position + index] = new[index] }
    file.position += taken
    return taken
  }

  mutating func ioctl(
    _ command: IoctlCommand, _ argument: UInt64, _ input: Span<UInt8>,
    into output: inout OutputSpan<UInt8>, _ file: inout GuestFile,
    on machine: inout VirtualMachine
  ) throws(GuestDriverError) -> Int32 {
    guard command == Self.fileNumber else { throw .errno(.inappropriateIOCTLForDevice) }
    return Int32(file.privateData)
  }

  mutating func llseek(
    _ offset: Int, from origin: SeekRequest.Origin, _ file: inout GuestFile,
    on machine: inout VirtualMachine
  ) throws(GuestDriverError) -> Int {
    if origin == .end { return memory.count }
    guard offset < memory.count else { throw .errno(.noSuchAddressOrDevice) }
    return origin == .data ? offset : memory.count
  }
}
