import CharacterDeviceServer
import Glibc
import Scenarios
import Stage2Sim
import SystemPackage
import UserCode
import VirtWalkerDevice

/// The grading of one submission: it boots machines with the code, and makes the calls of a program in the guest.
struct Grader {
  let submission: Submission
  let rubric: Rubric
  /// Takes the result of a check.
  let report: (GradeCheck, CheckResult) -> Void

  private var hasModule: Bool { submission.sources.module != nil }
  private var hasHook: Bool { submission.sources.hook != nil || submission.sources.patch != nil }

  /// Grades with the plain and the sanitized programs. A check that cannot be made is skipped.
  func run(_ plain: CodeBuilderClient, sanitized: Result<CodeBuilderClient, CodeFailure>?) {
    skipMissingPart()
    guard let pages = boot(plain, .anonymous) else { return }
    guard !hasHook || pages.hookHasAbort else {
      failAll("the hook answers hypercalls, and no accesses to HIDE and SEEK")
      return
    }
    guard checkLoad(pages) else { return }
    guard let blocks = boot(plain, .huge) else { return }
    // A solution for pages alone, or for blocks alone, loses the points of the other ones only.
    let zero = checkZero(pages)
    tell(.zero, zero.verdict == .passed ? zero : checkZero(blocks))
    checkBytes(pages, blocks)
    if hasModule { useOtherCounts(pages) }
    checkLog(pages, blocks)
    if hasModule { checkUnload(pages, blocks) } else { pages.engine.end() }
    if hasHook, let trial = try? Trial(submission, plain, backing: .huge) {
      checkAccesses(trial)
      trial.engine.end()
    }
    if hasModule, let trial = try? Trial(submission, plain, backing: .huge) {
      checkBadBuffers(trial)
      trial.engine.end()
    }
    checkSanitizers(sanitized)
  }

  /// Boots a machine with the code; nil, and all checks have failed, if the code does not start.
  private func boot(_ builder: CodeBuilderClient, _ backing: Backing) -> Trial? {
    do {
      return try Trial(submission, builder, backing: backing)
    } catch {
      failAll("\(error)")
      return nil
    }
  }

  // MARK: - Results

  private func tell(_ check: GradeCheck, _ result: CheckResult) {
    guard rubric.has(check), check.part != .module || hasModule, check.part != .hook || hasHook
    else { return }
    report(check, result)
  }

  /// Skips the checks of a part that the submission does not have.
  private func skipMissingPart() {
    for line in rubric.lines {
      guard let part = line.check.part, !(part == .module ? hasModule : hasHook) else { continue }
      report(line.check, .skipped("the submission has no \(part.rawValue)"))
    }
  }

  private func failAll(_ reason: String) {
    for check in GradeCheck.allCases {
      tell(
        check,
        CheckResult(
          verdict: .failed, tried: "load", came: reason,
          expected: "the module and the hook start"))
    }
  }

  private func failed(
    _ tried: String, _ came: String, _ expected: String, at place: String = ""
  ) -> CheckResult {
    CheckResult(verdict: .failed, tried: tried, came: came, expected: expected, place: place)
  }

  // MARK: - The node

  private func checkLoad(_ trial: Trial) -> Bool {
    do throws(Errno) {
      var file = try trial.engine.openFile()
      trial.engine.closeFile(&file)
      tell(.load, .passed)
      return true
    } catch {
      failAll("open of the node fails with \(error)")
      return false
    }
  }

  private func checkZero(_ trial: Trial) -> CheckResult {
    let expected = "the byte 0x00"
    do throws(Errno) {
      let bytes = try trial.readAnew()
      let came = bytes.isEmpty ? "read returns 0" : "the byte \(byteText(bytes[0]))"
      return bytes == [0] ? .passed : failed("read of 1 byte", came, expected, at: trial.place)
    } catch {
      return failed("read of 1 byte", trial.reason(error), expected, at: trial.place)
    }
  }

  /// Makes calls of the module whose results the assignment leaves open. The kernels must report no mistake in them.
  private func useOtherCounts(_ trial: Trial) {
    for bytes: [UInt8] in [[1, 2], [1, 2, 3]] { _ = try? trial.writeAnew(bytes) }
    _ = try? trial.readAnew(2)
  }

  private func checkBytes(_ pages: Trial, _ blocks: Trial) {
    let onPages = ByteTrip(pages)
    let onBlocks = ByteTrip(blocks)
    let lost = onPages.lostByte == nil ? nil : onBlocks.lostByte
    let wrong = onPages.wrongEntry == nil ? nil : onBlocks.wrongEntry
    tell(
      .bytes,
      lost.map {
        failed(
          $0.tried, $0.came, "write returns 1, and read gives the same byte", at: onBlocks.place)
      }
        ?? .passed)
    tell(
      .entry, wrong.map { failed($0.tried, $0.came, $0.expected, at: onBlocks.place) } ?? .passed)
    tell(.pages, result(of: onPages, "pages", level: 3))
    tell(.blocks, result(of: onBlocks, "blocks", level: 2))
  }

  private func result(of trip: ByteTrip, _ kind: String, level: Int) -> CheckResult {
    if let lost = trip.lostByte {
      return failed("\(lost.tried), memory in \(kind)", lost.came, "the same byte", at: trip.place)
    }
    if let wrong = trip.wrongEntry {
      return failed("\(wrong.tried), memory in \(kind)", wrong.came, wrong.expected, at: trip.place)
    }
    guard trip.level == level else {
      return failed("walk, memory in \(kind)", "an entry at level \(trip.level)", "level \(level)")
    }
    return .passed
  }

  // MARK: - Mistakes

  private func checkLog(_ trials: Trial...) {
    let findings = trials.flatMap(\.findings)
    guard let first = findings.first else {
      tell(.log, .passed)
      return
    }
    let count = Set(findings.map { "\($0)" }).count
    tell(
      .log,
      failed(
        "reads and writes of all bytes", first.text + (count > 1 ? " (and \(count - 1) more)" : ""),
        "no mistake", at: first.placeText))
  }

  private func checkUnload(_ pages: Trial, _ blocks: Trial) {
    let before = pages.findings.count
    pages.engine.end()
    let findings = pages.findings[before...]
    let leaks = findings.filter { $0.text.hasPrefix("memory leak") }
    let rest = findings.filter { !$0.text.hasPrefix("memory leak") }
    let ended = pages.fatal
    func result(_ findings: [CodeFinding], _ expected: String) -> CheckResult {
      if let first = findings.first {
        return failed("rmmod", first.text, expected, at: first.placeText)
      }
      if let ended {
        return failed(
          "rmmod", "the \(ended.kind.rawValue) has ended before: \(ended.text)", expected,
          at: ended.placeText)
      }
      return .passed
    }
    tell(.unload, result(rest, "nothing is left behind"))
    tell(.memory, result(leaks, "all memory is freed"))
    checkReload(blocks, leftNode: rest.first { $0.text.contains("still registered") })
  }

  private func checkReload(_ trial: Trial, leftNode: CodeFinding?) {
    let expected = "the byte 0x5a comes back after rmmod and insmod"
    defer { trial.engine.end() }
    if let leftNode {
      tell(.reload, failed("rmmod, then insmod", leftNode.text, expected, at: leftNode.placeText))
      return
    }
    do {
      try trial.engine.reset()
    } catch {
      tell(.reload, failed("rmmod, then insmod", "\(error)", expected))
      return
    }
    do throws(Errno) {
      _ = try trial.writeAnew([0x5a])
      let bytes = try trial.readAnew()
      let came = bytes.isEmpty ? "read returns 0" : "the byte \(byteText(bytes[0]))"
      tell(.reload, bytes == [0x5a] ? .passed : failed("rmmod, then insmod", came, expected))
    } catch {
      tell(.reload, failed("rmmod, then insmod", trial.reason(error), expected, at: trial.place))
    }
  }

  private func checkSanitizers(_ built: Result<CodeBuilderClient, CodeFailure>?) {
    guard rubric.has(.sanitizers) else { return }
    guard let built else {
      tell(.sanitizers, .skipped("--no-sanitize"))
      return
    }
    do {
      let trial = try Trial(submission, built.get(), backing: .huge)
      for bytes: [UInt8] in [[0x41], [0xff], [0], [1, 2, 3]] {
        _ = try? trial.writeAnew(bytes)
        _ = try? trial.readAnew()
      }
      trial.engine.end()
      let found = trial.findings.first { "\($0)".contains("anitizer") }
      tell(
        .sanitizers,
        found.map {
          failed("writes and reads, built with sanitizers", $0.text, "no report", at: $0.placeText)
        }
          ?? .passed)
    } catch {
      tell(.sanitizers, failed("load, built with --sanitize", "\(error)", "the code starts"))
    }
  }

  // MARK: - The hook

  /// Checks accesses of the guest that no driver makes. The mistakes that are told during these do not count for the log.
  private func checkAccesses(_ trial: Trial) {
    let oneByte = [
      "strh w0,[0x0b000000] x0=0x1234", "str w0,[0x0b000000] x0=0x12345678",
      "str x0,[0x0b000000] x0=0x123456789abcdef0",
    ]
    tell(.oneByte, steps(oneByte, on: trial))
    let directions = ["strb w0,[0x0b000001] x0=0x5a", "ldrb w0,[0x0b000000]"]
    tell(.directions, steps(directions, on: trial, notRead: true))
  }

  private func steps(_ steps: [String], on trial: Trial, notRead: Bool = false) -> CheckResult {
    let byte: UInt64 = 0xa5
    do {
      for step in steps {
        _ = try trial.step("guest strb w0,[0x0b000000] x0=0xa5")
        let before = trial.leaf
        guard before?.descriptor.hiddenByte == 0xa5 else {
          return failed(
            "the guest's strb w0,[0x0b000000] x0=0xa5",
            "the entry \(before.map { "\($0.descriptor)" } ?? "is gone")",
            "the byte 0xa5 in bits [58:51]", at: trial.place)
        }
        let seen = try trial.step("guest \(step)")
        if let fatal = trial.fatal {
          return failed("the guest's \(step)", fatal.text, "the entry stays", at: fatal.placeText)
        }
        let after = trial.leaf
        guard after == before else {
          return failed(
            "the guest's \(step)", "the entry \(after.map { "\($0.descriptor)" } ?? "is gone")",
            "the entry \(before.map { "\($0.descriptor)" } ?? "") stays", at: trial.place)
        }
        for case .run(let run) in seen where notRead && step.hasPrefix("ld") {
          if run.end == .retired, run.x0 & 0xff == byte {
            return failed("the guest's \(step)", "the hidden byte 0xa5", "HIDE gives no byte")
          }
        }
      }
    } catch {
      return failed("steps of the guest", "\(error)", "the steps run")
    }
    return .passed
  }

  // MARK: - Bad buffers

  private func checkBadBuffers(_ trial: Trial) {
    let byte: UInt8 = 0xa5
    func expectFault(_ action: String, _ call: () throws(Errno) -> String) -> CheckResult? {
      do throws(Errno) {
        return failed(action, try call(), "EFAULT (Bad address)", at: trial.place)
      } catch {
        return error == .badAddress
          ? nil : failed(action, trial.reason(error), "EFAULT (Bad address)", at: trial.place)
      }
    }
    do throws(Errno) {
      _ = try trial.writeAnew([byte])
      var file = try trial.engine.openFile()
      defer { trial.engine.closeFile(&file) }
      let result =
        expectFault("write from a bad address") { () throws(Errno) in
          "write returns \(try trial.engine.write([0x5a], to: &file, hasBadBuffer: true))"
        }
        ?? expectFault("read to a bad address") { () throws(Errno) in
          "read returns \(try trial.engine.read(1, from: &file, hasBadBuffer: true).count)"
        }
      if let result {
        tell(.badBuffers, result)
        return
      }
      let bytes = try trial.readAnew()
      tell(
        .badBuffers,
        bytes == [byte]
          ? .passed
          : failed(
            "write of \(byteText(byte)), write from a bad address, read",
            bytes.isEmpty ? "read returns 0" : "the byte \(byteText(bytes[0]))",
            "the byte \(byteText(byte))"))
    } catch {
      tell(
        .badBuffers,
        failed(
          "write of \(byteText(byte))", trial.reason(error), "the call succeeds", at: trial.place))
    }
  }
}
