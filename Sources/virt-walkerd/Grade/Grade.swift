import ArgumentParser
import CharacterDeviceServer
import Glibc
import KernelLab
import Scenarios
import Stage2Sim
import SystemPackage
import UserCode

struct Grade: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "grade",
    abstract: "Grade modules and hooks of a class, on the model, the real kernel or both.",
    discussion: """
      A submission is a directory, an archive (.tar, .tar.gz, .tgz, .tar.xz, .zip) or a C file, with a module, a hook or both. The code \
      is found by its content, or by the lines module: FILE, hook: FILE, hook-function: NAME, patch: FILE and linux: VERSION of a file \
      submission.txt in it. Each submission is compiled and graded in processes without rights, under a user of its own \
      if grade runs as root. No node is made. docs/grading.md describes the checks.

      --engine kernel grades on the real kernel: each submission is built into Linux, and runs in a KVM guest of an emulated host. The \
      first grading builds that kernel, which takes some minutes (docs/lab.md).

      Exit status: 0 all were graded, with any number of points; 1 some submission could not be graded; 64 wrong usage; \
      65 the rubric has a mistake, or no code can be compiled here; 66 the rubric cannot be read; 71 a system error; 73 a report cannot be written.
      """)

  /// The parts that a submission must have.
  enum Part: String, ExpressibleByArgument, CaseIterable { case any, module, hook, both }

  /// The machines that grade.
  enum Machines: String, ExpressibleByArgument, CaseIterable {
    case model, kernel, both

    var engines: [EngineKind] {
      switch self {
      case .model: [.model]
      case .kernel: [.kernel]
      case .both: [.model, .kernel]
      }
    }
  }

  @Option(
    help: """
      model: the model of Linux, about a second for each submission. kernel: the real kernel, about a minute. both: a check that fails on \
      one of them has failed, and the report tells on which.
      """)
  var engine = Machines.model

  @OptionGroup var cache: LabCacheOptions

  @Option(
    help: ArgumentHelp(
      "A text file with a line POINTS CHECK: WORDS for each check. (default: the rubric that --list-checks prints)",
      valueName: "file"))
  var rubric: String?

  @Flag(help: "Print the usual rubric, which has all checks, and end.")
  var listChecks = false

  @Option(
    help: "The parts that each submission must have. The built-in part stands for a missing one.")
  var part = Part.any

  @Option(
    help: ArgumentHelp(
      "The version of Linux on the host, which grades. The code calls the functions of this version, unless --linux names another kernel. With --engine kernel or both, the real kernel has this version. (default: 6.1 on the model, and --linux for the real kernel)",
      valueName: "version"))
  var kernel: KernelVersion?

  @Option(
    help: ArgumentHelp(
      "The kernel whose functions the code calls: a version from 5.10 to 7.3, or the directory of a kernel's tree, which a diff needs on the model. The real kernel takes a version of Debian's archives. (default: the version of --kernel, or else that of submission.txt, or 6.1)",
      valueName: "version or dir"))
  var linux: String?

  @Flag(
    help:
      "Do not build the code a second time with sanitizers. The check sanitizers is skipped, and counts for no points."
  )
  var noSanitize = false

  @Option(
    help: ArgumentHelp(
      "The number of submissions to grade at the same time. (values: 1 to \(Grade.mostJobs); default: the number of CPUs, and half of it on the real kernel)",
      valueName: "n"))
  var jobs: Int?

  @Option(
    help: ArgumentHelp(
      "The longest time of one submission in seconds. (values: 1 to 3600; default: 60, and 600 on the real kernel)",
      valueName: "seconds"))
  var timeLimit: Int?

  @Option(help: "The format of the reports.")
  var format = GradeFormat.text

  @Option(
    help: ArgumentHelp(
      "Write a report for each submission into this directory, and the table of the class to standard output. A submission that has a report there, and has not changed since, is not graded again. (default: all reports go to standard output)",
      valueName: "dir"))
  var output: String?

  @Argument(help: ArgumentHelp("The submissions.", valueName: "submission"))
  var submissions: [String] = []

  static let mostJobs = 256

  func validate() throws {
    guard listChecks || !submissions.isEmpty else {
      throw ValidationError("give a submission: a directory, an archive or a C file")
    }
    guard engine != .model || cache.cache == nil else {
      throw ValidationError("--cache is for a real kernel: give --engine kernel or both, too")
    }
    guard !submissions.contains(""), output != "", rubric != "", linux != "" else {
      throw ValidationError("an empty name is not a file")
    }
    try checkVersions()
    guard jobs.map({ (1...Self.mostJobs).contains($0) }) ?? true else {
      throw ValidationError(
        "--jobs \(jobs ?? 0): 1 to \(Self.mostJobs) submissions are graded at the same time")
    }
    guard timeLimit.map({ (1...3600).contains($0) }) ?? true else {
      throw ValidationError("--time-limit \(timeLimit ?? 0): a submission has 1 to 3600 seconds")
    }
  }

  /// Checks that the real kernel has the version of `--kernel`.
  private func checkVersions() throws {
    guard engine != .model, let kernel, let linux else { return }
    let version: String?
    if SourceReader.isNumber(linux) {
      version = linux
    } else {
      let makefile = try? FilePath(linux).appending("Makefile").content(most: 1 << 20)
      version = makefile.flatMap {
        SourceReader.kernelVersion(inMakefile: String(decoding: $0, as: UTF8.self))
      }
    }
    guard let version else {
      throw ValidationError(
        "--kernel \(kernel.rawValue) --linux \(linux): no Makefile tells the version of that kernel: leave out --kernel, or give the directory of the kernel's tree"
      )
    }
    guard version == kernel.rawValue else {
      throw ValidationError(
        "--kernel \(kernel.rawValue) --linux \(linux): the real kernel has one version, and --linux names \(version): leave out one of them, or give --engine model"
      )
    }
  }

  func run() throws {
    try reportingFailures {
      if listChecks { return try write(Rubric.usual.description) }
      let settings = GradeSettings(
        rubric: try readRubric(), kernel: kernel,
        linux: linux.map(Self.absolute) ?? kernel?.rawValue, isSanitized: !noSanitize,
        requiredParts: part == .both
          ? [.module, .hook] : part == .module ? [.module] : part == .hook ? [.hook] : [],
        engines: engine.engines)
      if engine != .kernel { try Submission.checkTools() }
      let names = try self.names()
      let reports = try output.map { try ReportDirectory($0, settings, format) }
      var results = names.map { GradeResult(name: $0) }
      var work: [(index: Int, name: String, files: SubmissionFiles)] = []
      var fingerprints = [UInt64](repeating: 0, count: names.count)
      for (index, path) in submissions.enumerated() {
        do throws(CodeFailure) {
          let files = try SubmissionFiles(at: path)
          fingerprints[index] = files.fingerprint
          if let old = reports?.result(of: names[index], fingerprints[index]) {
            results[index] = old
            Self.tell("\(names[index]) is unchanged: its report is kept")
          } else {
            work.append((index, names[index], files))
          }
        } catch {
          results[index].failure = error.description.printable
          try reports?.write(results[index], nil)
        }
      }
      try grade(work, settings, names.count) { index, result in
        results[index] = result
        try reports?.write(result, fingerprints[index])
      }
      if reports == nil {
        try write(format.report(results, settings.rubric))
        if format == .text, results.count > 1 { try write("\n") }
      }
      if reports != nil || format == .text && results.count > 1 {
        try write(GradeReport.table(results, settings.rubric))
      }
      for result in results {
        if let failure = result.failure { Self.tell("\(result.name) was not graded: \(failure)") }
      }
      if results.contains(where: { $0.failure != nil }) { throw ExitCode.failure }
    }
  }

  /// Grades submissions on one engine after the other.
  private func grade(
    _ work: [(index: Int, name: String, files: SubmissionFiles)], _ settings: GradeSettings,
    _ count: Int, finished: @escaping (Int, GradeResult) throws -> Void
  ) throws {
    guard !work.isEmpty else { return }
    let processors = max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN))))
    var onModel = [GradeResult?](repeating: nil, count: count)
    for kind in engine.engines {
      let machine: GradingMachine
      switch kind {
      case .model: machine = .model
      case .kernel:
        // The kernel without a submission's code is built first, so that no submission waits for it.
        _ = try cache.builder().build(LabSources(linux: settings.linux))
        machine = .kernel(cache.builder { _ in }, user: UserOptions.usual)
      }
      let usualJobs = kind == .model ? processors : max(1, processors / 2)
      try GradeJobs(
        settings: settings, machine: machine, atOnce: jobs ?? min(Self.mostJobs, usualJobs),
        timeLimit: timeLimit ?? (kind == .model ? 60 : 600)
      ) { index, result in
        guard engine == .both else { return try finished(index, result) }
        guard let model = onModel[index] else {
          onModel[index] = result
          return
        }
        try finished(index, GradeResult(onModel: model, onKernel: result))
      }.run(work)
    }
  }

  private static func tell(_ text: String) {
    _ = try? FileDescriptor.standardError.writeAll("virt-walkerd: \(text.printable)\n".utf8)
  }

  private func readRubric() throws -> Rubric {
    guard let rubric else { return .usual }
    guard let bytes = try? ReportDirectory.content(of: rubric) else {
      throw Failure(
        "\(rubric) cannot be read: \(Errno.current): give a text file", status: .noInput)
    }
    return try Rubric(parsing: String(decoding: bytes, as: UTF8.self), name: rubric)
  }

  private static func absolute(_ linux: String) -> String {
    guard linux.contains("/"), !linux.hasPrefix("/"), let path = realpath(linux, nil) else {
      return linux
    }
    defer { free(path) }
    return String(cString: path)
  }

  /// The names of the submissions: the last parts of their paths, without control characters.
  private func names() throws -> [String] {
    var names: [String] = []
    for path in submissions {
      var last = FilePath(path).lastComponent?.string ?? ""
      if last.isEmpty || last == "." || last == "..", let full = realpath(path, nil) {
        last = FilePath(platformString: full).lastComponent?.string ?? "submission"
        free(full)
      }
      let name = last.printable
      guard !names.contains(name) else {
        throw Failure(
          "two submissions have the name \(name): give one of them another name, as a report has the name of its submission",
          status: .usage)
      }
      names.append(name)
    }
    return names
  }
}

extension ExitCode {
  /// EX_USAGE
  static let usage = ExitCode(64)
}
