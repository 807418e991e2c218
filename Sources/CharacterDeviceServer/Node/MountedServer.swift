import CFuse
import SystemPackage

/// A server whose node is a mount of FUSE: ``FUSEServer`` and ``FileTreeServer``.
public class MountedServer: NodeServer {
  public final let path: FilePath
  final let mount: FuseMount

  /// Mounts a file system; when the call returns, it answers.
  ///
  /// - Throws: ``NodeError``; nothing is left behind then.
  init(
    over kind: MountPoint.Kind, _ path: FilePath, of application: Application,
    operations: fuse_lowlevel_ops, context: FuseSession.Context
  ) throws(NodeError) {
    self.path = path
    mount = try FuseMount(
      over: kind, path, of: application, operations: operations, context: context)
  }

  /// Removes the mount and the file that a killed server left at a path. The mount of a server that runs stays.
  ///
  /// - Throws: ``NodeError`` if the caller may not unmount it.
  public static func removeStale(
    at path: FilePath, of application: Application
  ) throws(NodeError) {
    try MountPoint.removeStale(at: path, of: application)
  }

  public final var descriptor: FileDescriptor { mount.session.descriptor }

  public final func process() throws(Errno) -> ProcessResult { try mount.session.process() }

  public func disconnect() { mount.session.disconnect() }

  public final func remove() { mount.remove() }

  public final var removalDescriptors: [FileDescriptor] { [mount.directory.descriptor] }

  public final func closeRemovalDescriptors() { mount.directory.close() }
}
