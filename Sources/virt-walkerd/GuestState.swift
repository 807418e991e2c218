import CLinux
import CharacterDeviceServer
import Glibc
import SystemPackage

/// The state of the guest behind a node, from the file `stats` of its inspection tree.
///
/// The server of the tree may be under the control of an attacker, so its answer is only compared with known lines. A
/// server that never answers would block this process in the kernel, where no signal ends the wait. So a child process
/// reads the file, and this process does not wait for a blocked child.
enum GuestState {
  case running
  /// The guest has stopped: each read and write of the node fails.
  case stopped
  /// The tree does not show the state, or this user may not read it.
  case unknown
  /// The server of the tree did not answer in time.
  case silent

  /// Reads the state of all trees at the same time, and waits at most `milliseconds` for the answers.
  static func ask(_ trees: [FilePath], within milliseconds: Int) -> [FilePath: GuestState] {
    var questions = trees.map { ($0, Question($0)) }
    let deadline = clinux_monotonic_nanoseconds() + UInt64(milliseconds) * 1_000_000
    return Dictionary(
      questions.indices.map {
        (questions[$0].0, questions[$0].1?.answer(until: deadline) ?? .unknown)
      }
    ) { first, _ in first }
  }

  /// The last mistake of the user's code behind a node, from the file `code` of its tree; nil if there is none.
  ///
  /// The text is the server's: it is printed without control characters, and may be wrong.
  static func lastMistake(_ tree: FilePath, within milliseconds: Int) -> String? {
    guard var question = Question(tree, Question.readMistake) else { return nil }
    let deadline = clinux_monotonic_nanoseconds() + UInt64(milliseconds) * 1_000_000
    let text = question.bytes(until: deadline).map { String(decoding: $0, as: UTF8.self) }
    return text.flatMap { $0.isEmpty ? nil : $0 }
  }

  /// The two forms of a line of `stats`.
  private static let line = (stopped: "guest_stopped 1", running: "guest_stopped 0")

  /// A child that reads the file.
  private struct Question {
    private let child: pid_t
    /// The pipe to which the child writes the state as one byte.
    private let result: Int32

    init?(_ tree: FilePath, _ read: (FilePath, Int32) -> Never = Question.readState) {
      var ends: [Int32] = [-1, -1]
      guard pipe(&ends) == 0 else { return nil }
      child = clinux_fork()
      if child == 0 { read(tree, ends[1]) }
      close(ends[1])
      result = ends[0]
      guard child > 0 else {
        close(ends[0])
        return nil
      }
    }

    /// Reads the state in the child.
    static func readState(_ tree: FilePath, _ output: Int32) -> Never {
      let lines = read(tree.appending("stats"), output).split(separator: UInt8(ascii: "\n"))
      var answer: UInt8 =
        lines.contains { $0.elementsEqual(line.stopped.utf8) }
        ? 1 : lines.contains { $0.elementsEqual(line.running.utf8) } ? 0 : 2
      _ = write(output, &answer, 1)
      _exit(0)
    }

    /// Reads the last mistake of the user's code in the child.
    static func readMistake(_ tree: FilePath, _ output: Int32) -> Never {
      let lines = read(tree.appending("code"), output).split(separator: UInt8(ascii: "\n"))
      let last = lines.first { $0.starts(with: "last: ".utf8) }?.dropFirst("last: ".utf8.count)
      let bytes = Array((last ?? []).prefix(512))
      _ = write(output, bytes, bytes.count)
      _exit(0)
    }

    /// Reads the beginning of a file in the child.
    private static func read(_ path: FilePath, _ output: Int32) -> [UInt8] {
      // The child closes the inherited output. Otherwise a reader of this process's output would also wait for the
      // child to end.
      if output > 0 { _ = clinux_close_range(0, UInt32(output) - 1) }
      _ = clinux_close_range(UInt32(output) + 1, .max)
      let file = open(path.string, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
      var bytes = [UInt8](repeating: 0, count: 4096)
      let count = max(0, Glibc.read(file, &bytes, bytes.count))
      return Array(bytes[..<count])
    }

    mutating func answer(until deadline: UInt64) -> GuestState {
      guard let answer = bytes(until: deadline)?.first else { return .silent }
      return answer == 1 ? .stopped : answer == 0 ? .running : .unknown
    }

    /// The answer that the child has written; nil if the child has not written in time.
    mutating func bytes(until deadline: UInt64) -> [UInt8]? {
      defer {
        close(result)
        kill(child, SIGKILL)
        // This call does not wait: the kernel may be unable to end the child now.
        waitpid(child, nil, WNOHANG)
      }
      let now = clinux_monotonic_nanoseconds()
      var entry = pollfd(fd: result, events: Int16(POLLIN), revents: 0)
      let rest = deadline > now ? Int32((deadline - now) / 1_000_000) : 0
      guard poll(&entry, 1, rest) == 1 else { return nil }
      var bytes = [UInt8](repeating: 0, count: 512)
      let count = Glibc.read(result, &bytes, bytes.count)
      return count < 0 ? nil : Array(bytes[..<count])
    }
  }
}

extension GuestState {
  /// The line that `status` prints below the line of the node; nil if the guest runs or if its state is unknown.
  func note(node: FilePath, tree: FilePath) -> String? {
    switch self {
    case .running, .unknown: nil
    case .stopped:
      "  the guest has stopped: each read and write of \(node) fails with EIO. \(tree)/walk says why; to boot the machine anew: echo 1 > \(tree)/reset"
    case .silent: "  \(tree) does not answer. To end its server: \(node.stopCommand)"
    }
  }
}
