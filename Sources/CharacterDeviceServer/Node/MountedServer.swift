import SystemPackage

/// A server whose node is a mount of FUSE: ``FUSEServer`` and ``FileTreeServer``.
public class MountedServer: NodeServer {
  public final let path: FilePath
  final let mount: FuseMount

  init(_ path: FilePath, _ mount: FuseMount) {
    self.path = path
    self.mount = mount
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
