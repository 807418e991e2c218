import Stage2Sim
import SystemPackage

/// A kernel module in the guest that drives a character device: its `struct file_operations`.
///
/// A driver reaches its device by the calls of the guest's kernel, which are methods of `VirtualMachine`: `ioremap`, `readb`,
/// `writeb` and `printk`.
public protocol GuestDriver {
  /// `module_init`: loads the module into the guest of a machine.
  ///
  /// - Throws: The error of `insmod`.
  init(loadedIn machine: inout VirtualMachine) throws(Errno)

  /// `open`. The default accepts each open.
  mutating func open(on machine: inout VirtualMachine) throws(GuestDriverError)

  /// `release`. The default does nothing.
  mutating func release(on machine: inout VirtualMachine)

  /// `read`: appends at most `buffer.freeCapacity` bytes, which is the number that the program asked for.
  mutating func read(
    into buffer: inout OutputSpan<UInt8>, on machine: inout VirtualMachine
  ) throws(GuestDriverError)

  /// `write`: takes some of `bytes`, and returns how many.
  mutating func write(
    _ bytes: Span<UInt8>, on machine: inout VirtualMachine
  ) throws(GuestDriverError) -> Int

  /// Whether one read after another gives the same bytes until something is written, and has no other effect. The default is
  /// false.
  var givesTheSameAgain: Bool { get }
}

extension GuestDriver {
  public mutating func open(on machine: inout VirtualMachine) throws(GuestDriverError) {}

  public mutating func release(on machine: inout VirtualMachine) {}

  public var givesTheSameAgain: Bool { false }
}

/// The reason why a file operation of a driver has not succeeded.
public enum GuestDriverError: Error, Hashable, Sendable {
  /// The driver returns this error.
  case errno(Errno)
  /// The guest does not run any more, so that the driver cannot return.
  case stopped(GuestStopped)
}
