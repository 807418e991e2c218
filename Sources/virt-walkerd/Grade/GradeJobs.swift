import CLinux
import CharacterDeviceServer
import Glibc
import Scenarios
import SystemPackage
import UserCode

/// The workers of a grading, at most a number of them at the same time.
struct GradeJobs {
  let settings: GradeSettings
  let machine: GradingMachine
  let atOnce: Int
  /// The longest time of one submission in seconds.
  let timeLimit: Int
  /// Takes the result of a submission.
  let finished: (_ index: Int, GradeResult) throws -> Void

  private struct Job {
    let index: Int
    let number: Int
    let process: pid_t
    let output: Int32
    let deadline: UInt64
    var result: GradeResult
    var rest: [UInt8] = []
    var isDone = false
  }

  /// The most bytes that a worker writes. A worker is not a submission's code, but its own memory is shared with such code.
  private static let longestLine = 1 << 16

  /// Grades the submissions.
  func run(_ submissions: [(index: Int, name: String, files: SubmissionFiles)]) throws {
    // Processes that a killed worker leaves become children of this process.
    _ = clinux_prctl(PR_SET_CHILD_SUBREAPER, 1)
    var waiting = submissions[...]
    var jobs: [Job] = []
    while !waiting.isEmpty || !jobs.isEmpty {
      while jobs.count < atOnce, let next = waiting.popFirst() {
        let free = (0..<atOnce).first { number in !jobs.contains { $0.number == number } }
        jobs.append(try start(next, number: free ?? 0))
      }
      var entries = jobs.map { pollfd(fd: $0.output, events: Int16(POLLIN), revents: 0) }
      _ = poll(&entries, nfds_t(entries.count), 200)
      let now = clinux_monotonic_nanoseconds()
      for index in jobs.indices.reversed() {
        let isOpen = entries[index].revents == 0 || read(&jobs[index])
        let isLate = now > jobs[index].deadline
        guard !isOpen || isLate else { continue }
        try finished(jobs[index].index, end(&jobs[index], isLate: isLate))
        jobs.remove(at: index)
      }
    }
    // The builders of workers that were killed end by themselves, and remove their files.
    var status: Int32 = 0
    while waitpid(-1, &status, 0) > 0 || errno == EINTR {}
  }

  private func start(
    _ submission: (index: Int, name: String, files: SubmissionFiles), number: Int
  ) throws -> Job {
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else { throw Errno.current }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    let process = clinux_fork()
    if process == 0 {
      GradeWorker(settings: settings, machine: machine, job: number, output: ends[1])
        .run(submission.files)
    }
    close(ends[1])
    guard process > 0 else { throw Errno.current }
    return Job(
      index: submission.index, number: number, process: process, output: ends[0],
      deadline: clinux_monotonic_nanoseconds() + UInt64(timeLimit) * 1_000_000_000,
      result: GradeResult(name: submission.name))
  }

  /// Reads results. Returns whether there can be more.
  private func read(_ job: inout Job) -> Bool {
    var buffer = [UInt8](repeating: 0, count: 1 << 14)
    let count = Glibc.read(job.output, &buffer, buffer.count)
    guard count > 0 else { return count < 0 && errno == EINTR }
    job.rest += buffer[..<count]
    while let end = job.rest.firstIndex(of: UInt8(ascii: "\n")) {
      if job.result.take(String(decoding: job.rest[..<end], as: UTF8.self)[...]) {
        job.isDone = true
      }
      job.rest.removeSubrange(...end)
    }
    return job.rest.count < Self.longestLine
  }

  private func end(_ job: inout Job, isLate: Bool) -> GradeResult {
    kill(job.process, SIGKILL)
    close(job.output)
    _ = waitForEnd(of: job.process)
    var result = job.result
    guard !job.isDone else { return result }
    let reason =
      isLate
      ? "the time limit of \(timeLimit) s ended the grading"
      : "the grading has ended early: this is a defect of virt-walkerd"
    if !isLate { result.failure = reason }
    for line in settings.rubric.lines where result.checks[line.check] == nil {
      result.checks[line.check] = CheckResult(
        verdict: .failed, tried: "the check", came: reason, expected: "an answer in time")
    }
    return result
  }
}
