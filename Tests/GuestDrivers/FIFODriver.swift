import CharacterDeviceServer
import Stage2Sim
import SystemPackage
import VirtWalkerDevice

/// A driver of a queue of bytes in the guest's memory: reads and writes that wait, `poll(2)`, and `ioctl(2)` both ways.
struct FIFODriver: GuestDriver {
  /// The commands, as Tests/DeviceClient has them.
  enum Command {
    /// `_IOR('f', 1, uint32_t)`: gives the number of bytes in the queue.
    static let count = IoctlCommand(.fromDevice, type: "f", number: 1, size: 4)
    /// `_IOWR('f', 2, uint32_t)`: sets the capacity, and gives the old one.
    static let setCapacity = IoctlCommand([.toDevice, .fromDevice], type: "f", number: 2, size: 4)
    /// `_IO('f', 3)`: waits until the queue is empty.
    static let drain = IoctlCommand([], type: "f", number: 3)
    /// `_IO('f', 4)`: the result is the number of calls that wait.
    static let waiting = IoctlCommand([], type: "f", number: 4)
  }

  private var capacity = 4096
  private var bytes: [UInt8] = []
  /// The calls that wait.
  private var waiting: Set<UInt64> = []

  init(loadedIn machine: inout VirtualMachine) throws(Errno) {}

  var isStream: Bool { true }

  private var room: Int { max(0, capacity - bytes.count) }

  mutating func read(
    into buffer: inout OutputSpan<UInt8>, _ file: inout GuestFile,
    on machine: inout VirtualMachine
  ) throws(GuestDriverError) {
    machine.printk("fifo: read of %d bytes", buffer.freeCapacity)
    try wait(until: !bytes.isEmpty, file)
    let part = bytes.prefix(buffer.freeCapacity)
    for byte in part { buffer.append(byte) }
    bytes.removeFirst(part.count)
    file.wakeUp()
  }

  mutating func write(
    _ new: Span<UInt8>, _ file: inout GuestFile, on machine: inout VirtualMachine
  ) throws(GuestDriverError) -> Int {
    machine.printk("fifo: write of %d bytes", new.count)
    try wait(until: room > 0, file)
    let taken = min(room, new.count)
    for index in 0..<taken { bytes.append(new[index]) }
    file.wakeUp()
    return taken
  }

  mutating func ioctl(
    _ command: IoctlCommand, _ argument: UInt64, _ input: Span<UInt8>,
    into output: inout OutputSpan<UInt8>, _ file: inout GuestFile,
    on machine: inout VirtualMachine
  ) throws(GuestDriverError) -> Int32 {
    func give(_ number: Int, _ output: inout OutputSpan<UInt8>) {
      for byte in UInt32(number).bytesInMemory { output.append(byte) }
    }
    switch command {
    case Command.count: give(bytes.count, &output)
    case Command.setCapacity:
      guard let new = UInt32(in: input) else { throw .errno(.invalidArgument) }
      give(capacity, &output)
      capacity = Int(new)
      file.wakeUp()
    case Command.drain: try wait(until: bytes.isEmpty, file)
    case Command.waiting: return Int32(waiting.count)
    default: throw .errno(.inappropriateIOCTLForDevice)
    }
    return 0
  }

  mutating func poll(_ file: inout GuestFile, on machine: inout VirtualMachine) -> PollEvents? {
    [bytes.isEmpty ? [] : .readable, room > 0 ? .writable : []]
  }

  mutating func interrupt(_ file: inout GuestFile, on machine: inout VirtualMachine) {
    waiting.remove(file.call)
  }

  /// `wait_event_interruptible`
  private mutating func wait(until isTrue: Bool, _ file: GuestFile) throws(GuestDriverError) {
    guard !isTrue else {
      waiting.remove(file.call)
      return
    }
    if !file.isNonBlocking { waiting.insert(file.call) }
    throw .wait
  }
}
