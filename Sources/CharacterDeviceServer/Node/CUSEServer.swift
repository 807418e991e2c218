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
  ///   - number: The device's major and minor number; nil for those that the kernel chooses.
  ///   - ioctl: The way that the kernel handles `ioctl(2)`.
  ///   - application: The program that serves it.
  ///   - device: The device.
  /// - Throws: ``NodeError``; nothing is left behind then.
  public init(
    name: String, access: NodeAccess = NodeAccess(), number: (major: UInt32, minor: UInt32)? = nil,
    ioctl: IoctlMode = .restricted, application: Application, device: some CharacterDevice
  ) throws(NodeError) {
    path = FilePath("/dev").appending(name)
    try LibFuse.checkVersion()
    try checkNodeIsFree(path, application.advice)
    let control = try Self.openControl(application.advice)
    let context = DeviceContext(device, hasOffsets: false)
    var operations = Self.operations
    let created = "DEVNAME=\(name)".withCString { argument in
      var arguments: UnsafePointer<CChar>? = argument
      return withUnsafeMutablePointer(to: &arguments) { vector in
        var info = cuse_info()
        info.dev_info_argc = 1
        info.dev_info_argv = vector
        info.dev_major = number?.major ?? 0
        info.dev_minor = number?.minor ?? 0
        info.flags = ioctl == .unrestricted ? UInt32(CUSE_UNRESTRICTED_IOCTL) : 0
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
      try apply(access, application.advice)
    } catch {
      session.disconnect()
      throw error
    }
  }

  public func process() throws(Errno) -> ProcessResult { try session.process() }

  public func disconnect() { session.disconnect() }

  private static let control: FilePath = "/dev/cuse"

  private static func openControl(
    _ advice: Application.Advice
  ) throws(NodeError) -> FileDescriptor {
    let descriptor = Glibc.open(control.string, O_RDWR | O_CLOEXEC)
    guard descriptor >= 0 else {
      let errno = Errno.current
      switch errno {
      case .noSuchFileOrDirectory, .operationNotSupportedByDevice, .noSuchAddressOrDevice:
        throw NodeError(
          .unsupported, "\(control) is missing",
          advice: advice.cuseIsMissing)
      default:
        throw NodeError(errno, doing: "open", at: control, advice: advice.cuseIsRefused)
      }
    }
    return FileDescriptor(rawValue: descriptor)
  }

  /// Gives the node its mode and owner. The kernel has made it by now: device first, answer to INIT second.
  private func apply(
    _ access: NodeAccess, _ advice: Application.Advice
  ) throws(NodeError) {
    guard let kind = try? fileType(path), kind == S_IFCHR else {
      throw NodeError(
        .unsupported, "the kernel made the device, but no node \(path)",
        advice: advice.nodeDoesNotAppear)
    }
    let owner = access.owner ?? uid_t.max
    let group = access.group ?? gid_t.max
    guard chmod(path.string, access.mode.rawValue) == 0, chown(path.string, owner, group) == 0
    else {
      throw NodeError(
        .current, doing: "set mode and owner of", at: path, advice: "run as root")
    }
  }

  static var operations: cuse_lowlevel_ops {
    var operations = cuse_lowlevel_ops()
    operations.init_done = { userData in
      guard let userData else { return }
      DeviceContext.of(userData: userData).isInitialized = true
    }
    operations.open = { request, info in DeviceContext.of(request).open(request, info) }
    operations.release = { request, info in DeviceContext.of(request).release(request, info) }
    operations.read = { request, count, offset, info in
      DeviceContext.with(request) { $0.read(request, count, at: offset, info) }
    }
    operations.write = { request, bytes, count, offset, info in
      DeviceContext.with(request) { $0.write(request, bytes, count, at: offset, info) }
    }
    operations.ioctl = { request, command, argument, info, flags, input, inputCount, outputCount in
      DeviceContext.of(request).ioctl(
        request, UInt32(bitPattern: command), argument, info, flags, input, inputCount, outputCount)
    }
    operations.poll = { request, info, handle in
      DeviceContext.of(request).poll(request, info, handle)
    }
    // The kernel's module has no flush and no fsync today: it answers close(2) and fsync(2) by itself.
    operations.flush = { request, info in DeviceContext.of(request).flush(request, info) }
    operations.fsync = { request, dataOnly, info in
      DeviceContext.of(request).fsync(request, dataOnly != 0, info)
    }
    return operations
  }
}

/// The way that the kernel handles `ioctl(2)` on a CUSE node.
public enum IoctlMode: Hashable, Sendable {
  /// The size and direction of a command's argument come from the command's encoding.
  case restricted
  /// The device says which areas of the client's memory a command reads and writes. It can reach all of that memory.
  case unrestricted
}
