import CFuse
import SystemPackage

/// A client's `lseek(2)` for which the kernel asks the server: with `SEEK_END`, `SEEK_DATA` or `SEEK_HOLE` on a FUSE node.
///
/// The kernel answers `SEEK_SET` and `SEEK_CUR` by itself, and the next read or write has the new position. CUSE's kernel module
/// answers all calls by itself. The request is answered on the thread that serves the node.
public struct SeekRequest: DeviceRequest, ~Copyable {
  /// The third argument of `lseek(2)`.
  public enum Origin: Hashable, Sendable {
    /// `SEEK_END`
    case end
    /// `SEEK_DATA`
    case data
    /// `SEEK_HOLE`
    case hole
  }

  public let reference: RequestReference
  /// The third argument of `lseek(2)`.
  public let origin: Origin
  /// The second argument of `lseek(2)`; 0 for ``Origin/end``, as the kernel adds the argument to the answer.
  public let offset: Int

  init(_ reference: RequestReference, _ offset: Int, from origin: Origin) {
    self.reference = reference
    self.offset = offset
    self.origin = origin
  }

  /// Gives the client a position, 0 or more.
  public consuming func answer(_ position: Int) {
    switch origin {
    case .end:
      // The kernel asks for the attributes of the file, and counts from its size.
      var attributes = reference.connection.fileState.attributes
      attributes.setSize(position)
      reference.answer { fuse_reply_attr($0, &attributes, 0) }
    case .data, .hole: reference.answer { fuse_reply_lseek($0, position) }
    }
    discard self
  }

  public consuming func fail(_ error: Errno) {
    reference.fail(error)
    discard self
  }

  deinit { reference.fail(.ioError) }
}
