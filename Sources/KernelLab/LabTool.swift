import CLinux
import CharacterDeviceServer
import Glibc
import SystemPackage
import UserCode

/// A program that a lab's worker runs: `make`, `patch`, the compiler or `cp`.
///
/// The program and all that it starts can read the system's programs and `readable`, and write to `writable` alone. They have no network.
/// The whole of them ends with the program.
struct LabTool {
  var path: String
  var arguments: [String]
  var directory: String
  /// The files and directories of the user and the cache that the program can read.
  var readable: [String] = []
  /// The directories that the program can change. The first one has the temporary files.
  var writable: [String] = []
  /// Other variables of the environment.
  var environment: [String] = []
  /// Whether the program needs the network and the files of the system's package manager.
  var isTrusted = false
  var standardInput: FileDescriptor?
  var seconds: UInt64 = 600
  /// The most bytes in `writable`.
  var mostBytes = 8 << 30

  struct Result {
    /// The status as waitpid(2) gives it.
    var status: Int32
    /// The lines of the program, without the lines of steps. Lines in the middle are left out if there are many.
    var lines: [String]
    /// The reason for which the worker has ended the program; nil if it ended by itself.
    var stopped: String?

    var succeeded: Bool { status == 0 && stopped == nil }
  }

  private static let mostLines = 400
  private static let longestLine = 4096
  /// The time between two looks at the size of the files, in nanoseconds.
  private static let pause: UInt64 = 3_000_000_000

  /// Runs the program, and waits for its end.
  ///
  /// - Parameters:
  ///   - worker: The process that runs the program. If the process of the command ends, the program is ended, too.
  ///   - step: Gets each line of `make` that names a file, such as `  CC      kernel/fork.o`.
  func run(for worker: LabWorker, step: (String) -> Void = { _ in }) throws(LabFailure) -> Result {
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else { throw LabFailure("cannot make a pipe: \(Errno.current)") }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    defer { close(ends[0]) }
    let process: pid_t
    do throws(Errno) {
      defer { close(ends[1]) }
      process = try program(worker, FileDescriptor(rawValue: ends[1])).start()
    } catch {
      throw LabFailure("cannot start \(path): \(error): end other processes")
    }
    var lines: [String] = []
    var left = 0
    func take(_ line: String) {
      if Self.isStep(line) {
        step(line)
      } else if lines.count < Self.mostLines {
        lines.append(line)
      } else {
        // The first and the last lines tell the most.
        lines.remove(at: Self.mostLines / 2)
        lines.append(line)
        left += 1
      }
    }
    let stopped = read(ends[0], worker, take)
    if left > 0 { lines.insert("(\(left) more lines)", at: Self.mostLines / 2) }
    if stopped != nil { kill(-process, SIGKILL) }
    var info = siginfo_t()
    while waitid(P_PID, id_t(process), &info, Int32(WEXITED | WNOWAIT)) != 0 && errno == EINTR {}
    kill(-process, SIGKILL)
    let status = waitForEnd(of: process)
    // This process gets all processes that the program has left.
    CodeBuilder.endChildren()
    if stopped == LabWorker.parentEnded { worker.finish() }
    return Result(status: status, lines: lines, stopped: stopped)
  }

  /// Runs the program, and throws if it fails.
  func run(for worker: LabWorker, orFailWith text: String) throws(LabFailure) {
    let result = try run(for: worker)
    guard result.succeeded else {
      throw LabFailure(
        result.stopped.map { "\(text): \($0)" } ?? text, after: Array(result.lines.suffix(20)))
    }
  }

  /// A line of make's that says what is made of which file: two spaces, a word in capitals, spaces, and the file.
  static func isStep(_ line: String) -> Bool {
    let words = line.split(separator: " ")
    return line.hasPrefix("  ") && !line.hasPrefix("   ") && words.count >= 2
      && words[0].utf8.allSatisfy { (65...90).contains($0) || (48...57).contains($0) }
  }

  private func program(_ worker: LabWorker, _ output: FileDescriptor) -> ChildProgram {
    let temporary = writable.first ?? "/tmp"
    let limits: [(resource: __rlimit_resource, value: UInt)] = [
      (RLIMIT_CPU, 600), (RLIMIT_AS, 4 << 30), (RLIMIT_FSIZE, 1 << 30), (RLIMIT_CORE, 0),
      (RLIMIT_NOFILE, 1024),
    ]
    return ChildProgram(
      path: path, arguments: arguments,
      environment: [
        "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL=C", "TMPDIR=\(temporary)",
        "HOME=\(temporary)", "SOURCE_DATE_EPOCH=0",
      ] + environment,
      directory: directory,
      // The lock is held until the last process has ended, even if the worker was killed.
      descriptors: [standardInput, output, output, worker.lock],
      limits: isTrusted ? [] : limits,
      rules: isTrusted
        ? nil
        : Sandbox.ProgramRules(
          .tool,
          Toolchain.system + readable.map { .init($0) } + writable.map { .init($0, writable: true) }
            + [.init("/dev/null", writable: true)]))
  }

  /// Reads lines until the end of the output. Returns the reason to end the program, if there is one.
  private func read(_ output: Int32, _ worker: LabWorker, _ take: (String) -> Void) -> String? {
    let start = clinux_monotonic_nanoseconds()
    var looked = start
    var line: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      var entries = [
        pollfd(fd: output, events: Int16(POLLIN), revents: 0),
        pollfd(fd: worker.output.rawValue, events: 0, revents: 0),
      ]
      _ = poll(&entries, 2, 1000)
      let now = clinux_monotonic_nanoseconds()
      if entries[1].revents != 0 { return LabWorker.parentEnded }
      if now > start + seconds * 1_000_000_000 {
        return "it took more than \(seconds) s"
      }
      if !isTrusted, now > looked + Self.pause {
        looked = now
        if writable.reduce(0, { $0 + DiskUse.bytes(of: $1) }) > mostBytes {
          return "it made more than \(mostBytes >> 20) MiB of files"
        }
      }
      guard entries[0].revents != 0 else { continue }
      let count = Glibc.read(output, &buffer, buffer.count)
      guard count > 0 else {
        if count < 0 && errno == EINTR { continue }
        if !line.isEmpty { take(String(decoding: line, as: UTF8.self)) }
        return nil
      }
      for byte in buffer[..<count] {
        if byte == UInt8(ascii: "\n") {
          take(String(decoding: line, as: UTF8.self))
          line = []
        } else if line.count < Self.longestLine {
          line.append(byte)
        }
      }
    }
  }
}
