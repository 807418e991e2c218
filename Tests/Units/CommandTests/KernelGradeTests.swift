import DaemonSupport
import Stage2Sim
import Subprocess
import Testing
import UserCode

@testable import virt_walkerd

/// Tests of the grader's parts for the real kernel.
@Suite struct KernelGradeTests {
  /// A report of a kernel is one mistake, with the place at which the program counter was.
  @Test func reportsOfBothKernelsAreMistakes() {
    let log = KernelLog()
    log.files = [.module: "my.c", .hook: "hook.c"]
    for line in [
      "my: loading out-of-tree module taints kernel.",
      "Unable to handle kernel NULL pointer dereference at virtual address 0000000000000008",
      "Internal error: Oops: 0000000096000004 [#1] SMP",
      "pc : walker_write+0x24/0x60 [my]",
      "lr : vfs_write+0x20/0x40",
      "---[ end trace 0000000000000000 ]---",
      "Kernel panic - not syncing: Oops: Fatal exception",
      "a line that says WARNING: nothing",
    ] { log.take(line, .driver) }
    log.take("WARNING: CPU: 0 PID: 1 at arch/arm64/kvm/mmu.c:1 user_mem_abort+0x1/0x2", .kvm)
    log.take("pc : hide+0x1/0x2", .kvm)
    #expect(
      log.findings.map { "\($0)" } == [
        "my.c: walker_write+0x24/0x60: Unable to handle kernel NULL pointer dereference at virtual address 0000000000000008",
        "the module: Kernel panic - not syncing: Oops: Fatal exception",
        "hook.c: hide+0x1/0x2: WARNING: CPU: 0 PID: 1 at arch/arm64/kvm/mmu.c:1 user_mem_abort+0x1/0x2",
      ])
    log.clear()
    #expect(log.findings.isEmpty)
  }

  /// A report without an end does not hide later ones for ever.
  @Test func reportWithoutAnEndIsBounded() {
    let log = KernelLog()
    log.take("BUG: scheduling while atomic", .driver)
    for _ in 0..<80 { log.take("Call trace:", .driver) }
    log.take("BUG: again", .driver)
    #expect(log.findings.map(\.text) == ["BUG: scheduling while atomic", "BUG: again"])
  }

  private func result(_ verdict: CheckResult.Verdict, _ came: String) -> CheckResult {
    CheckResult(verdict: verdict, tried: "read", came: came, expected: "a byte")
  }

  /// Both engines must pass a check, and the report tells which one has not.
  @Test func differencesOfTheEnginesAreTold() {
    let cases: [(CheckResult, CheckResult, CheckResult.Verdict, came: String, engines: String)] = [
      (.passed, .passed, .passed, "", ""),
      (.passed, .skipped("none"), .passed, "", ""),
      (.skipped("no module"), .skipped("none"), .skipped, "no module", ""),
      (result(.failed, "a"), result(.failed, "a"), .failed, "a", ""),
      (result(.failed, "a"), result(.failed, "b"), .failed, "a; on the real kernel: b", ""),
      (
        result(.failed, "a"), .passed, .failed, "a",
        "failed on the model, passed on the real kernel"
      ),
      (
        .skipped("none"), result(.failed, "b"), .failed, "b",
        "skipped on the model, failed on the real kernel"
      ),
    ]
    for (model, kernel, verdict, came, engines) in cases {
      let both = CheckResult(onModel: model, onKernel: kernel)
      #expect(both.verdict == verdict && both.came == came && both.engines == engines, "\(both)")
    }
  }

  @Test func resultsOfTheEnginesAreOne() {
    var model = GradeResult(name: "one")
    model.code = "module my.c"
    model.messages = ["my.c:1: warning"]
    model.checks = [.load: .passed]
    var kernel = GradeResult(name: "one")
    kernel.messages = ["my.c:1: warning", "my.c:2: warning"]
    kernel.checks = [.load: result(.failed, "b"), .zero: .passed]
    var both = GradeResult(onModel: model, onKernel: kernel)
    #expect(both.code == "module my.c" && both.failure == nil)
    #expect(both.messages == ["my.c:1: warning", "my.c:2: warning"])
    #expect(both[.load].verdict == .failed && both[.zero].verdict == .passed)
    // The lines in which a result is kept have all of it.
    var kept = GradeResult(name: "one")
    for line in both.lines.split(separator: "\n") { _ = kept.take(line) }
    #expect(kept[.load].engines == "passed on the model, failed on the real kernel")
    kernel.failure = "no room"
    both = GradeResult(onModel: model, onKernel: kernel)
    #expect(both.failure == "on the real kernel: no room")
  }

  /// The real kernel has one version, which --kernel and --linux must agree on. No kernel is built.
  @Test(arguments: [
    ("--kernel 6.6", "Please provide one of '5.10', '6.1', '6.12' or '7.3'"),
    (
      "--kernel 5.10 --linux 6.12 --engine both",
      "--kernel 5.10 --linux 6.12: the real kernel has one version, and --linux names 6.12: leave out one of them, or give --engine model"
    ),
    ("--kernel 6.1 --linux tree --engine kernel", "--linux names 5.15: leave out one of them"),
    ("--kernel 5.15 --linux tree --engine kernel", "The value '5.15' is invalid"),
    (
      "--kernel 6.1 --linux empty --engine kernel",
      "no Makefile tells the version of that kernel: leave out --kernel, or give the directory of the kernel's tree"
    ),
  ])
  func versionsThatDoNotFitAreRefused(options: String, words: String) async throws {
    let run = try await shell(
      """
      cd "$(mktemp -d)" && mkdir tree empty && printf 'VERSION = 5\nPATCHLEVEL = 15\n' >tree/Makefile
      $virt_walkerd grade \(options) hook.c
      status=$?; rm -r "$PWD"; exit $status
      """)
    #expect(run.status == .exited(64))
    #expect(run.errors.contains(words), "\(run.errors)")
  }
}
