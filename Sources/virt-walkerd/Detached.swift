import ArgumentParser
import CLinux
import CharacterDeviceServer
import Glibc
import SystemPackage

/// `--detach`: the same program once more, in a session of its own, and this one waits until it is ready.
///
/// A Swift process cannot fork and go on; it can start itself anew.
enum Detached {
  /// Returns when the child is ready; ends with the child's own status when it is not.
  static func run() throws {
    let pipe = try FileDescriptor.pipe()
    // The child inherits the other end, to write to when the node answers.
    _ = fcntl(pipe.readEnd.rawValue, F_SETFD, FD_CLOEXEC)
    let child = try spawn(ready: pipe.writeEnd)
    try pipe.writeEnd.close()
    var byte: UInt8 = 0
    let count = try withUnsafeMutableBytes(of: &byte) { try pipe.readEnd.read(into: $0) }
    if count == 1 { return }
    let status = waitForEnd(of: child)
    // Its own words stand on standard error already.
    let isExit = status & 0x7f == 0
    throw isExit ? ExitCode(status >> 8 & 0xff) : ExitCode.systemError
  }

  private static func spawn(ready: FileDescriptor) throws -> pid_t {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    posix_spawnattr_setflags(&attributes, CLINUX_POSIX_SPAWN_SETSID)

    let arguments =
      CommandLine.arguments.filter { $0 != "--detach" }
      + ["--ready-descriptor", String(ready.rawValue)]
    var child = pid_t()
    let result = withArgumentVector(arguments) {
      posix_spawn(&child, "/proc/self/exe", &actions, &attributes, $0, environ)
    }
    guard result == 0 else {
      throw Failure(
        "cannot start the daemon in the background: \(Errno(rawValue: result)): run it without --detach",
        status: .systemError)
    }
    return child
  }

  /// The child's way out of the terminal and of the directory that it was started in.
  struct Exit {
    private let ready: FileDescriptor
    private let null: FileDescriptor

    init(ready: Int32) throws {
      self.ready = FileDescriptor(rawValue: ready)
      null = try FileDescriptor.open("/dev/null", .readWrite, options: [.closeOnExec])
      // Started as /proc/self/exe, it would be "exe" to ps(1), top(1) and the kernel's log.
      clinux_set_name("virt-walkerd")
      chdir("/")
    }

    /// Goes, and tells the one who waits.
    func take(keepingStandardError: Bool) throws {
      dup2(null.rawValue, STDOUT_FILENO)
      if !keepingStandardError { dup2(null.rawValue, STDERR_FILENO) }
      try null.close()
      _ = try ready.closeAfter { try ready.writeAll("\n".utf8) }
    }
  }
}
