// A counter that programs use by ioctl(2) only.
//
//   swift run ioctl-device /tmp/counter                 # or, as root: ioctl-device --cuse counter --unrestricted-ioctl
//   python3 -c 'import fcntl; f = open("/tmp/counter"); print(fcntl.ioctl(f, 0xc0047703, b"\5\0\0\0"))'
import CharacterDeviceServer
import SystemPackage

/// The commands. Clients in C have the same commands in a header.
enum Command {
  /// `_IOR('w', 1, uint32_t)`: gives the count.
  static let get = IoctlCommand(.fromDevice, type: "w", number: 1, size: 4)
  /// `_IOW('w', 2, uint32_t)`: sets the count.
  static let set = IoctlCommand(.toDevice, type: "w", number: 2, size: 4)
  /// `_IOWR('w', 3, uint32_t)`: adds to the count, and gives the sum.
  static let add = IoctlCommand([.toDevice, .fromDevice], type: "w", number: 3, size: 4)
  /// `_IO('w', 4)`: sets the count to the argument, and returns the old count.
  static let exchange = IoctlCommand([], type: "w", number: 4)
  /// `_IOR('w', 5, uint32_t)`: waits until the count changes, and gives the new count.
  static let wait = IoctlCommand(.fromDevice, type: "w", number: 5, size: 4)
  /// `_IO('w', 6)`: fills an array with the count. The argument points to `struct { uint64_t address, count; }`, which describes the
  /// array. The encoding does not contain these areas, so this command needs a node with unrestricted ioctl.
  static let fill = IoctlCommand([], type: "w", number: 6)
}

final class Counter: CharacterDevice {
  private var count: UInt32 = 0
  private let waiting = WaitQueue<IoctlRequest>()

  func ioctl(_ request: consuming IoctlRequest, _ input: Span<UInt8>, _ file: OpenFile<Void>) {
    switch request.command {
    case Command.get: request.answer(0, count.bytesInMemory)
    case Command.set:
      guard let new = UInt32(in: input) else { return request.fail(.invalidArgument) }
      request.answer()
      change(to: new)
    case Command.add:
      guard let more = UInt32(in: input) else { return request.fail(.invalidArgument) }
      request.answer(0, (count &+ more).bytesInMemory)
      change(to: count &+ more)
    case Command.exchange:
      let new = UInt32(truncatingIfNeeded: request.argument)
      request.answer(Int32(truncatingIfNeeded: count & 0x7fff_ffff))
      change(to: new)
    case Command.wait: waiting.append(request)
    case Command.fill where request.isUnrestricted: fill(request, input)
    default: request.fail(.inappropriateIOCTLForDevice)
    }
  }

  func ioctlAreas(_ command: IoctlCommand, argument: UInt64) -> IoctlAreas {
    guard command == Command.fill else { return IoctlAreas(encodedIn: command, at: argument) }
    return IoctlAreas(input: [MemoryArea(address: argument, count: 16)])
  }

  /// Fills the client's array. The kernel has to know the array's area before it takes the output, and the area is in the structure.
  private func fill(_ request: consuming IoctlRequest, _ input: Span<UInt8>) {
    guard let address = UInt64(in: input), let number = UInt64(in: input, at: 8),
      (1...1024).contains(number)
    else { return request.fail(.invalidArgument) }
    if request.outputCount == 0 {
      request.retry(
        IoctlAreas(
          input: [MemoryArea(address: request.argument, count: 16)],
          output: [MemoryArea(address: address, count: 4 * Int(number))]))
    } else {
      request.answer(0, (0..<request.outputCount / 4).flatMap { _ in count.bytesInMemory })
    }
  }

  private func change(to new: UInt32) {
    guard new != count else { return }
    count = new
    while let request = waiting.popFirst() { request.answer(0, count.bytesInMemory) }
  }
}

@main
struct Main {
  static func main() { DeviceProgram.run(Counter(), name: "ioctl-device") }
}
