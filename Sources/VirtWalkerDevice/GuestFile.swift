import Glibc

/// An open file of the guest, as its driver sees it: `struct file`.
public struct GuestFile: Sendable {
  /// `f_flags`: the flags of `open(2)`. A change by `fcntl(2)` is seen from the next read or write on.
  public internal(set) var flags: Int32
  /// `f_pos`, or the position of a `pread(2)` or `pwrite(2)`. The driver moves it. After an `lseek(2)` on a FUSE node, it is the position
  /// that the kernel has.
  public var position = 0
  /// `private_data`: a number or an address for the driver's own use. It is 0 when the file is opened.
  public var privateData: UInt = 0
  /// The number of the call. A call that is made again after a wait has the same number.
  public internal(set) var call: UInt64 = 0

  /// The present call has a buffer at an address where the program has no memory, so that a driver cannot copy from or to it. Calls that
  /// come from a node have no such buffers: the node's kernel fails them with `EFAULT`.
  public internal(set) var hasBadBuffer = false

  /// The driver has called ``wakeUp()``, and the engine has not woken the calls yet.
  private var hasWokenUp = false
  /// The number of the boot in which the driver opened the file; nil before that.
  var boot: Int?
  /// The position that the node's kernel has after reads and writes alone. A request with another position is a `pread(2)`, a
  /// `pwrite(2)`, or comes after an `lseek(2)`.
  private var nodePosition = 0

  /// A file that was opened with `flags`.
  public init(flags: Int32) { self.flags = flags }

  /// `O_NONBLOCK`: calls do not wait.
  public var isNonBlocking: Bool { flags & O_NONBLOCK != 0 }

  /// Wakes the programs that wait in the driver, or that wait for an event of the device in `poll(2)`: `wake_up`. They go on when the
  /// driver's present call has ended.
  public mutating func wakeUp() { hasWokenUp = true }

  /// - Returns: Whether the driver has called ``wakeUp()`` since the last call of this.
  @inline(__always)
  mutating func takeWakeUp() -> Bool {
    guard hasWokenUp else { return false }
    hasWokenUp = false
    return true
  }

  /// Begins a call.
  ///
  /// - Parameters:
  ///   - call: The number of the call.
  ///   - flags: The flags of the file now.
  ///   - offset: The position of the request; nil if requests have none.
  /// - Returns: The file's own position, if the call has another one.
  mutating func begin(_ call: UInt64, flags: Int32, at offset: Int?) -> Int? {
    self.call = call
    self.flags = flags
    // With O_APPEND, FUSE gives the size as the position. The kernel does not do so for a character device.
    guard let offset, offset != nodePosition, flags & O_APPEND == 0 else { return nil }
    let own = position
    position = offset
    return own
  }

  /// Ends a call that has moved `count` bytes.
  mutating func end(returningTo own: Int?, at offset: Int?, count: Int) {
    if let own {
      position = own
    } else if let offset {
      nodePosition = offset + count
    }
  }
}
