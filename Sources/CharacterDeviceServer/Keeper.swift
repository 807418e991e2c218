import CLinux
import Glibc
import SystemPackage

/// A process that takes away what a server leaves behind, whatever way the server ends.
///
/// It is a child of the server, made while the server is still root, and does nothing until the server has gone: by
/// ``finish()``, by a crash, by kill -9. So the server can give up root (``Sandbox``), and its node goes all the same. It reads
/// nothing of what the server writes, so there is nothing that a server could make it do but to clean up.
public final class Keeper {
  /// What the keeper tells.
  public enum News: Hashable, Sendable {
    /// Mounts have come or gone; see ``MountTable``.
    case mountsChanged
    /// It has ended before the server: somebody has killed it.
    case end
  }

  /// Readable when there are ``News``.
  public let descriptor: FileDescriptor
  private let process: pid_t

  /// Starts the process. Call it when all that is to be cleaned up has been made, and while this process has one thread.
  ///
  /// - Parameters:
  ///   - kept: Descriptors that the keeper keeps open, too: locks of files, which go when it ends. It closes all others.
  ///   - cleanUp: What it does when the server has gone.
  public init(keeping kept: [FileDescriptor], cleanUp: () -> Void) throws(Errno) {
    var ends: [Int32] = [-1, -1]
    guard
      socketpair(
        AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0
    else { throw .current }
    process = clinux_fork()
    if process == 0 { Self.keep(ends[1], kept, cleanUp) }
    let errno = Errno.current
    close(ends[1])
    guard process > 0 else {
      close(ends[0])
      throw errno
    }
    descriptor = FileDescriptor(rawValue: ends[0])
  }

  /// What it has told last, once ``descriptor`` is readable.
  public func news() -> News {
    var bytes = [UInt8](repeating: 0, count: 64)
    return read(descriptor.rawValue, &bytes, bytes.count) > 0 ? .mountsChanged : .end
  }

  /// Lets the keeper clean up now, and waits until it has.
  public func finish() {
    try? descriptor.close()
    _ = waitForEnd(of: process)
  }

  private static func keep(
    _ server: Int32, _ kept: [FileDescriptor], _ cleanUp: () -> Void
  ) -> Never {
    // Of its own session, and deaf: what ends the server, from a terminal or by its process group, does not end it.
    setsid()
    var signals = sigset_t()
    sigfillset(&signals)
    sigprocmask(SIG_SETMASK, &signals, nil)
    clinux_set_name("walkerd-keeper")

    let null = open("/dev/null", O_RDWR | O_CLOEXEC)
    if null >= 0 { for standard in STDIN_FILENO...STDERR_FILENO { dup2(null, standard) } }
    closeAll(but: kept.map(\.rawValue) + [server])
    chdir("/")
    if geteuid() == 0 {
      // To unmount, and to remove a file from anybody's directory. It starts no program.
      Sandbox.keepCapabilities([CAP_SYS_ADMIN, CAP_DAC_OVERRIDE, CAP_FOWNER])
      _ = clinux_prctl(PR_SET_NO_NEW_PRIVS, 1)
    }

    watchMounts(for: server)
    cleanUp()
    _exit(0)
  }

  /// Tells the server when mounts have come or gone, until it ends.
  private static func watchMounts(for server: Int32) {
    let mounts = try? MountTable()
    while true {
      var descriptors = [
        pollfd(fd: server, events: Int16(POLLIN), revents: 0),
        pollfd(fd: mounts?.descriptor.rawValue ?? -1, events: Int16(POLLPRI), revents: 0),
      ]
      guard poll(&descriptors, 2, -1) > 0 else { continue }
      var byte: UInt8 = 0
      // It says nothing, and what it says all the same means nothing.
      if descriptors[0].revents != 0, read(server, &byte, 1) <= 0 { return }
      // One that the server has not read yet says the same.
      if descriptors[1].revents != 0 { send(server, &byte, 1, Int32(MSG_DONTWAIT)) }
    }
  }

  /// Closes all descriptors but the standard ones and `kept`.
  private static func closeAll(but kept: [Int32]) {
    var first = UInt32(STDERR_FILENO + 1)
    for descriptor in kept.sorted() {
      let next = UInt32(descriptor)
      if next > first { clinux_close_range(first, next - 1) }
      first = next + 1
    }
    clinux_close_range(first, .max)
  }
}
