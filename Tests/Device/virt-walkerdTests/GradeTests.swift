import DaemonSupport
import Foundation
import Subprocess
import Testing

/// Tests of `virt-walkerd grade` with the examples, with hostile submissions, and of its formats.
@Suite(.endingDaemons, .timeLimit(.minutes(15))) struct GradeTests {
  private static let lab = "\(repository)/Examples/lab"

  /// Runs the command in a directory of its own, which is removed afterwards. `$lab` is the directory of the examples.
  private func grade(_ line: String) async throws -> Outcome {
    try await shell(
      """
      lab=\(Self.lab) work=$(mktemp -d) && chmod 755 "$work" && mkdir -m 1777 "$work/tmp" || exit 99
      export TMPDIR="$work/tmp"
      cd "$work" || exit 99
      \(line)
      status=$?
      ls -A "$work/tmp"
      cd / && rm -r "$work"
      exit $status
      """)
  }

  /// The last lines: the names, points and lost checks.
  private func table(_ outcome: Outcome) -> [String] {
    guard let start = outcome.output.range(of: "\nsubmission ") else { return [] }
    return outcome.output[start.upperBound...].split(separator: "\n").dropFirst().map {
      $0.split(separator: " ").joined(separator: " ")
    }
  }

  // MARK: - The recipes

  /// The recipes of Examples/grading for schedulers grade the submission of their number, and the reports make one table.
  @Test func recipesGrade() async throws {
    let run = try await grade(
      """
      mkdir bin submissions && ln -s $virt_walkerd bin/virt-walkerd && export PATH="$work/bin:$PATH"
      cp $lab/right/module-misc.c $lab/wrong/module-missing-iounmap.c submissions
      recipes=\(repository)/Examples/grading
      $recipes/grade-nth submissions reports 2 2>&1 | sed 's/.*: give/give/'
      SLURM_SUBMIT_DIR=$recipes SLURM_ARRAY_TASK_ID=1 $recipes/slurm.sh submissions reports | tail -n 1
      ln -s $recipes/grade-nth bin/grade-nth && ln -s "$work" class
      command=$(sed -n "s|.*command: .sh, -c, '\\(.*\\)'.*|\\1|p" $recipes/kubernetes.yaml | sed "s|/class/|$work/class/|g")
      JOB_COMPLETION_INDEX=0 sh -c "$command" | tail -n 1
      parallel virt-walkerd grade --jobs 1 --no-sanitize --output more {} ::: submissions/* >/dev/null; ls more | wc -l
      mkdir -p gradescope/submission gradescope/source gradescope/results
      cp $recipes/gradescope/results.jq gradescope/source && cp submissions/module-missing-iounmap.c gradescope/submission
      AUTOGRADER=$work/gradescope $recipes/gradescope/run_autograder
      jq -c '[.tests[] | select(.status == "failed") | .score, .max_score, .output[:12]]' gradescope/results/results.json
      $virt_walkerd grade --output reports submissions/* 2>/dev/null
      """)
    #expect(
      run.output == """
        give a number from 0 to 1
        module-missing-iounmap.c      55   60  unload
        module-misc.c      60   60
        4
        [0,5,"tried: rmmod"]
        submission                points   of  lost by
        module-misc.c                 60   60
        module-missing-iounmap.c      55   60  unload

        """, "\(run.output)\(run.errors)")
  }

  // MARK: - The examples

  @Test func rightExamplesHaveAllPoints() async throws {
    let files = [
      "walk-callback.c", "get-leaf.c", "walk-by-hand.c", "io-device.c", "module-chrdev.c",
      "module-cdev.c", "module-misc.c", "module-two-files",
    ]
    let run = try await grade(
      "$virt_walkerd grade \(files.map { "$lab/right/\($0)" }.joined(separator: " "))")
    #expect(run.succeeded, "\(run.errors)")
    let rows = files.map { "\($0) \($0.hasPrefix("module") ? "60 60" : "80 80")" }
    #expect(table(run) == rows, "\(run.output)")
  }

  /// A visitor of Linux 6.2 needs the version in the manifest.
  @Test func manifestNamesVersionAndParts() async throws {
    let run = try await grade(
      """
      mkdir both && cp $lab/right/walk-context.c $lab/right/module-misc.c both
      printf 'module: module-misc.c\\nhook: walk-context.c\\nhook-function: virt_walker_mmio\\nlinux: 6.2\\n' >both/submission.txt
      $virt_walkerd grade both
      """)
    #expect(run.succeeded && run.output.hasPrefix("both: 100 of 100 points\n"), "\(run.output)")
  }

  /// --kernel selects the version that grades, also for a submission that names another one. Linux 5.10 moves the program counter by another
  /// function than 6.1.
  @Test func versionOfTheKernelGrades() async throws {
    let run = try await grade(
      """
      mkdir old && sed 's/kvm_incr_pc(vcpu)/kvm_skip_instr(vcpu, kvm_vcpu_trap_il_is32bit(vcpu))/' \
          $lab/right/walk-callback.c >old/hook.c
      printf 'hook: hook.c\\nlinux: 6.2\\n' >old/submission.txt
      $virt_walkerd grade --no-sanitize --kernel 5.10 --output reports old | tail -1
      $virt_walkerd grade --no-sanitize --kernel 5.10 --output reports old 2>&1 | head -1
      $virt_walkerd grade --no-sanitize --kernel 6.1 --output reports old | tail -1
      $virt_walkerd grade --no-sanitize --kernel 5.10 --linux 6.1 $lab/right/walk-callback.c | head -1
      """)
    #expect(run.succeeded, "\(run.errors)")
    #expect(
      run.output.split(separator: "\n").map {
        $0.split(separator: " ").prefix(4).joined(separator: " ")
      } == [
        "old 75 75", "virt-walkerd: old is unchanged:", "old 0 100 load",
        "walk-callback.c: 75 of 75",
      ], "\(run.output)")
  }

  @Test func wrongExamplesLoseTheirPoints() async throws {
    let rows = [
      "bits-not-cleared.c 30 80 bytes entry pages blocks log",
      "length-unchecked.c 75 80 one-byte",
      "table-entry.c 75 80 log",
      "pc-moved-twice.c 75 80 log",
      "register-of-a-store.c 75 80 log",
      "module-missing-iounmap.c 55 60 unload",
      "module-missing-unregister.c 50 60 unload reload",
      "module-memory-leak.c 55 60 memory",
      "module-lock-left-held.c 55 60 log",
      "module-sleep-under-spinlock.c 55 60 log",
      "module-out-of-bounds.c 50 60 log sanitizers",
    ]
    let files = rows.map { "$lab/wrong/\($0.prefix { $0 != " " })" }
    let run = try await grade("$virt_walkerd grade \(files.joined(separator: " "))")
    #expect(run.succeeded, "\(run.errors)")
    #expect(table(run) == rows, "\(run.output)")
    #expect(run.output.contains("at: module-missing-iounmap.c:50: walker_init\n"))
  }

  // MARK: - Hostile submissions

  @Test func hostileSubmissionsHarmNobody() async throws {
    let run = try await grade(
      """
      secret=$PWD/rubric; $virt_walkerd grade --list-checks >rubric; chmod 600 rubric
      mkdir include links 'a<b>&"'; chmod 755 .
      printf '#include "%s"\\n#include <linux/module.h>\\nmodule_init(x);\\n' "$secret" >include/m.c
      ln -s "$secret" links/m.c
      cp $lab/right/module-misc.c 'a<b>&"/m.c'
      cp $lab/wrong/module-endless-loop.c loop.c
      sed 's/value = readb.*/for (int i = 0; i < 1000000; i++) pr_info("line %d\\\\n", i); value = readb(base + SEEK);/' \
          $lab/right/module-misc.c >lines.c
      sed 's/value = readb.*/value = __builtin_ia32_rdtsc(); __asm__ volatile("syscall" :: "a"(57));/' \
          $lab/right/module-misc.c >fork.c
      $virt_walkerd grade --no-sanitize --time-limit 120 --rubric rubric --format json include links 'a<b>&"' loop.c fork.c lines.c >out
      echo "status $?"
      grep -c 'each of the 256' out; grep -c '5 zero:' out
      python3 -c 'import json
      for one in json.load(open("out")): print(one["submission"], one["graded"], one["points"])'
      """.replacing("\n      for", with: "\nfor"))
    #expect(run.output.hasPrefix("status 1\n"), "\(run.output)\(run.errors)")
    // The words of the rubric stand in the report of each check, and its lines nowhere.
    #expect(run.output.contains("\n0\n"), "\(run.output)")
    for line in ["include True 0", "links False 0", "a<b>&\" True 55", "loop.c True 15"] {
      #expect(run.output.contains("\(line)\n"), "\(run.output)")
    }
    #expect(!run.output.contains("virt-walker-build"), "\(run.output)")
  }

  /// The directories of the compilers go, and so do all processes.
  @Test(
    arguments: ["TERM", "KILL"],
    [
      // A worker has just made its directory: five times, because the other workers can be anywhere.
      (5, #"until [ -e "$(echo tmp/virt-walker-build-* | cut -d' ' -f1)" ]; do :; done"#),
      (1, "until ls -d tmp/virt-walker-build-*/submission >/dev/null 2>&1; do sleep 0.01; done"),
      (1, #"until pgrep -f "$PWD/tmp/.*code-module" >/dev/null; do sleep 0.01; done"#),
    ])
  func endedGradingLeavesNothing(signal: String, moment: (count: Int, wait: String)) async throws {
    let run = try await grade(
      """
      for i in 1 2 3 4; do mkdir $i && cp $lab/right/walk-callback.c $lab/right/module-misc.c $i; done
      for time in $(seq \(moment.count)); do
          $virt_walkerd grade --jobs 4 1 2 3 4 >/dev/null 2>&1 &
          \(moment.wait)
          kill -\(signal) $!; wait $! 2>/dev/null; echo $?
          for i in $(seq 1000); do
              [ "$(ls tmp)" ] || pgrep -f "$PWD/tmp/" >/dev/null || break
              sleep 0.01
          done
      done
      pgrep -af "$PWD/tmp/"
      """)
    let status = signal == "TERM" ? "143\n" : "137\n"
    #expect(
      run.output == String(repeating: status, count: moment.count), "\(run.output)\(run.errors)")
  }

  @Test func archivesAreUnpackedInBounds() async throws {
    let run = try await grade(
      """
      mkdir one && cp $lab/right/module-misc.c one/m.c
      tar czf good.tar.gz one; zip -qr good.zip one
      ln -s /etc/passwd one/link.c && tar cf link.tar one; rm one/link.c
      tar cPf up.tar ../$(basename $PWD)/one "$PWD/one" 2>/dev/null
      head -c 100000000 /dev/zero >one/big.c && tar czf bomb.tar.gz one; rm one/big.c
      for i in $(seq 300); do : >one/$i.h; done; tar cf many.tar one
      echo damaged >bad.tar.gz
      $virt_walkerd grade --no-sanitize good.tar.gz good.zip link.tar up.tar bomb.tar.gz many.tar bad.tar.gz
      """)
    let rows = table(run)
    #expect(
      rows.prefix(2) == ["good.tar.gz 55 55", "good.zip 55 55"], "\(run.output)\(run.errors)")
    #expect(rows.suffix(4).allSatisfy { $0.hasSuffix("- 100 not graded") }, "\(run.output)")
    #expect(!run.output.contains("root:"), "\(run.output)")
    #expect(run.status == .exited(1), "\(run.errors)")
  }

  // MARK: - Reports

  @Test func formatsParse() async throws {
    let run = try await grade(
      """
      cp $lab/right/module-misc.c '=a<b>&".c'; cp $lab/wrong/module-missing-iounmap.c .
      for format in tap junit json csv; do
          $virt_walkerd grade --no-sanitize --format $format '=a<b>&".c' module-missing-iounmap.c >out.$format || exit 1
      done
      python3 - <<'END'
      import csv, json, xml.dom.minidom
      print(sum(one["points"] for one in json.load(open("out.json"))))
      print(len(xml.dom.minidom.parse("out.junit").getElementsByTagName("failure")))
      rows = list(csv.DictReader(open("out.csv")))
      print(len(rows), rows[0]["submission"])
      END
      head -n 2 out.tap; grep -c '^not ok' out.tap
      """)
    #expect(
      run.output == "105\n1\n28 '=a<b>&\".c\nTAP version 13\n1..28\n1\n",
      "\(run.output)\(run.errors)")
  }

  @Test func reportsAreKept() async throws {
    let run = try await grade(
      """
      cp $lab/right/module-misc.c m.c
      grade() { $virt_walkerd grade --no-sanitize --output reports m.c; }
      grade 2>&1; grade 2>&1; echo >>m.c; grade 2>&1; ls reports; head -n 1 reports/m.c.txt
      """)
    #expect(run.output.components(separatedBy: "is unchanged").count == 2, "\(run.output)")
    #expect(run.output.hasSuffix("m.c.result\nm.c.txt\nm.c: 55 of 55 points\n"), "\(run.output)")
  }

  @Test func mistakesOfRubricsAreTold() async throws {
    for (line, reason) in [
      ("x load: words", "rubric:1: 'x' is not a number of points"),
      ("5 lode: words", "rubric:1: there is no check 'lode'"),
      ("5 load: a\\n5 load: b", "rubric:2: the check 'load' stands here a second time"),
    ] {
      let run = try await grade(
        "printf '\(line)\\n' >rubric; $virt_walkerd grade --rubric rubric $lab/right/module-misc.c")
      #expect(run.errors.contains(reason), "\(run.errors)")
      #expect(run.status == .exited(65))
    }
  }
}
