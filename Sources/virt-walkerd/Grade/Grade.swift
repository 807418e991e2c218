import ArgumentParser
import CharacterDeviceServer
import Glibc
import Scenarios
import SystemPackage
import UserCode

struct Grade: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Grade modules and hooks of a class on the model.",
    discussion: """
      A submission is a directory, an archive (.tar, .tar.gz, .tgz, .tar.xz, .zip) or a C file, with a module, a hook or both. The code \
      is found by its content, or by the lines module: FILE, hook: FILE, hook-function: NAME, patch: FILE and linux: VERSION of a file \
      submission.txt in it. Each submission is compiled and graded in processes without rights, under a user of its own \
      if grade runs as root. No node is made. docs/grading.md describes the checks.

      The checks run on the model. Grading on the real kernel is not there yet.

      Exit status: 0 all were graded, with any number of points; 1 some submission could not be graded; 64 wrong usage; \
      65 the rubric has a mistake, or no code can be compiled here; 66 the rubric cannot be read; 71 a system error; 73 a report cannot be written.
      """)

  /// The parts that a submission must have.
  enum Part: String, ExpressibleByArgument, CaseIterable { case any, module, hook, both }

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
      "The kernel whose functions the code calls: a version from 5.10 to 7.3, or the directory of a kernel's tree, which a diff needs. (default: 6.1)",
      valueName: "version or dir"))
  var linux: String?

  @Flag(
    help:
      "Do not build the code a second time with sanitizers. The check sanitizers is skipped, and counts for no points."
  )
  var noSanitize = false

  @Option(
    help: ArgumentHelp(
      "The number of submissions to grade at the same time. (values: 1 to \(Grade.mostJobs); default: the number of CPUs)",
      valueName: "n"))
  var jobs: Int?

  @Option(
    help: ArgumentHelp(
      "The longest time of one submission in seconds. (values: 1 to 3600; default: 60)",
      valueName: "seconds"))
  var timeLimit = 60

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
    guard !submissions.contains(""), output != "", rubric != "", linux != "" else {
      throw ValidationError("an empty name is not a file")
    }
    guard jobs.map({ (1...Self.mostJobs).contains($0) }) ?? true else {
      throw ValidationError(
        "--jobs \(jobs ?? 0): 1 to \(Self.mostJobs) submissions are graded at the same time")
    }
    guard (1...3600).contains(timeLimit) else {
      throw ValidationError("--time-limit \(timeLimit): a submission has 1 to 3600 seconds")
    }
  }

  func run() throws {
    try reportingFailures {
      if listChecks { return try write(Rubric.usual.description) }
      let settings = GradeSettings(
        rubric: try readRubric(), linux: linux.map(Self.absolute), isSanitized: !noSanitize,
        requiredParts: part == .both
          ? [.module, .hook] : part == .module ? [.module] : part == .hook ? [.hook] : [],
        timeLimit: timeLimit)
      try Submission.checkTools()
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
      try GradeJobs(
        settings: settings,
        atOnce: jobs ?? min(Self.mostJobs, max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))))
      ) { index, result in
        results[index] = result
        try reports?.write(result, fingerprints[index])
      }.run(work)
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
