import CLinux
import CharacterDeviceServer
import Glibc
import SystemPackage

/// An archive whose files tar or unzip print, one after the other. Nothing of the archive is written to a directory, so that its links,
/// devices and absolute names have no effect.
struct SubmissionArchive {
  private let directory: BuildDirectory
  private let path: String
  private let isZip: Bool
  private let tool: String

  private static let largestList = 256 << 10
  private static let timeLimit: UInt64 = 20

  /// Copies the archive to a place where the tools can read it.
  init(_ bytes: [UInt8], isZip: Bool) throws(CodeFailure) {
    let name = isZip ? "unzip" : "tar"
    guard let tool = Toolchain.find(name) else {
      throw CodeFailure("there is no \(name) to unpack the archive: apt-get install \(name)")
    }
    self.tool = tool
    self.isZip = isZip
    directory = try BuildDirectory(
      in: BuilderConfiguration.temporaryDirectories, endsWithProcess: true)
    path = "\(directory.path)/archive/file"
    do throws(CodeFailure) {
      try directory.write([.init(name: "file", bytes: bytes)], to: "archive")
    } catch {
      directory.remove()
      throw error
    }
  }

  func remove() { directory.remove() }

  /// The names in the archive, without those that are absolute or go up, and without directories.
  func names() throws(CodeFailure) -> [String] {
    let output = try run(isZip ? ["-Z1", path] : ["-t", "-f", path], limit: Self.largestList)
    let names = output.split(separator: UInt8(ascii: "\n")).map {
      String(decoding: $0, as: UTF8.self)
    }
    return names.filter { name in
      let parts = name.split(separator: "/", omittingEmptySubsequences: false)
      return !name.hasPrefix("/")
        && !parts.dropFirst(parts.first == "." ? 1 : 0).contains {
          $0.isEmpty || $0.hasPrefix(".")
        }
    }
  }

  /// The text of a file; empty for a link or a device.
  func content(of name: String) throws(CodeFailure) -> [UInt8] {
    // unzip takes a name as a pattern.
    guard !isZip || !name.contains(where: { "*?[]".contains($0) }), !name.hasPrefix("-") else {
      throw CodeFailure(
        "the archive has the file '\(name)': give it a name without -, *, ?, [ and ]")
    }
    return try run(
      isZip ? ["-p", path, name] : ["-x", "-O", "-f", path, "--", name],
      limit: SubmissionFiles.largestFile)
  }

  /// The output of the tool.
  private func run(_ arguments: [String], limit: Int) throws(CodeFailure) -> [UInt8] {
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else {
      throw CodeFailure("cannot unpack the archive: \(Errno.current): close other programs")
    }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    defer { close(ends[0]) }
    let program = ChildProgram(
      path: tool, arguments: arguments, environment: Toolchain.environment,
      descriptors: [nil, FileDescriptor(rawValue: ends[1]), nil],
      limits: [
        (RLIMIT_CPU, UInt(Self.timeLimit)), (RLIMIT_AS, 1 << 30), (RLIMIT_FSIZE, 0),
        (RLIMIT_CORE, 0), (RLIMIT_NOFILE, 32),
      ],
      rules: Sandbox.ProgramRules(
        .tool, Toolchain.system + [.init(path), .init("/dev/null", writable: true)]))
    let process: pid_t
    do throws(Errno) {
      defer { close(ends[1]) }
      process = try program.start()
    } catch {
      throw CodeFailure("cannot unpack the archive: \(error): end other processes")
    }
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    let deadline = clinux_monotonic_nanoseconds() + Self.timeLimit * 1_000_000_000
    var isInBounds = true
    while isInBounds {
      var entry = pollfd(fd: ends[0], events: Int16(POLLIN), revents: 0)
      let ready = poll(&entry, 1, 1000)
      isInBounds = bytes.count <= limit && clinux_monotonic_nanoseconds() < deadline
      guard ready > 0 else { continue }
      let count = read(ends[0], &buffer, buffer.count)
      guard count > 0 else { break }
      bytes += buffer[..<count]
    }
    if !isInBounds { kill(-process, SIGKILL) }
    // A compressed tar has a second process in the group. Until the first one is reaped, no other group gets its number.
    var info = siginfo_t()
    while waitid(P_PID, id_t(process), &info, Int32(WEXITED | WNOWAIT)) != 0 && errno == EINTR {}
    kill(-process, SIGKILL)
    let status = waitForEnd(of: process)
    guard isInBounds else {
      throw CodeFailure(
        "the archive is too large, or takes too long to unpack: at most \(SubmissionFiles.largestFile >> 20) MiB a file and \(Self.largestList >> 10) KiB of names are taken"
      )
    }
    guard status == 0 || (isZip && status >> 8 & 0xff == 1) else {
      throw CodeFailure(
        "the archive cannot be unpacked: \(isZip ? "unzip" : "tar") ends with status \(status >> 8 & 0xff): make the archive again"
      )
    }
    return bytes
  }
}
