import CLinux
import CharacterDeviceServer
import Glibc
import Scenarios
import SystemPackage
import UserCode

/// The options of a grading.
struct GradeSettings {
  var rubric: Rubric
  var linux: String?
  var isSanitized: Bool
  var requiredParts: Set<CodeKind>
  /// The longest time of one submission in seconds.
  var timeLimit: Int
}

/// The process that grades one submission. It is a child of the grader: it has a user of its own if the grader is root, and no network.
struct GradeWorker {
  let settings: GradeSettings
  /// The number of the job, from 0. Two submissions that are graded at the same time have different numbers.
  let job: Int
  /// Takes the results: ``GradeResult/Line``.
  let output: Int32

  /// The first user ID of the submissions: the IDs from here to 2147483647 are used by nothing else (systemd's UIDS-GIDS).
  static let firstUser: UInt32 = 1_879_048_192

  /// The memory of this process.
  private static let largestMemory: rlim_t = 8 << 30

  func run(_ files: SubmissionFiles) -> Never {
    do {
      try giveUpRoot()
      try grade(files)
    } catch let failure as CodeFailure {
      tell(.failure(failure.description))
    } catch {
      tell(.failure("\(error)"))
    }
    tell(.done)
    _exit(0)
  }

  private func giveUpRoot() throws {
    let parent = getppid()
    var signals = sigset_t()
    sigemptyset(&signals)
    sigprocmask(SIG_SETMASK, &signals, nil)
    closeDescriptors(but: [output])
    let null = open("/dev/null", O_RDWR | O_CLOEXEC)
    if null >= 0 { for standard in STDIN_FILENO...STDERR_FILENO { dup2(null, standard) } }
    setsid()
    if geteuid() == 0 {
      _ = clinux_leave_network()
      Sandbox.enterHelper(as: Self.user(job))
    }
    // A change of the user clears this.
    _ = clinux_prctl(PR_SET_PDEATHSIG, UInt(SIGKILL))
    guard getppid() == parent else { _exit(1) }
  }

  /// The user of a job; the usual user of the code if this user namespace, such as a container's, does not have it.
  private static func user(_ job: Int) -> Sandbox.User? {
    let id = firstUser + UInt32(job)
    var text = [UInt8](repeating: 0, count: 4096)
    let file = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { return UserOptions.usual }
    defer { close(file) }
    let count = max(0, read(file, &text, text.count))
    for line in String(decoding: text[..<count], as: UTF8.self).split(separator: "\n") {
      let numbers = line.split(separator: " ").compactMap { UInt64($0) }
      if numbers.count == 3, (numbers[0]..<numbers[0] + numbers[2]).contains(UInt64(id)) {
        return Sandbox.User(name: "\(id)", id: id, group: id)
      }
    }
    return UserOptions.usual
  }

  private func grade(_ files: SubmissionFiles) throws {
    var files = files
    try files.unpack()
    let submission = try Submission(files, linux: settings.linux)
    let sources = submission.sources
    tell(.code(sources.description + (sources.hookFunction.map { " (\($0))" } ?? "")))
    if settings.requiredParts.contains(.module), sources.module == nil {
      throw CodeFailure("the submission has no module: a C file with module_init")
    }
    if settings.requiredParts.contains(.hook), sources.hook == nil, sources.patch == nil {
      throw CodeFailure("the submission has no hook: a C file with io_mem_abort, or a diff")
    }
    let plain: CodeBuilderClient
    do throws(CodeFailure) {
      plain = try submission.build(isSanitized: false)
    } catch {
      // Code that does not compile gets no points. It was graded.
      let lines = error.description.split(separator: "\n").map(String.init)
      for line in lines { tell(.message(line)) }
      for line in settings.rubric.lines {
        tell(
          .check(
            line.check,
            CheckResult(
              verdict: .failed, tried: "compile", came: lines.first ?? "",
              expected: "the code compiles")))
      }
      return
    }
    for line in plain.messages.split(separator: "\n") { tell(.message(String(line))) }
    var sanitized: Result<CodeBuilderClient, CodeFailure>?
    if settings.isSanitized, settings.rubric.has(.sanitizers) {
      do throws(CodeFailure) {
        sanitized = .success(try submission.build(isSanitized: true))
      } catch {
        sanitized = .failure(error)
      }
    }
    var limit = rlimit(rlim_cur: Self.largestMemory, rlim_max: Self.largestMemory)
    setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit)
    // The code can write anything into the memory that it shares with this process.
    try Sandbox.enter(as: nil, messages: true)
    Grader(submission: submission, rubric: settings.rubric) { tell(.check($0, $1)) }
      .run(plain, sanitized: sanitized)
    if case .success(let builder) = sanitized { builder.finish() }
    plain.finish()
  }

  private func tell(_ line: GradeResult.Line) {
    _ = try? FileDescriptor(rawValue: output).writeAll(line.text.utf8)
  }
}
