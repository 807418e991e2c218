import CLinux
import CharacterDeviceServer
import Glibc
import SystemPackage
import UserCode

/// The process that builds a lab: an ordinary user's process, which starts all tools, and ends them with itself.
final class LabWorker {
  /// The pipe to the process that wants the lab.
  let output: FileDescriptor
  /// The lock of the present tree. Its tools have it, too.
  private(set) var lock: FileDescriptor?

  /// The reason to end a tool: the process that wants the lab is gone.
  static let parentEnded = "the command has ended"

  /// A part of what a worker tells. A text ends with a zero, and the kind is its first byte.
  enum Kind: UInt8 {
    case progress = 80  // P
    case line = 76  // L
    case failure = 70  // F
    case failureOfCode = 67  // C
    case result = 82  // R
  }

  init(_ output: FileDescriptor) { self.output = output }

  /// Starts a process that does some work as the user `user`, and takes what it tells.
  ///
  /// - Parameters:
  ///   - take: Gets the progress and the results.
  ///   - work: Runs in the new process. If root starts it, it can read all files until it gives up its capabilities.
  static func run(
    as user: Sandbox.User?, take: (Kind, String) -> Void,
    work: (LabWorker) throws(LabFailure) -> Void
  ) throws(LabFailure) {
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else { throw LabFailure("cannot make a pipe: \(Errno.current)") }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    let process = clinux_fork()
    if process == 0 {
      close(ends[0])
      LabWorker(FileDescriptor(rawValue: ends[1])).begin(as: user, work)
    }
    close(ends[1])
    guard process > 0 else {
      close(ends[0])
      throw LabFailure("cannot start a process: \(Errno.current): end other processes")
    }
    var lines: [String] = []
    var failure: String?
    var isOfCode = false
    var record: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = read(ends[0], &buffer, buffer.count)
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { break }
      for byte in buffer[..<count] {
        guard byte == 0 else {
          record.append(byte)
          continue
        }
        let text = String(decoding: record.dropFirst(), as: UTF8.self)
        switch record.first.flatMap(Kind.init) {
        case .line: lines.append(text)
        case .failure: failure = text
        case .failureOfCode:
          failure = text
          isOfCode = true
        case let kind?: take(kind, text)
        case nil: break
        }
        record = []
      }
    }
    close(ends[0])
    let status = waitForEnd(of: process)
    if let failure { throw LabFailure(failure, after: lines, isOfCode: isOfCode) }
    guard status == 0 else {
      throw LabFailure(
        "the process that builds the lab was ended (status \(status)): start the command again; it goes on where it was"
      )
    }
  }

  private func begin(
    as user: Sandbox.User?, _ work: (LabWorker) throws(LabFailure) -> Void
  ) -> Never {
    // A signal from a terminal ends the command, and the end of the command ends this process: a tool is never left alone.
    setsid()
    var signals = sigset_t()
    sigfillset(&signals)
    sigprocmask(SIG_SETMASK, &signals, nil)
    signal(SIGPIPE, SIG_IGN)
    clinux_set_name("walkerd-lab")
    _ = clinux_prctl(PR_SET_CHILD_SUBREAPER, 1)
    let null = open("/dev/null", O_RDWR | O_CLOEXEC)
    if null >= 0 { for standard in STDIN_FILENO...STDERR_FILENO { dup2(null, standard) } }
    closeDescriptors(but: [output.rawValue])
    Sandbox.enterHelper(as: user, keeping: [CAP_DAC_READ_SEARCH])
    umask(0o077)
    do throws(LabFailure) {
      try work(self)
    } catch {
      for line in error.lines { tell(.line, line) }
      tell(error.isOfCode ? .failureOfCode : .failure, error.description)
      finish(1)
    }
    finish()
  }

  /// Ends the process and all that it has started.
  func finish(_ status: Int32 = 0) -> Never {
    CodeBuilder.endChildren()
    _exit(status)
  }

  func tell(_ kind: Kind, _ text: String) {
    let bytes = [kind.rawValue] + text.utf8.filter { $0 != 0 } + [0]
    guard (try? output.writeAll(bytes)) != nil else { finish(1) }
  }

  func tell(_ progress: String) { tell(.progress, progress) }

  /// Takes the lock of a file, and waits for another build that has it.
  func takeLock(_ path: FilePath, of title: String) throws(LabFailure) {
    let file = open(path.string, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
    guard file >= 0 else {
      throw LabFailure(
        "cannot open \(path): \(Errno.current): make it writable for this user, or run virt-walkerd lab clean"
      )
    }
    var isTold = false
    while flock(file, LOCK_EX | LOCK_NB) != 0 {
      if !isTold { tell("waiting for another build of \(title)") }
      isTold = true
      var entry = pollfd(fd: output.rawValue, events: 0, revents: 0)
      if poll(&entry, 1, 200) > 0 { finish(1) }
    }
    lock = FileDescriptor(rawValue: file)
  }
}

/// A claim on directories of the cache: no build and no ``LabBuilder/clean(_:)`` removes them while the claim exists.
public final class LabClaim: Sendable {
  private let descriptors: [FileDescriptor]

  /// Claims directories by a shared lock; nil if one is gone.
  init?(_ directories: [FilePath]) {
    var opened: [FileDescriptor] = []
    for directory in directories {
      let file = open(directory.string, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)
      guard file >= 0, flock(file, LOCK_SH | LOCK_NB) == 0,
        access(directory.appending("complete").string, F_OK) == 0
      else {
        if file >= 0 { close(file) }
        for descriptor in opened { try? descriptor.close() }
        return nil
      }
      opened.append(FileDescriptor(rawValue: file))
    }
    descriptors = opened
  }

  deinit {
    for descriptor in descriptors { try? descriptor.close() }
  }

  /// Whether nobody claims a directory.
  static func isFree(_ directory: FilePath) -> Bool {
    let file = open(directory.string, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)
    guard file >= 0 else { return true }
    defer { close(file) }
    return flock(file, LOCK_EX | LOCK_NB) == 0
  }

  /// Removes a directory, if nobody claims it. Returns whether it is gone.
  static func removeUnclaimed(_ directory: FilePath) -> Bool {
    let file = open(directory.string, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)
    guard file >= 0 else {
      LabFiles.remove(directory)
      return true
    }
    defer { close(file) }
    guard flock(file, LOCK_EX | LOCK_NB) == 0 else { return false }
    // A claim that comes now finds no complete directory.
    LabFiles.remove(directory.appending("complete"))
    LabFiles.remove(directory)
    return true
  }
}
