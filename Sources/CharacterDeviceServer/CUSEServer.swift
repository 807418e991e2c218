import CFuse
import Glibc
import SystemPackage

/// Serves a device as a real character device, `/dev/NAME`, through the kernel's CUSE.
///
/// The kernel owns the node: it goes with the server, whatever way the process ends.
public final class CUSEServer: NodeServer {
  public let path: FilePath
  private let session: FuseSession

  public var descriptor: FileDescriptor { session.descriptor }

  /// Makes the node; when the call returns, it answers.
  ///
  /// - Parameters:
  ///   - name: The node's name in /dev.
  ///   - access: Who may use it.
  ///   - device: What answers.
  /// - Throws: ``NodeError``; nothing is left behind then.
  public init(
    name: String, access: NodeAccess = NodeAccess(), device: any CharacterDevice
  ) throws(NodeError) {
    path = FilePath("/dev").appending(name)
    try LibFuse.checkVersion()
    try checkNodeIsFree(path)
    let control = try Self.openControl()
    let context = DeviceContext(device: device)
    var operations = Self.operations
    let created = "DEVNAME=\(name)".withCString { argument in
      var arguments: UnsafePointer<CChar>? = argument
      return withUnsafeMutablePointer(to: &arguments) { vector in
        var info = cuse_info()
        info.dev_info_argc = 1
        info.dev_info_argv = vector
        return withFuseArguments(options: []) {
          ccuse_lowlevel_new($0, &info, &operations, context.userData)
        }
      }
    }
    guard let created else {
      try? control.close()
      throw NodeError(
        .system, "libfuse refused to make \(path)", advice: "see its messages above")
    }
    session = try FuseSession(
      created, context: context, mountPoint: "/dev/fd/\(control.rawValue)",
      what: path.string)
    do throws(NodeError) {
      try apply(access)
    } catch {
      session.disconnect()
      throw error
    }
  }

  public func process() throws(Errno) -> Processed { try session.process() }

  public func disconnect() { session.disconnect() }

  private static let control: FilePath = "/dev/cuse"

  private static func openControl() throws(NodeError) -> FileDescriptor {
    let descriptor = Glibc.open(control.string, O_RDWR | O_CLOEXEC)
    guard descriptor >= 0 else {
      let errno = Errno.current
      switch errno {
      case .noSuchFileOrDirectory, .operationNotSupportedByDevice, .noSuchAddressOrDevice:
        throw NodeError(
          .unsupported, "\(control) is missing",
          advice: "modprobe cuse, or run with --backend fuse")
      default:
        throw NodeError(
          errno, doing: "open", at: control,
          advice: "run as root, or with --backend fuse and a --path of your own")
      }
    }
    return FileDescriptor(rawValue: descriptor)
  }

  /// Gives the node its mode and owner. The kernel has made it by now: device first, answer to INIT second.
  private func apply(_ access: NodeAccess) throws(NodeError) {
    guard let kind = try? fileType(path), kind == S_IFCHR else {
      throw NodeError(
        .unsupported, "the kernel made the device, but no node \(path)",
        advice: "/dev has to be a devtmpfs; run with --backend fuse here")
    }
    let owner = access.owner ?? uid_t.max
    let group = access.group ?? gid_t.max
    guard chmod(path.string, access.mode.rawValue) == 0, chown(path.string, owner, group) == 0
    else {
      throw NodeError(
        .current, doing: "set mode and owner of", at: path, advice: "run as root")
    }
  }

  private static var operations: cuse_lowlevel_ops {
    var operations = cuse_lowlevel_ops()
    operations.init_done = { userData in
      guard let userData else { return }
      DeviceContext.of(userData: userData).isInitialized = true
    }
    operations.open = { request, info in
      DeviceContext.of(request).answerOpen(request, info)
    }
    operations.read = { request, size, _, _ in
      DeviceContext.of(request).answerRead(request, count: size)
    }
    operations.write = { request, bytes, size, _, _ in
      DeviceContext.of(request).answerWrite(request, bytes, count: size)
    }
    // A driver without fsync: the kernel answers the same for a device that has none.
    operations.fsync = { request, _, _ in fuse_reply_err(request, EINVAL) }
    operations.ioctl = { request, _, _, _, _, _, _, _ in fuse_reply_err(request, ENOTTY) }
    return operations
  }
}
