import CLinux
import Glibc
import SystemPackage

/// A process that takes away what a server leaves behind, whatever way the server ends.
///
/// It is a child of the server, made while the server is still root, and does nothing until the server has gone: by
/// ``finish()``, by a crash, by kill -9. So the server can give up root (``Sandbox``), and its node goes all the same. It reads
/// nothing of what the server writes, so there is nothing that a server could make it do but to clean up.
public final class Keeper {
  /// An event that the keeper tells of.
  public enum Event: Hashable, Sendable {
    /// Mounts have come or gone; see ``MountTable``.
    case mountsChanged
    /// It has ended before the server: somebody has killed it.
    case end
  }

  /// Readable when there is an ``Event``.
  public let descriptor: FileDescriptor
  private let process: pid_t

  /// Starts the process. Call it when all that is to be cleaned up has been made, and while this process has one thread.
  ///
  /// - Parameters:
  ///   - name: The process's name, at most 15 bytes.
  ///   - kept: Descriptors that the keeper keeps open, too: locks of files, which go when it ends, and
  ///     ``NodeServer/removalDescriptors``. It closes all others.
  ///   - unmounts: Whether it has something to unmount.
  ///   - cleanUp: What it does when the server has gone.
  public init(
    name: String, keeping kept: [FileDescriptor], unmounts: Bool, cleanUp: () -> Void
  ) throws(Errno) {
    var ends: [Int32] = [-1, -1]
    guard
      socketpair(
        AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0
    else { throw .current }
    process = clinux_fork()
    if process == 0 { Self.keep(name, ends[1], kept, unmounts, cleanUp) }
    let errno = Errno.current
    close(ends[1])
    guard process > 0 else {
      close(ends[0])
      throw errno
    }
    descriptor = FileDescriptor(rawValue: ends[0])
  }

  /// The last event, once ``descriptor`` is readable.
  public func readEvent() -> Event {
    var bytes = [UInt8](repeating: 0, count: 64)
    return read(descriptor.rawValue, &bytes, bytes.count) > 0 ? .mountsChanged : .end
  }

  /// Lets the keeper clean up now, and waits until it has.
  public func finish() {
    try? descriptor.close()
    _ = waitForEnd(of: process)
  }

  private static func keep(
    _ name: String, _ server: Int32, _ kept: [FileDescriptor], _ unmounts: Bool,
    _ cleanUp: () -> Void
  ) -> Never {
    // In a session of its own, and deaf: a signal from a terminal or to the server's process group does not end it.
    setsid()
    var signals = sigset_t()
    sigfillset(&signals)
    sigprocmask(SIG_SETMASK, &signals, nil)
    clinux_set_name(name)

    let null = open("/dev/null", O_RDWR | O_CLOEXEC)
    if null >= 0 { for standard in STDIN_FILENO...STDERR_FILENO { dup2(null, standard) } }
    closeDescriptors(but: kept.map(\.rawValue) + [server])
    chdir("/")
    let mounts = try? MountTable()
    // Another user's keeper starts fusermount3, which is setuid.
    if geteuid() == 0 { Sandbox.enterKeeper(capabilities: capabilities(kept, unmounts)) }

    watchMounts(mounts, for: server)
    cleanUp()
    _exit(0)
  }

  /// The capabilities that cleaning up takes.
  private static func capabilities(_ kept: [FileDescriptor], _ unmounts: Bool) -> [Int32] {
    // Root's own rights are enough in a directory of root's.
    let isForeign = kept.contains { descriptor in
      guard let attributes = try? descriptor.attributes() else { return false }
      return attributes.st_mode & S_IFMT == S_IFDIR
        && (attributes.st_uid != 0 || attributes.st_mode & 0o300 != 0o300)
    }
    return (unmounts ? [CAP_SYS_ADMIN] : []) + (isForeign ? [CAP_DAC_OVERRIDE] : [])
  }

  /// Tells the server when mounts have come or gone, until it ends.
  private static func watchMounts(_ mounts: MountTable?, for server: Int32) {
    while true {
      var descriptors = [
        pollfd(fd: server, events: Int16(POLLIN), revents: 0),
        pollfd(fd: mounts?.descriptor.rawValue ?? -1, events: Int16(POLLPRI), revents: 0),
      ]
      guard poll(&descriptors, 2, -1) > 0 else { continue }
      var byte: UInt8 = 0
      // The server sends nothing, and the content of anything that it sends is ignored.
      if descriptors[0].revents != 0, read(server, &byte, 1) <= 0 { return }
      // One that the server has not read yet says the same.
      if descriptors[1].revents != 0 { send(server, &byte, 1, Int32(MSG_DONTWAIT)) }
    }
  }
}
