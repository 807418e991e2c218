import CFuse
import Glibc
import SystemPackage

/// A client's `open(2)`. It is answered on the thread that serves the node.
public struct OpenRequest<Handle>: DeviceRequest, ~Copyable {
  public let reference: RequestReference
  private let info: fuse_file_info

  init(_ reference: RequestReference, _ info: fuse_file_info) {
    self.reference = reference
    self.info = info
  }

  /// The flags of the call: the access mode, `O_NONBLOCK`, `O_APPEND` and others.
  public var flags: Int32 { info.flags }

  /// The client can read.
  public var isReadable: Bool { flags & O_ACCMODE != O_WRONLY }

  /// The client can write.
  public var isWritable: Bool { flags & O_ACCMODE != O_RDONLY }

  /// The call has `O_NONBLOCK`.
  public var isNonBlocking: Bool { flags & O_NONBLOCK != 0 }

  /// Lets the call succeed, with `handle` as the device's state for this open file.
  ///
  /// If a signal has ended the client's call, the device's ``CharacterDevice/release(_:)`` is called before this returns.
  public consuming func accept(_ handle: Handle) {
    let context = reference.connection
    let file = OpenFile(
      handle, flags: flags, hasOffsets: context.hasOffsets && !context.device.isStream)
    context.accept(reference, info, file)
    discard self
  }

  public consuming func fail(_ error: Errno) {
    reference.fail(error)
    discard self
  }

  deinit { reference.fail(.ioError) }
}
