import CFuse
import Glibc
import SystemPackage

/// A client's `read(2)`, `pread(2)`, `readv(2)` or another call that reads.
public struct ReadRequest: DeviceRequest, ~Copyable, @unchecked Sendable {
  public let reference: RequestReference
  /// The number of bytes that the client wants, at least 1. A large read comes in parts: of 128 KiB on CUSE, of 1 MiB on FUSE.
  public let count: Int
  /// The position of the first byte. See ``AnyOpenFile/hasOffsets``.
  public let offset: Int
  /// The present flags of the open file.
  public let flags: Int32
  /// The answer fills a page of the kernel's page cache with repetitions of the bytes of one read.
  private let isRepeated: Bool

  init(
    _ reference: RequestReference, count: Int, offset: Int, flags: Int32, isRepeated: Bool = false
  ) {
    self.reference = reference
    self.count = count
    self.offset = offset
    self.flags = flags
    self.isRepeated = isRepeated
  }

  /// The open file has `O_NONBLOCK`: the client does not want to wait, and a device fails with `EAGAIN`
  /// (`Errno.resourceTemporarilyUnavailable`) instead.
  public var isNonBlocking: Bool { flags & O_NONBLOCK != 0 }

  /// Gives the client the bytes that `fill` appends, ``count`` at most; no bytes are the end of the file. An error that `fill` throws
  /// is the result of the client's call.
  ///
  /// - Returns: False if the client does not get the bytes, as a signal has ended its call.
  @discardableResult
  public consuming func answer(
    _ fill: (inout OutputSpan<UInt8>) throws(Errno) -> Void
  ) -> Bool {
    let isDelivered = send { (buffer) throws(Errno) in
      try fill(&buffer)
      return true
    }
    discard self
    return isDelivered ?? false
  }

  /// Gives the client the bytes that `fill` appends, as ``answer(_:)-(_)`` does. If `fill` returns false, the client waits.
  ///
  /// - Returns: The request, if the client waits.
  public consuming func answerUnlessWaiting(
    _ fill: (inout OutputSpan<UInt8>) throws(Errno) -> Bool
  ) -> ReadRequest? {
    if send(fill) == nil { return self }
    discard self
    return nil
  }

  /// - Returns: Whether the client gets the answer; nil if `fill` returns false, so that there is none.
  private func send(_ fill: (inout OutputSpan<UInt8>) throws(Errno) -> Bool) -> Bool? {
    reference.withConnection { connection in
      connection.withAnswerBuffer(of: count) { send(fill, in: $0) }
    }
  }

  private func send(
    _ fill: (inout OutputSpan<UInt8>) throws(Errno) -> Bool,
    in target: UnsafeMutableBufferPointer<UInt8>
  ) -> Bool? {
    var span = OutputSpan(buffer: target, initializedCount: 0)
    do throws(Errno) {
      guard try fill(&span) else { return nil }
    } catch {
      return reference.fail(error)
    }
    var length = span.finalize(for: target)
    if isRepeated, length > 0 {
      for index in length..<max(count, length) { target[index] = target[index - length] }
      length = count
    }
    return reference.answer { request in
      target.withMemoryRebound(to: CChar.self) { fuse_reply_buf(request, $0.baseAddress, length) }
    }
  }

  /// Gives the client `bytes`, at most ``count`` of these.
  ///
  /// - Returns: False if the client does not get the bytes, as a signal has ended its call.
  @discardableResult
  public consuming func answer(_ bytes: some Sequence<UInt8>) -> Bool {
    answer { (buffer) throws(Errno) in
      for byte in bytes {
        guard buffer.freeCapacity > 0 else { return }
        buffer.append(byte)
      }
    }
  }

  public consuming func fail(_ error: Errno) {
    reference.fail(error)
    discard self
  }

  deinit { reference.fail(.ioError) }
}
