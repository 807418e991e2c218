import CLinux
import CharacterDeviceServer
import Glibc
import KernelEngine
import KernelLab
import Scenarios
import Stage2Sim
import SystemPackage
import UserCode
import VirtWalkerDevice

/// The options of a grading.
struct GradeSettings {
  var rubric: Rubric
  /// The version of Linux that grades; nil for the usual one.
  var kernel: KernelVersion?
  var linux: String?
  var isSanitized: Bool
  var requiredParts: Set<CodeKind>
  var engines: [EngineKind]
}

/// The machines that grade a submission.
enum GradingMachine {
  case model
  /// The real kernel. The builder makes the kernels.
  case kernel(LabBuilder, user: Sandbox.User?)
}

/// The process that grades one submission. It is a child of the grader: it has a user of its own if the grader is root, and no network.
struct GradeWorker {
  let settings: GradeSettings
  let machine: GradingMachine
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
      becomeWorker()
      switch machine {
      case .model:
        giveUpRoot(as: Self.user(job))
        try gradeOnModel(files)
      case .kernel(let builder, let user): try gradeOnKernel(files, builder, user)
      }
    } catch let failure as CodeFailure {
      tell(.failure(failure.description))
    } catch let failure as LabFailure {
      tell(.failure(failure.description))
    } catch {
      tell(.failure("\(error)"))
    }
    tell(.done)
    _exit(0)
  }

  private func becomeWorker() {
    let parent = getppid()
    var signals = sigset_t()
    sigemptyset(&signals)
    sigprocmask(SIG_SETMASK, &signals, nil)
    closeDescriptors(but: [output])
    let null = open("/dev/null", O_RDWR | O_CLOEXEC)
    if null >= 0 { for standard in STDIN_FILENO...STDERR_FILENO { dup2(null, standard) } }
    setsid()
    endWithParent(parent)
  }

  private func endWithParent(_ parent: pid_t) {
    _ = clinux_prctl(PR_SET_PDEATHSIG, UInt(SIGKILL))
    guard getppid() == parent else { _exit(1) }
  }

  private func giveUpRoot(as user: Sandbox.User?) {
    guard geteuid() == 0 else { return }
    let parent = getppid()
    _ = clinux_leave_network()
    Sandbox.enterHelper(as: user)
    // A change of the user clears this.
    endWithParent(parent)
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

  /// Tells that all checks have failed, because the code does not compile. Such code was graded.
  private func failToCompile(_ lines: [String]) {
    for line in lines { tell(.message(line)) }
    let error = lines.first { $0.contains(" error: ") } ?? lines.first ?? ""
    for line in settings.rubric.lines {
      tell(
        .check(
          line.check,
          CheckResult(
            verdict: .failed, tried: "compile", came: error,
            expected: "the code compiles")))
    }
  }

  private func gradeOnModel(_ files: SubmissionFiles) throws {
    var files = files
    try files.unpack()
    let submission = try Submission(files, linux: settings.linux)
    tell(.code(submission.sources.longDescription))
    try submission.require(settings.requiredParts)
    let plain: CodeBuilderClient
    do throws(CodeFailure) {
      plain = try submission.build(isSanitized: false)
    } catch {
      return failToCompile(error.description.split(separator: "\n").map(String.init))
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
    let sanitizers: Grader.Sanitizers =
      if let sanitized {
        .trial { try ModelTrial(submission, sanitized.get(), machineDescription(.huge)) }
      } else {
        .none("--no-sanitize")
      }
    grader(submission.sources) { try ModelTrial(submission, plain, machineDescription($0)) }.run(
      sanitizers)
    if case .success(let builder) = sanitized { builder.finish() }
    plain.finish()
  }

  private func gradeOnKernel(
    _ files: SubmissionFiles, _ builder: LabBuilder, _ user: Sandbox.User?
  ) throws {
    var code = CodeSources()
    let images: LabImages
    do throws(LabFailure) {
      images = try builder.build(
        files, linux: settings.linux, requiring: settings.requiredParts
      ) {
        code = $0
        tell(.code($0.longDescription))
      }
    } catch {
      guard error.isOfCode else { throw error }
      return failToCompile(error.lines + [error.description])
    }
    let initramfs = try ImageDirectory.content(ofGuest: images.guestInitramfs)
    let host = try EmulatedHost(
      .init(kernel: images.image, initramfs: images.hostInitramfs), .init(), user: user)
    // The emulator ends with this process only if both have the same user.
    giveUpRoot(as: user)
    try Sandbox.enter(as: nil, messages: true)
    let log = KernelLog()
    log.files = [
      .module: code.module ?? "virt_walker.c",
      .hook: code.hook ?? code.patch ?? "the hook",
    ]
    var engine: KernelEngine?
    func boot(_ machine: MachineDescription) throws(EngineFailure) -> KernelTrial {
      log.clear()
      if let engine {
        try engine.boot(machine)
        return KernelTrial(engine, log)
      }
      let first = try KernelEngine(
        machine, on: host, guestInitramfs: initramfs, preferredDevice: "virt_walker",
        guestArguments: KernelTrial.guestArguments, onLogLine: { log.take($0, $1) },
        progress: { _ in })
      engine = first
      return KernelTrial(first, log)
    }
    grader(code) { backing in
      do throws(EngineFailure) {
        return try boot(machineDescription(backing))
      } catch {
        for line in error.details { tell(.message(line)) }
        throw TrialFailure(description: error.reason)
      }
    }.run(.none("the real kernel has no sanitizers"))
    engine?.end()
  }

  private func machineDescription(_ backing: Backing) -> MachineDescription {
    MachineDescription(.init(backing: backing, kernel: settings.kernel ?? .standard))
  }

  private func grader(
    _ sources: CodeSources, _ boot: @escaping (Backing) throws -> any Trial
  ) -> Grader {
    Grader(sources: sources, rubric: settings.rubric, boot: boot) { tell(.check($0, $1)) }
  }

  private func tell(_ line: GradeResult.Line) {
    _ = try? FileDescriptor(rawValue: output).writeAll(line.text.utf8)
  }
}
