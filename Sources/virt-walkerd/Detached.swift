import ArgumentParser
import CLinux
import CharacterDeviceServer
import Glibc
import SystemPackage

/// `--detach`: starts the same program again in a session of its own, and waits until that child is ready.
///
/// A Swift process cannot continue after fork(2), so the child is a new process of the same program.
enum Detached {
  /// Returns when the child is ready. If the child ends before that, throws the exit status of the child.
  static func run() throws {
    let pipe = try FileDescriptor.pipe()
    // The child inherits the write end, and writes to it when the node answers.
    _ = fcntl(pipe.readEnd.rawValue, F_SETFD, FD_CLOEXEC)
    let child = try spawn(ready: pipe.writeEnd)
    try pipe.writeEnd.close()
    var byte: UInt8 = 0
    let count = try withUnsafeMutableBytes(of: &byte) { try pipe.readEnd.read(into: $0) }
    if count == 1 { return }
    let status = waitForEnd(of: child)
    // The child has already printed its message on standard error.
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

  /// The steps by which the child leaves the terminal and its working directory.
  struct Exit {
    private let ready: FileDescriptor
    private let null: FileDescriptor

    init(ready: Int32) throws {
      self.ready = FileDescriptor(rawValue: ready)
      null = try FileDescriptor.open("/dev/null", .readWrite, options: [.closeOnExec])
      // Without this call, ps(1), top(1) and the kernel's log would show "exe", because the child was started as
      // /proc/self/exe.
      clinux_set_name("virt-walkerd")
      chdir("/")
    }

    /// Leaves the terminal, and tells the waiting parent that the child is ready.
    func take(keepingStandardError: Bool) throws {
      dup2(null.rawValue, STDOUT_FILENO)
      if !keepingStandardError { dup2(null.rawValue, STDERR_FILENO) }
      try null.close()
      _ = try ready.closeAfter { try ready.writeAll("\n".utf8) }
    }
  }
}
