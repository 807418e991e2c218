import Scenarios
import Stage2Sim
import SystemPackage
import UserCode
import VirtWalkerDevice

/// The grading of one submission on one engine: it boots machines with the code, and makes the calls of a program in the guest.
///
/// Each machine ends before the next one boots, because the real kernel has one at a time.
struct Grader {
  let sources: CodeSources
  let rubric: Rubric
  /// Boots a machine with the code.
  let boot: (Backing) throws -> any Trial
  /// Takes the result of a check.
  let report: (GradeCheck, CheckResult) -> Void

  /// The mistakes that an engine looks for beside those that it finds anyway.
  enum Sanitizers {
    /// A machine with the code that was built with sanitizers.
    case trial(() throws -> any Trial)
    /// The reason why there are none.
    case none(String)
  }

  private var hasModule: Bool { sources.module != nil }
  private var hasHook: Bool { sources.hook != nil || sources.patch != nil }

  /// The usual calls of one machine, and their results.
  private struct Use {
    var zero: CheckResult
    var trip: ByteTrip
    var findings: [CodeFinding] = []
  }

  func run(_ sanitizers: Sanitizers) {
    skipMissingPart()
    guard let pages = start(.anonymous) else { return }
    guard !hasHook || pages.hookHasAbort else {
      failAll("the hook answers hypercalls, and no accesses to HIDE and SEEK")
      return pages.end()
    }
    guard checkLoad(pages) else { return pages.end() }
    var onPages = Use(zero: checkZero(pages), trip: ByteTrip(pages))
    if hasModule { useOtherCounts(pages) }
    onPages.findings = pages.findings
    var leftNode: CodeFinding?
    if hasModule { leftNode = checkUnload(pages) }
    pages.end()

    guard let blocks = start(.huge) else { return }
    var onBlocks = Use(zero: checkZero(blocks), trip: ByteTrip(blocks))
    onBlocks.findings = blocks.findings
    if hasModule { checkReload(blocks, leftNode) }
    blocks.end()

    // A solution for pages alone, or for blocks alone, loses the points of the other ones only.
    tell(.zero, onPages.zero.verdict == .passed ? onPages.zero : onBlocks.zero)
    checkBytes(onPages.trip, onBlocks.trip)
    checkLog(onPages.findings + onBlocks.findings)
    if hasHook { tryWith(.huge, checkAccesses) }
    if hasModule { tryWith(.huge, checkBadBuffers) }
    checkSanitizers(sanitizers)
  }

  /// Boots a machine with the code; nil, and all checks have failed, if the code does not start.
  private func start(_ backing: Backing) -> (any Trial)? {
    do {
      return try boot(backing)
    } catch {
      failAll("\(error)")
      return nil
    }
  }

  private func tryWith(_ backing: Backing, _ check: (any Trial) -> Void) {
    guard let trial = try? boot(backing) else { return }
    check(trial)
    trial.end()
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

  private func checkLoad(_ trial: any Trial) -> Bool {
    do throws(Errno) {
      try trial.open()
      tell(.load, .passed)
      return true
    } catch {
      failAll("open of the node fails with \(error)")
      return false
    }
  }

  private func checkZero(_ trial: any Trial) -> CheckResult {
    let expected = "the byte 0x00"
    do throws(Errno) {
      let bytes = try trial.read()
      let came = bytes.isEmpty ? "read returns 0" : "the byte \(byteText(bytes[0]))"
      return bytes == [0] ? .passed : failed("read of 1 byte", came, expected, at: trial.place)
    } catch {
      return failed("read of 1 byte", trial.reason(error), expected, at: trial.place)
    }
  }

  /// Makes calls of the module whose results the assignment leaves open. The kernels must report no mistake in them.
  private func useOtherCounts(_ trial: any Trial) {
    for bytes: [UInt8] in [[1, 2], [1, 2, 3]] { _ = try? trial.write(bytes) }
    _ = try? trial.read(2)
  }

  private func checkBytes(_ onPages: ByteTrip, _ onBlocks: ByteTrip) {
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

  private func checkLog(_ findings: [CodeFinding]) {
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

  /// - Returns: The mistake of a node that is left.
  private func checkUnload(_ pages: any Trial) -> CodeFinding? {
    let ended = pages.fatal
    let findings = pages.unload()
    let leaks = findings.filter { $0.text.hasPrefix("memory leak") }
    let rest = findings.filter { !$0.text.hasPrefix("memory leak") }
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
    return rest.first { $0.text.contains("still registered") }
  }

  private func checkReload(_ trial: any Trial, _ leftNode: CodeFinding?) {
    let expected = "the byte 0x5a comes back after rmmod and insmod"
    if let leftNode {
      tell(.reload, failed("rmmod, then insmod", leftNode.text, expected, at: leftNode.placeText))
      return
    }
    do {
      try trial.reload()
    } catch {
      tell(.reload, failed("rmmod, then insmod", "\(error)", expected))
      return
    }
    do throws(Errno) {
      _ = try trial.write([0x5a])
      let bytes = try trial.read()
      let came = bytes.isEmpty ? "read returns 0" : "the byte \(byteText(bytes[0]))"
      tell(.reload, bytes == [0x5a] ? .passed : failed("rmmod, then insmod", came, expected))
    } catch {
      tell(.reload, failed("rmmod, then insmod", trial.reason(error), expected, at: trial.place))
    }
  }

  private func checkSanitizers(_ sanitizers: Sanitizers) {
    guard rubric.has(.sanitizers) else { return }
    let boot: () throws -> any Trial
    switch sanitizers {
    case .none(let reason):
      tell(.sanitizers, .skipped(reason))
      return
    case .trial(let body): boot = body
    }
    do {
      let trial = try boot()
      for bytes: [UInt8] in [[0x41], [0xff], [0], [1, 2, 3]] {
        _ = try? trial.write(bytes)
        _ = try? trial.read()
      }
      trial.end()
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
  private func checkAccesses(_ trial: any Trial) {
    let hide: IntermediatePhysicalAddress = 0x0b00_0000
    let seek: IntermediatePhysicalAddress = 0x0b00_0001
    tell(
      .oneByte,
      make(
        [
          GuestAccess(size: 2, address: hide, value: 0x1234),
          GuestAccess(size: 4, address: hide, value: 0x1234_5678),
          GuestAccess(size: 8, address: hide, value: 0x1234_5678_9abc_def0),
        ], on: trial))
    tell(
      .directions,
      make(
        [
          GuestAccess(size: 1, address: seek, value: 0x5a), GuestAccess(size: 1, address: hide),
        ], on: trial))
  }

  /// Makes accesses that must leave the hidden byte as it is, and give it to nobody.
  private func make(_ accesses: [GuestAccess], on trial: any Trial) -> CheckResult {
    let byte: UInt64 = 0xa5
    let first = GuestAccess(size: 1, address: 0x0b00_0000, value: byte)
    do throws(TrialFailure) {
      for access in accesses {
        _ = try trial.make(first)
        let before = trial.leaf
        guard let before, UInt64(before.descriptor.hiddenByte) == byte else {
          return failed(
            "the \(first.text)", "the entry \(before.map { "\($0.descriptor)" } ?? "is gone")",
            "the byte 0xa5 in bits [58:51]", at: trial.place)
        }
        let loaded = try trial.make(access)
        if let fatal = trial.fatal {
          return failed("the \(access.text)", fatal.text, "the entry stays", at: fatal.placeText)
        }
        let after = trial.leaf
        guard after == before else {
          return failed(
            "the \(access.text)", "the entry \(after.map { "\($0.descriptor)" } ?? "is gone")",
            "the entry \(before.descriptor) stays", at: trial.place)
        }
        if let loaded, loaded & 0xff == byte {
          return failed("the \(access.text)", "the hidden byte 0xa5", "HIDE gives no byte")
        }
      }
    } catch {
      return failed("accesses of the guest", "\(error)", "the accesses end", at: trial.place)
    }
    return .passed
  }

  // MARK: - Bad buffers

  private func checkBadBuffers(_ trial: any Trial) {
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
      _ = try trial.write([byte])
      let result =
        expectFault("write from a bad address") { () throws(Errno) in
          "write returns \(try trial.write([0x5a], hasBadBuffer: true))"
        }
        ?? expectFault("read to a bad address") { () throws(Errno) in
          "read returns \(try trial.read(1, hasBadBuffer: true).count)"
        }
      if let result {
        tell(.badBuffers, result)
        return
      }
      let bytes = try trial.read()
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
