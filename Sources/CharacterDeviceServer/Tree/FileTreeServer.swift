import CFuse
import CLinux
import Glibc
import SystemPackage

/// A server of a ``FileTree`` at a directory, through the kernel's FUSE.
public final class FileTreeServer: MountedServer {
  private let context: TreeContext

  /// A descriptor that becomes readable when ``proceed()`` has something to do.
  public var workDescriptor: FileDescriptor { context.timer.descriptor }

  /// Mounts the tree; when the call returns, its files answer.
  ///
  /// - Parameters:
  ///   - tree: A directory.
  ///   - path: The path of the mount. If there is no directory, the server makes one and removes it in the end. A directory that is
  ///     there has to be empty.
  ///   - access: The users that may use the tree. The mode is that of directories. A file has the bits of the mode that fit its
  ///     kind: no bits for execution, and no bits for reading or writing if the file cannot be read or written.
  ///   - application: The program that serves the tree.
  /// - Throws: ``NodeError``; nothing is left behind then.
  public init(
    _ tree: FileTree, at path: FilePath,
    access: NodeAccess = NodeAccess(mode: .ownerReadWriteExecute),
    application: Application
  ) throws(NodeError) {
    do throws(Errno) {
      context = try TreeContext(tree, access)
    } catch {
      throw NodeError(
        .system, "cannot make a timer for \(path): \(error)",
        advice: "raise the limit of open files: ulimit -n")
    }
    super.init(
      path,
      try FuseMount(
        over: .directory, path, of: application, operations: Self.operations, context: context))
  }

  /// Does a part of the work that takes long: commands, and texts of a user that has used its share of the server's time.
  public func proceed() { context.proceed() }

  /// Gives the clients that wait at the end of a pipe the text that has come since.
  public func answerWaiting() { context.answerWaiting() }

  /// A client waits at the end of a pipe.
  public var hasWaiting: Bool { context.hasWaiting }

  /// Whether ``disconnect()`` was not called yet.
  public var isConnected: Bool { mount.session.isOpen }

  public override func disconnect() {
    context.endWaiting()
    super.disconnect()
  }

  private static var operations: fuse_lowlevel_ops {
    var operations = fuse_lowlevel_ops()
    operations.`init` = { userData, connection in
      guard let userData, let connection else { return }
      // The `>` of a shell is an open with O_TRUNC. With this flag, the truncation is a part of the open.
      connection.pointee.want |= UInt32(FUSE_CAP_ATOMIC_O_TRUNC)
      // The parts of a long write are small, so that the device does not wait for long.
      connection.pointee.max_write = min(connection.pointee.max_write, 1 << 16)
      TreeContext.of(userData: userData).isInitialized = true
    }
    operations.lookup = { request, parent, name in
      guard let name else { return }
      TreeContext.of(request).lookUp(String(cString: name), in: parent, request)
    }
    operations.getattr = { request, inode, info in
      TreeContext.of(request).answerAttributes(of: inode, info, request)
    }
    operations.setattr = { request, inode, _, fields, _ in
      TreeContext.of(request).setAttributes(of: inode, fields, request)
    }
    operations.open = { request, inode, info in
      guard let info else { return }
      TreeContext.of(request).open(inode, info, request)
    }
    operations.read = { request, inode, size, offset, info in
      guard let info else { return }
      TreeContext.of(request).read(info.pointee, size, at: Int(offset), request)
    }
    operations.write = { request, _, bytes, size, _, info in
      guard let info else { return }
      TreeContext.of(request).write(info.pointee, bytes, count: size, request)
    }
    operations.poll = { request, inode, info, handle in
      guard let info else { return }
      TreeContext.of(request).poll(info.pointee, handle, request)
    }
    operations.release = { request, _, info in
      guard let info else { return }
      TreeContext.of(request).release(info.pointee, request)
    }
    operations.readdir = { request, inode, size, offset, _ in
      TreeContext.of(request).list(inode, size, from: Int(offset), request)
    }
    // The tree does not change: no file is made, removed or renamed.
    operations.mknod = { request, _, _, _, _ in fuse_reply_err(request, EPERM) }
    operations.create = { request, _, _, _, _ in fuse_reply_err(request, EPERM) }
    operations.mkdir = { request, _, _, _ in fuse_reply_err(request, EPERM) }
    operations.unlink = { request, _, _ in fuse_reply_err(request, EPERM) }
    operations.rmdir = { request, _, _ in fuse_reply_err(request, EPERM) }
    operations.symlink = { request, _, _, _ in fuse_reply_err(request, EPERM) }
    operations.link = { request, _, _, _ in fuse_reply_err(request, EPERM) }
    operations.rename = { request, _, _, _, _, _ in fuse_reply_err(request, EPERM) }
    return operations
  }
}
