import CFuse
import Glibc
import SystemPackage

/// The second argument of `ioctl(2)`, as `_IO`, `_IOR`, `_IOW` and `_IOWR` encode it on x86 and Arm.
public struct IoctlCommand: RawRepresentable, Hashable, Sendable {
  public let rawValue: UInt32

  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// The direction in which the bytes go that the command's argument points to.
  public struct Direction: OptionSet, Hashable, Sendable {
    public let rawValue: UInt32

    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// From the client to the device: `_IOW` and `_IOWR`.
    public static let toDevice = Direction(rawValue: 1)
    /// From the device to the client: `_IOR` and `_IOWR`.
    public static let fromDevice = Direction(rawValue: 2)
  }

  /// A command.
  ///
  /// - Parameters:
  ///   - direction: The direction; none for `_IO`, whose argument is a number.
  ///   - type: The device's letter.
  ///   - number: The command's number.
  ///   - size: The number of bytes that the argument points to, 0 to 16383.
  public init(_ direction: Direction, type: Unicode.Scalar, number: UInt8, size: Int = 0) {
    precondition(type.isASCII && (0..<1 << 14).contains(size), "no command has such a type or size")
    rawValue =
      direction.rawValue << 30 | UInt32(size) << 16 | type.value << 8 | UInt32(number)
  }

  /// The direction in which the argument's bytes go; none for `_IO`.
  public var direction: Direction { Direction(rawValue: rawValue >> 30) }

  /// The number of bytes that the argument points to.
  public var size: Int { Int(rawValue >> 16 & 0x3fff) }

  /// The device's letter, as a number.
  public var type: UInt8 { UInt8(truncatingIfNeeded: rawValue >> 8) }

  /// The command's number.
  public var number: UInt8 { UInt8(truncatingIfNeeded: rawValue) }
}

/// A part of a client's memory.
public struct MemoryArea: Hashable, Sendable {
  /// The address in the client.
  public var address: UInt64
  /// The number of bytes.
  public var count: Int

  /// The `count` bytes from `address` on.
  public init(address: UInt64, count: Int) {
    self.address = address
    self.count = count
  }
}

/// The parts of a client's memory that an `ioctl(2)` reads and writes: at most 256 of each.
public struct IoctlAreas: Hashable, Sendable {
  /// The areas whose bytes the device gets, one after the other.
  public var input: [MemoryArea]
  /// The areas that the device's answer fills, one after the other.
  public var output: [MemoryArea]

  /// Areas; none by default.
  public init(input: [MemoryArea] = [], output: [MemoryArea] = []) {
    self.input = input
    self.output = output
  }

  /// The area at `argument` whose size and direction the command's encoding gives.
  public init(encodedIn command: IoctlCommand, at argument: UInt64) {
    let area = [MemoryArea(address: argument, count: command.size)]
    self.init(
      input: command.direction.contains(.toDevice) ? area : [],
      output: command.direction.contains(.fromDevice) ? area : [])
  }

  var isEmpty: Bool { (input + output).allSatisfy { $0.count == 0 } }
}

/// A client's `ioctl(2)`.
///
/// On most nodes the request is restricted: the command's encoding says which part of the client's memory is read and written. On an
/// unrestricted CUSE node, the device says which areas it needs: ``CharacterDevice/ioctlAreas(_:argument:)``.
public struct IoctlRequest: DeviceRequest, ~Copyable, @unchecked Sendable {
  public let reference: RequestReference
  /// The second argument of `ioctl(2)`.
  public let command: IoctlCommand
  /// The third argument of `ioctl(2)`: a number, or an address in the client's memory.
  public let argument: UInt64
  /// The number of bytes that the answer can give the client.
  public let outputCount: Int
  /// The flags of `open(2)`. The kernel does not send the present flags with this request.
  public let flags: Int32
  private let ioctlFlags: UInt32

  init(
    _ reference: RequestReference, _ command: UInt32, _ argument: UInt64, outputCount: Int,
    flags: Int32, ioctlFlags: UInt32
  ) {
    self.reference = reference
    self.command = IoctlCommand(rawValue: command)
    self.argument = argument
    self.outputCount = outputCount
    self.flags = flags
    self.ioctlFlags = ioctlFlags
  }

  /// The device chooses the areas of memory.
  public var isUnrestricted: Bool { ioctlFlags & UInt32(FUSE_IOCTL_UNRESTRICTED) != 0 }

  /// The client is a 32-bit program on a 64-bit kernel: its structures may have another layout.
  public var isFrom32BitProgram: Bool { ioctlFlags & UInt32(FUSE_IOCTL_COMPAT) != 0 }

  /// The file was opened with `O_NONBLOCK`.
  public var isNonBlocking: Bool { flags & O_NONBLOCK != 0 }

  /// Lets the call return `result`, 0 or more, and gives the client `output`: ``outputCount`` bytes at most.
  ///
  /// - Returns: False if the client does not get the answer, as a signal has ended its call.
  @discardableResult
  public consuming func answer(_ result: Int32 = 0, _ output: [UInt8] = []) -> Bool {
    let isDelivered = output.withUnsafeBytes { bytes in
      reference.answer {
        fuse_reply_ioctl($0, result, bytes.baseAddress, min(bytes.count, outputCount))
      }
    }
    discard self
    return isDelivered
  }

  /// Asks the kernel to send the request once more, with the bytes of other areas. A command needs this if its areas depend on the
  /// content of the client's memory.
  ///
  /// The next request has the bytes of the new areas, and is equal to this one otherwise. A restricted request fails with `EIO`.
  public consuming func retry(_ areas: IoctlAreas) {
    func vectors(_ areas: [MemoryArea]) -> [iovec] {
      areas.filter { $0.count > 0 }.map {
        iovec(iov_base: UnsafeMutableRawPointer(bitPattern: UInt($0.address)), iov_len: $0.count)
      }
    }
    let (input, output) = (vectors(areas.input), vectors(areas.output))
    if isUnrestricted, max(input.count, output.count) <= 256 {
      reference.answer {
        fuse_reply_ioctl_retry($0, input, input.count, output, output.count)
      }
    } else {
      reference.fail(.ioError)
    }
    discard self
  }

  public consuming func fail(_ error: Errno) {
    reference.fail(error)
    discard self
  }

  deinit { reference.fail(.ioError) }
}

extension FixedWidthInteger {
  /// The integer whose bytes are at `offset` of `bytes`, as the client's memory has it; nil if there are not enough bytes.
  public init?(in bytes: Span<UInt8>, at offset: Int = 0) {
    let size = Self.bitWidth / 8
    guard offset >= 0, offset <= bytes.count - size else { return nil }
    var value: Self = 0
    withUnsafeMutableBytes(of: &value) { target in
      for index in 0..<size { target[index] = bytes[offset + index] }
    }
    self = value
  }

  /// The bytes of the integer, as the client's memory has them.
  public var bytesInMemory: [UInt8] { withUnsafeBytes(of: self) { Array($0) } }
}
