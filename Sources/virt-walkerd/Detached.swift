import ArgumentParser
import CLinux
import CharacterDeviceServer
import Glibc
import Scenarios
import SystemPackage

/// `--detach`: starts the same program again in a session of its own, and waits until that child is ready.
///
/// A Swift process cannot continue after fork(2), so the child is a new process of the same program.
enum Detached {
  /// Returns when the child is ready. If the child ends before that, throws the exit status of the child.
  ///
  /// - Parameter log: The file that the child writes its messages to; nil for standard error.
  static func run(log: FilePath?) throws {
    let start = log.map { end(of: $0) }
    let pipe = try FileDescriptor.pipe()
    // The child inherits the write end, and writes to it when the node answers.
    _ = fcntl(pipe.readEnd.rawValue, F_SETFD, FD_CLOEXEC)
    let child = try spawn(ready: pipe.writeEnd)
    try pipe.writeEnd.close()
    var byte: UInt8 = 0
    let count = try withUnsafeMutableBytes(of: &byte) { try pipe.readEnd.read(into: $0) }
    if count == 1 { return }
    let status = waitForEnd(of: child)
    // The child has printed its message, but the user does not see a file.
    if let log, let start { show(log, from: start) }
    let isExit = status & 0x7f == 0
    throw isExit ? ExitCode(status >> 8 & 0xff) : ExitCode.systemError
  }

  /// The most bytes of a log that are shown.
  private static let longestMessage = 1 << 16

  /// The size of a log; 0 if there is none yet.
  private static func end(of log: FilePath) -> Int64 {
    guard let file = try? DirectoryEntry(log, followsLink: true).openRegularFile(O_RDONLY) else {
      return 0
    }
    return (try? file.descriptor.seek(offset: 0, from: .end)) ?? 0
  }

  /// Prints the lines that were appended to a log.
  private static func show(_ log: FilePath, from start: Int64) {
    // A log that cannot be opened has no lines of the child: the child has told this on standard error.
    guard let file = try? DirectoryEntry(log, followsLink: true).openRegularFile(O_RDONLY) else {
      return
    }
    let bytes = try? [UInt8](unsafeUninitializedCapacity: longestMessage) { buffer, count in
      count = try file.descriptor.read(
        fromAbsoluteOffset: start, into: UnsafeMutableRawBufferPointer(buffer))
    }
    let text = String(decoding: bytes ?? [], as: UTF8.self).printable(allowing: ["\n", "\t"])
    _ = try? FileDescriptor.standardError.writeAll(text.utf8)
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
