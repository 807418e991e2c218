import CLinux
import Glibc
import SystemPackage

/// A process that removes the server's node when the server has ended in any way.
///
/// The keeper is a child of the server, and starts while the server is still root. It does nothing until the server has ended: by
/// ``finish()``, by a crash, or by kill -9. So the server can give up root (``Sandbox``), and its node is removed nevertheless. The keeper
/// ignores all that the server writes, so a server can make it do nothing else.
public final class Keeper {
  /// An event of which the keeper tells the server.
  public enum Event: Hashable, Sendable {
    /// Mounts were added or removed; see ``MountTable``.
    case mountsChanged
    /// The keeper has ended before the server: a signal has killed the keeper.
    case end
  }

  /// A descriptor that is readable when there is an ``Event``.
  public let descriptor: FileDescriptor
  private let process: pid_t

  /// Starts the keeper. Call this after the nodes are made, and while this process has one thread.
  ///
  /// - Parameters:
  ///   - name: The name of the keeper's process, at most 15 bytes.
  ///   - kept: Descriptors that the keeper keeps open: ``NodeServer/removalDescriptors``, and locks of files, which the keeper's end
  ///     releases. The keeper closes all others.
  ///   - unmounts: Whether the keeper has to unmount a file system.
  ///   - cleanUp: The function that the keeper calls when the server has ended.
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

  /// Reads the last event. Call this when ``descriptor`` is readable.
  public func readEvent() -> Event {
    var bytes = [UInt8](repeating: 0, count: 64)
    return read(descriptor.rawValue, &bytes, bytes.count) > 0 ? .mountsChanged : .end
  }

  /// Lets the keeper clean up now, and waits for its end.
  public func finish() {
    try? descriptor.close()
    _ = waitForEnd(of: process)
  }

  private static func keep(
    _ name: String, _ server: Int32, _ kept: [FileDescriptor], _ unmounts: Bool,
    _ cleanUp: () -> Void
  ) -> Never {
    // The keeper has a session of its own and blocks all signals, so that a signal from a terminal or to the server's process group does
    // not end it.
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
    // The keeper of another user needs no capabilities: it starts fusermount3, which is setuid.
    if geteuid() == 0 { Sandbox.enterKeeper(capabilities: capabilities(kept, unmounts)) }

    watchMounts(mounts, for: server)
    cleanUp()
    _exit(0)
  }

  /// The capabilities that the keeper needs to clean up.
  private static func capabilities(_ kept: [FileDescriptor], _ unmounts: Bool) -> [Int32] {
    // In a directory of root's, the rights of the owner are enough.
    let isForeign = kept.contains { descriptor in
      guard let attributes = try? descriptor.attributes() else { return false }
      return attributes.st_mode & S_IFMT == S_IFDIR
        && (attributes.st_uid != 0 || attributes.st_mode & 0o300 != 0o300)
    }
    return (unmounts ? [CAP_SYS_ADMIN] : []) + (isForeign ? [CAP_DAC_OVERRIDE] : [])
  }

  /// Tells the server when mounts were added or removed, until the server ends.
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
      // If the server has not read the last byte yet, another one is not needed.
      if descriptors[1].revents != 0 { send(server, &byte, 1, Int32(MSG_DONTWAIT)) }
    }
  }
}
