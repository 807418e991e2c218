import CFuse
import Glibc
import SystemPackage

/// A client's `write(2)`, `pwrite(2)`, `writev(2)` or another call that writes.
public struct WriteRequest: DeviceRequest, ~Copyable, @unchecked Sendable {
  public let reference: RequestReference
  /// The number of the client's bytes, at least 1. A large write comes in parts: of 128 KiB on CUSE, of 1 MiB on FUSE.
  public let count: Int
  /// The position of the first byte. See ``AnyOpenFile/hasOffsets``.
  public let offset: Int
  /// The present flags of the open file.
  public let flags: Int32
  /// A copy of the bytes of a request that waits. The answer frees the copy.
  private var copy: UnsafeMutableBufferPointer<UInt8>?

  init(_ reference: RequestReference, count: Int, offset: Int, flags: Int32) {
    self.reference = reference
    self.count = count
    self.offset = offset
    self.flags = flags
  }

  /// The open file has `O_NONBLOCK`: the client does not want to wait, and a device fails with `EAGAIN`
  /// (`Errno.resourceTemporarilyUnavailable`) instead.
  public var isNonBlocking: Bool { flags & O_NONBLOCK != 0 }

  /// Keeps a copy of the client's bytes, which are valid only until the device's method returns.
  mutating func keep(_ bytes: Span<UInt8>) {
    guard copy == nil else { return }
    copy = bytes.withUnsafeBufferPointer {
      let copy = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: $0.count)
      _ = copy.initialize(fromContentsOf: $0)
      return copy
    }
  }

  /// Calls `body` with the bytes that a ``WaitQueue`` has kept with the request; with no bytes if none were kept.
  public func withKeptBytes<Result>(_ body: (Span<UInt8>) -> Result) -> Result {
    body(UnsafeBufferPointer(copy ?? UnsafeMutableBufferPointer(start: nil, count: 0)).span)
  }

  /// Says how many of the bytes the device has taken: 1 to ``count``.
  ///
  /// - Returns: False if the client does not get the answer, as a signal has ended its call.
  @discardableResult
  public consuming func answer(taken: Int) -> Bool {
    let isDelivered = reference.answer { fuse_reply_write($0, taken) }
    copy?.deallocate()
    discard self
    return isDelivered
  }

  public consuming func fail(_ error: Errno) {
    reference.fail(error)
    copy?.deallocate()
    discard self
  }

  deinit {
    reference.fail(.ioError)
    copy?.deallocate()
  }
}
