import CharacterDeviceServer
import Stage2Sim
import SystemPackage

/// A kernel module in the guest that drives a character device.
///
/// A driver reaches its device by the calls of the guest's kernel, which are methods of `VirtualMachine`: `ioremap`, `readb`,
/// `writeb` and `printk`. An operation that a driver leaves out has a default, which does what the kernel does for NULL.
public protocol GuestDriver: GuestFileOperations {
  /// `module_init`: loads the module into the guest of a machine.
  ///
  /// - Throws: The error of `insmod`.
  init(loadedIn machine: inout VirtualMachine) throws(Errno)
}

/// The operations of a driver that is loaded in a guest: its `struct file_operations`, and `module_exit`.
///
/// A call that cannot be completed yet throws ``GuestDriverError/wait``. After the next ``GuestFile/wakeUp()`` of any file, the engine
/// makes the same call again.
public protocol GuestFileOperations {
  /// `open`. The default accepts each open. If the machine is made anew while a program has the device open, the new driver gets an
  /// `open` before the program's next call.
  mutating func open(
    _ file: inout GuestFile, on machine: inout VirtualMachine
  ) throws(GuestDriverError)

  /// `release`. The default does nothing.
  mutating func release(_ file: inout GuestFile, on machine: inout VirtualMachine)

  /// `read`: appends at most `buffer.freeCapacity` bytes, which is the number that the program asked for. The default fails with
  /// `EINVAL`.
  mutating func read(
    into buffer: inout OutputSpan<UInt8>, _ file: inout GuestFile,
    on machine: inout VirtualMachine
  ) throws(GuestDriverError)

  /// `write`: takes some of `bytes`, and returns how many. The default fails with `EINVAL`.
  mutating func write(
    _ bytes: Span<UInt8>, _ file: inout GuestFile, on machine: inout VirtualMachine
  ) throws(GuestDriverError) -> Int

  /// `unlocked_ioctl`. The default fails with `ENOTTY`.
  ///
  /// - Parameters:
  ///   - command: The command. Its encoding says how many bytes its argument points to, and which way they go.
  ///   - argument: The argument: a number, or an address in the program's memory.
  ///   - input: The program's bytes that a command of `_IOW` or `_IOWR` reads: `copy_from_user`.
  ///   - output: The bytes for the program, if the command is of `_IOR` or `_IOWR`: `copy_to_user`.
  ///   - file: The open file.
  ///   - machine: The machine.
  /// - Returns: The result of the call, 0 or more.
  mutating func ioctl(
    _ command: IoctlCommand, _ argument: UInt64, _ input: Span<UInt8>,
    into output: inout OutputSpan<UInt8>, _ file: inout GuestFile,
    on machine: inout VirtualMachine
  ) throws(GuestDriverError) -> Int32

  /// `llseek` with `SEEK_END`, `SEEK_DATA` or `SEEK_HOLE`. The default fails with `ESPIPE`.
  ///
  /// Behind a node, a driver does not get all calls. On FUSE the kernel answers `SEEK_SET` and `SEEK_CUR` by itself, and
  /// ``GuestFile/position`` has the result in the next read or write. On CUSE the kernel answers all calls: they give 0, and change
  /// nothing. A driver that says ``isStream`` gets none: they fail with `ESPIPE` on FUSE.
  ///
  /// - Parameters:
  ///   - offset: The offset; 0 for `SEEK_END`, as the kernel adds the offset to the result.
  ///   - origin: The origin.
  ///   - file: The open file. A change of its position has no effect: the kernel sets it.
  ///   - machine: The machine.
  /// - Returns: The new position, 0 or more.
  mutating func llseek(
    _ offset: Int, from origin: SeekRequest.Origin, _ file: inout GuestFile,
    on machine: inout VirtualMachine
  ) throws(GuestDriverError) -> Int

  /// `poll`: the present events. After ``GuestFile/wakeUp()``, the kernel asks again for a program that waits for events. The default
  /// gives nil, which is NULL: the kernel takes the device for one that is always readable and writable, and does not ask again.
  mutating func poll(_ file: inout GuestFile, on machine: inout VirtualMachine) -> PollEvents?

  /// A signal has ended the call ``GuestFile/call``, which waited: the engine does not make it again. The default does nothing.
  mutating func interrupt(_ file: inout GuestFile, on machine: inout VirtualMachine)

  /// `module_exit`: the module is unloaded from the guest, at a reset and at the end of the engine. There is no call after this one. The
  /// default does nothing.
  mutating func unload(from machine: inout VirtualMachine)

  /// Whether files have no positions: the driver's `open` calls `stream_open`. An engine asks after each open. The default is false.
  ///
  /// A driver whose reads or writes wait says true: on FUSE, a read that waits otherwise holds up a write of the same open file.
  var isStream: Bool { get }

  /// Whether one read after another gives the same bytes until something is written, and has no other effect. The default is
  /// false.
  var givesTheSameAgain: Bool { get }
}

extension GuestFileOperations {
  public mutating func open(
    _ file: inout GuestFile, on machine: inout VirtualMachine
  ) throws(GuestDriverError) {}

  public mutating func release(_ file: inout GuestFile, on machine: inout VirtualMachine) {}

  public mutating func read(
    into buffer: inout OutputSpan<UInt8>, _ file: inout GuestFile,
    on machine: inout VirtualMachine
  ) throws(GuestDriverError) { throw .errno(.invalidArgument) }

  public mutating func write(
    _ bytes: Span<UInt8>, _ file: inout GuestFile, on machine: inout VirtualMachine
  ) throws(GuestDriverError) -> Int { throw .errno(.invalidArgument) }

  public mutating func ioctl(
    _ command: IoctlCommand, _ argument: UInt64, _ input: Span<UInt8>,
    into output: inout OutputSpan<UInt8>, _ file: inout GuestFile,
    on machine: inout VirtualMachine
  ) throws(GuestDriverError) -> Int32 { throw .errno(.inappropriateIOCTLForDevice) }

  public mutating func llseek(
    _ offset: Int, from origin: SeekRequest.Origin, _ file: inout GuestFile,
    on machine: inout VirtualMachine
  ) throws(GuestDriverError) -> Int { throw .errno(.illegalSeek) }

  public mutating func poll(
    _ file: inout GuestFile, on machine: inout VirtualMachine
  ) -> PollEvents? { nil }

  public mutating func interrupt(_ file: inout GuestFile, on machine: inout VirtualMachine) {}

  public mutating func unload(from machine: inout VirtualMachine) {}

  public var isStream: Bool { false }

  public var givesTheSameAgain: Bool { false }
}

/// The reason why a file operation of a driver has not succeeded.
public enum GuestDriverError: Error, Hashable, Sendable {
  /// The driver returns this error.
  case errno(Errno)
  /// A read, a write or an ioctl has to wait: `wait_event_interruptible`. The engine makes the call again after the next
  /// ``GuestFile/wakeUp()``. If the file has `O_NONBLOCK`, or in any other operation, the program gets `EAGAIN`.
  case wait
  /// The guest does not run any more, so that the driver cannot return.
  case stopped(GuestStopped)
}
