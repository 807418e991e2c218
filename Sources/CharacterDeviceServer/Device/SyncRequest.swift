import CFuse
import SystemPackage

/// A client's `close(2)` or `fsync(2)`: the answer is success or an error.
public struct SyncRequest: DeviceRequest, ~Copyable, @unchecked Sendable {
  public let reference: RequestReference

  init(_ reference: RequestReference) { self.reference = reference }

  /// Lets the client's call succeed.
  public consuming func succeed() {
    reference.answer { fuse_reply_err($0, 0) }
    discard self
  }

  public consuming func fail(_ error: Errno) {
    reference.fail(error)
    discard self
  }

  deinit { reference.fail(.ioError) }
}
