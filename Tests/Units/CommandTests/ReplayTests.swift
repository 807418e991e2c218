import DaemonSupport
import Foundation
import Subprocess
import SystemPackage
import Testing

/// Tests of `virt-walkerd replay` as users and scripts run it.
@Suite(.timeLimit(.minutes(15))) struct ReplayTests {
  private static let head = "# Two steps.\nmachine cpu=cortex-a76 backing=anonymous memory=64M\n"
  private static let scenario =
    head + "\nhost write 0x40000000 0x7\nguest ldr w0,[0x40000000]\n"
  private static let recording =
    head + """

      host write 0x40000000 0x7
        result 0
        leaf 0x40000000 level 1 0000000000000000 counts 1
      guest ldr w0,[0x40000000]
        run retired pc +4 x0 0x7
        abort esr=82000005 far=0000000080000000 hpfar=0000800000
        abort esr=93800005 far=0000000040000000 hpfar=0000400000
        leaf 0x40000000 level 1 0000000000000000 counts 1 -> level 3 00400000000007ff @A counts 3 2 2

      """

  /// Runs `line` in a directory with the files. The line can use `$virt_walkerd` and the names of the files.
  private func replay(
    _ line: String, _ files: [String: String] = [:], columns: Int? = nil
  ) async throws -> Outcome {
    let directory = FileManager.default.temporaryDirectory
      .appending(path: "virt-walkerd-replay-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    for (name, text) in files {
      try text.write(to: directory.appending(path: name), atomically: false, encoding: .utf8)
    }
    return try await shell(
      "cd \(directory.path()) && \(line)",
      environment: ["COLUMNS": columns.map { "\($0)" } ?? ""])
  }

  /// --kernel runs a file on another version, and --against shows the steps in which two versions differ.
  @Test func versionsPart() async throws {
    let file = "\(repository)/Tests/Recordings/6.1/host-a72-anonymous-protect-read.txt"
    let run = try await shell(
      """
      $virt_walkerd replay --kernel 5.10 --against 6.1 \(file); echo $?
      $virt_walkerd replay --against 6.1 \(file); echo $?
      $virt_walkerd replay --kernel 5.10 \(file) | grep -c '^machine kernel=5.10 '
      $virt_walkerd replay --check --against 6.1 \(file); echo $?
      """)
    #expect(run.output.contains("\n  Linux 5.10 "), "\(run.output)")
    #expect(run.output.contains("004000000000077f @A counts 3 2 2 ! leaf"))
    #expect(run.output.hasSuffix(" steps: all same\n0\n1\n64\n"), "\(run.output)")
    #expect(run.errors.contains("print different things"))
  }

  /// --page writes a file, and replaces only a regular file. After an error, nothing is left.
  @Test func pages() async throws {
    let run = try await replay(
      #"""
      $virt_walkerd replay --page page.html a.txt && head -c 15 page.html && echo
      echo old >page.html && $virt_walkerd replay --page page.html a.txt a.txt
      $virt_walkerd replay --page page.html --kernel 5.10 --against 6.12 a.txt
      ls
      $virt_walkerd replay --page page.html --check a.txt; echo $?
      $virt_walkerd replay --page page.html --step a.txt; echo $?
      $virt_walkerd replay --page page.html --casemate a.txt; echo $?
      $virt_walkerd replay --page '' a.txt; echo $?
      mkdir directory; $virt_walkerd replay --page directory a.txt; echo $?
      ln -s page.html link; $virt_walkerd replay --page link a.txt; echo $?
      $virt_walkerd replay --page missing/page.html a.txt; echo $?
      echo wrong >b.txt; $virt_walkerd replay --page new.html a.txt b.txt; echo $?
      $virt_walkerd replay --page new.html \#(repository)/Tests/PageTableCases/6.1/gigabyte.txt; echo $?
      $virt_walkerd explain --all --page new.html; echo $?
      $virt_walkerd explain 0x41 --page new.html --kernel all
      rmdir directory; rm new.html; ls
      """#, ["a.txt": Self.scenario])
    #expect(
      run.output == """
        page.html: 1 machine, 2 steps
        <!DOCTYPE html>
        page.html: 2 machines, 4 steps
        page.html: 2 machines, 4 steps
        a.txt
        page.html
        64
        64
        64
        64
        73
        73
        73
        65
        64
        64
        new.html: 108 machines, 1092 steps
        a.txt
        b.txt
        link
        page.html

        """)
    #expect(
      run.errors.contains("cannot replace directory: it is no regular file"), "\(run.errors)")
    #expect(run.errors.contains("cannot write missing/page.html: No such file or directory"))
    #expect(run.errors.contains("leave out --page"))
  }

  /// docs/tour.html is the page of docs/tour.txt: scripts/page makes it.
  @Test func pageOfTheTour() async throws {
    let run = try await shell(
      """
      page=$(mktemp) && cd \(repository)/docs && $virt_walkerd replay --page $page tour.txt >/dev/null && cmp $page tour.html
      echo $? && rm $page
      """)
    #expect(run.output == "0\n", "\(run.output)\(run.errors)")
  }

  /// --step prints the events inside of each step if the output is no terminal, for the built-in hook and for a user's one, and
  /// --casemate the writes alone.
  @Test func eventsInsideOfSteps() async throws {
    let file = "\(repository)/Tests/Recordings/6.1/facts-a76-page.txt"
    let hook = "\(repository)/Examples/lab/right/get-leaf.c"
    let run = try await shell(
      """
      $virt_walkerd replay --step \(file) >events && head -n 8 events; grep -c '^step ' events
      $virt_walkerd replay --step --hook \(hook) --hook-function virt_walker_mmio \(file) | grep -c '^  hook\\|^  visit'
      $virt_walkerd replay --casemate \(file) | grep -c mem-write
      $virt_walkerd replay --step --casemate \(file); echo $?
      $virt_walkerd replay --casemate \(file) \(file); echo $?
      $virt_walkerd replay --casemate \(repository)/Tests/Recordings/6.1/merge-16K.txt; echo $?
      rm events
      """)
    let lines = run.output.split(separator: "\n")
    try #require(lines.count == 14, "\(run.output)\(run.errors)")
    #expect(lines[0] == "step       guest strb w0,[0x0b000000] x0=0x1241")
    #expect(lines[3].contains("instruction abort, translation fault, level 1"))
    #expect(lines[5] == "  walk       stage2_map_walker: 0x40001000-0x40002000")
    #expect(lines[7] == "  write      level 1 at 0x100000008: 0000000000000000 -> 0000000100002003")
    #expect(lines[8] == "89")
    #expect(Int(lines[9]) ?? 0 > 100 && Int(lines[10]) ?? 0 > 10, "\(run.output)")
    #expect(Array(lines[11...]) == ["64", "64", "69"], "\(run.output)")
    #expect(run.errors.contains("print different things"))
    #expect(run.errors.contains("--casemate writes the log of one machine"))
    #expect(run.errors.contains("casemate needs pages of 4K"))
  }

  @Test func scenarioBecomesARecording() async throws {
    let run = try await replay("$virt_walkerd replay s.txt", ["s.txt": Self.scenario])
    #expect(run.output == Self.recording)
    #expect(run.succeeded, "\(run.errors)")
  }

  @Test func recordingIsPlayedAnew() async throws {
    let wrong = Self.recording.replacing("x0 0x7", with: "x0 0x8")
    let run = try await replay(
      "$virt_walkerd replay - s.txt < r.txt", ["r.txt": wrong, "s.txt": Self.scenario])
    #expect(run.output == Self.recording + Self.recording)
    #expect(run.succeeded, "\(run.errors)")
  }

  @Test func whatIsPlayedMatches() async throws {
    let run = try await replay(
      "$virt_walkerd replay s.txt | $virt_walkerd replay --check -", ["s.txt": Self.scenario])
    #expect(run.output == "1 recording, 2 steps: all match\n")
    #expect(run.succeeded, "\(run.errors)")
  }

  @Test func committedRecordingsMatch() async throws {
    let run = try await shell(
      "$virt_walkerd replay --check \(repository)/Tests/Recordings/6.1/bytes-a7*")
    #expect(run.output == "4 recordings, 6152 steps: all match\n")
    #expect(run.succeeded, "\(run.errors)")
  }

  @Test func firstDifferenceOfEachFileIsShown() async throws {
    let wrong = Self.recording.replacing("result 0", with: "result EFAULT")
      .replacing("x0 0x7", with: "x0 0x8")
    let line = "$virt_walkerd replay --check a.txt b.txt c.txt"
    let files = ["a.txt": wrong, "b.txt": Self.recording, "c.txt": wrong]
    let wide = try await replay(line, files)
    let title = ":4: step 1: host write 0x40000000 0x7\n"
    let leaf = "leaf 0x40000000 level 1 0000000000000000 counts 1"
    let columns = """
        kernel                                              model
        result EFAULT                                     ! result 0
        \(leaf)   \(leaf)

      """
    #expect(
      wide.output
        == "a.txt\(title)\(columns)c.txt\(title)\(columns)1 of 3 recordings match, 2 differ\n")
    #expect(wide.status == .exited(1))
    #expect(wide.errors.isEmpty)

    let narrow = try await replay(line, files, columns: 80)
    let stacked = "! kernel: result EFAULT\n! model:  result 0\n  \(leaf)\n"
    #expect(
      narrow.output
        == "a.txt\(title)\(stacked)c.txt\(title)\(stacked)1 of 3 recordings match, 2 differ\n")
  }

  /// Several threads compare the files. The results, and the first error, are in the order of the files.
  @Test func resultsAreInOrder() async throws {
    let wrong = Self.recording.replacing("result 0", with: "result EFAULT")
    let run = try await replay(
      """
      for number in $(seq 100 299); do cp wrong.txt $number.txt; done
      for run in 1 2 3; do $virt_walkerd replay --check *.txt | sed -n 's/.txt:.*//p' | tr '\\n' ' ' | md5sum; done
      { seq 100 299; echo wrong; } | tr '\\n' ' ' | md5sum
      mv wrong.txt 150.txt; for number in 120 190 280; do echo none >$number.txt; done
      for run in 1 2 3; do $virt_walkerd replay --check *.txt; done
      """, ["wrong.txt": wrong])
    let sums = run.output.split(separator: "\n")
    #expect(sums.count == 4 && Set(sums).count == 1, "\(run.output)")
    let errors = run.errors.split(separator: "\n")
    #expect(errors.count == 3, "\(run.errors)")
    for error in errors { #expect(error.hasPrefix("virt-walkerd: 120.txt:1:1: ")) }
  }

  /// Empty lines and comments need no memory except their text, with and without --check, and for any number of files.
  /// An earlier version took 188 MB for each MiB of such a file.
  @Test(arguments: ["", "#", "# c"])
  func memoryIsThatOfWhatIsPlayed(line: String) async throws {
    let rest = String(repeating: line + "\n", count: 1 << 18)
    let text = Self.scenario + rest
    let recording = Self.recording + rest
    let run = try await replay(
      """
      # Each thread would reserve 64 MiB of addresses for its memory.
      export MALLOC_ARENA_MAX=1; ulimit -v 110000
      $virt_walkerd replay a.txt - a.txt <a.txt | cmp - expected.txt
      head -c \(recording.utf8.count) expected.txt >b.txt
      $virt_walkerd replay --check b.txt b.txt
      """, ["a.txt": text, "expected.txt": String(repeating: recording, count: 3)])
    #expect(run.output == "2 recordings, 4 steps: all match\n")
    #expect(run.errors.isEmpty)
  }

  /// replay without --check does not keep the observations of a step.
  @Test func memoryIsNotThatOfWhatWasSeen() async throws {
    let text = Self.head + "host ksm\n" + String(repeating: "  seen\n", count: 1 << 20)
    let run = try await replay("ulimit -v 110000; $virt_walkerd replay a.txt", ["a.txt": text])
    #expect(run.output.hasPrefix(Self.head + "host ksm\n  result ETIMEDOUT\n"))
    #expect(run.succeeded, "\(run.errors)")
  }

  /// A line with a space is printed as it is in the file, and is the same step as the line without the space.
  @Test func spaceBehindACommaStays() async throws {
    let spaced = Self.scenario.replacing("w0,[", with: "w0, [")
    let run = try await replay(
      "$virt_walkerd replay s.txt | tee r.txt && $virt_walkerd replay --check r.txt",
      ["s.txt": spaced])
    #expect(
      run.output == Self.recording.replacing("w0,[", with: "w0, [")
        + "1 recording, 2 steps: all match\n")
    #expect(run.succeeded, "\(run.errors)")
  }

  /// A pipe can be read only once. A file is read when it is checked, and again when it is played.
  @Test func pipesAndFilesAreMixed() async throws {
    let run = try await replay(
      """
      :
      mkfifo pipe
      cat s.txt >pipe &
      $virt_walkerd replay s.txt pipe - s.txt <r.txt
      """, ["r.txt": Self.recording, "s.txt": Self.scenario])
    #expect(run.output == String(repeating: Self.recording, count: 4))
    #expect(run.succeeded, "\(run.errors)")
  }

  @Test(arguments: [
    (
      "$virt_walkerd replay bad.txt", 65,
      "bad.txt:2:6: expected write, read, madvise, mprotect, munmap, mmap, fork, end-fork, ksm, age, dirty-log or slot, found 'knife': docs/scenario.md describes the language"
    ),
    (
      "$virt_walkerd replay --check - < bad.txt", 65,
      "standard input:2:6: expected write"
    ),
    (
      "$virt_walkerd replay --check r.txt s.txt", 65,
      "s.txt has no observations to compare: it is a scenario; run it without --check"
    ),
    ("$virt_walkerd replay r.txt bad.txt", 65, "bad.txt:2:6: "),
    ("$virt_walkerd replay empty.txt", 65, "empty.txt:1:1: expected machine, found the end"),
    ("printf 'machine cpu=\\377' | $virt_walkerd replay -", 65, "standard input is not UTF-8 text"),
    ("$virt_walkerd replay /dev/zero", 65, "/dev/zero is longer than 16 MiB"),
    (
      "$virt_walkerd replay no-such.txt", 66,
      "cannot read no-such.txt: No such file or directory: give the path of a scenario, a recording or a page-table case"
    ),
    ("$virt_walkerd replay r.txt .", 66, "cannot read .: Is a directory"),
    ("$virt_walkerd replay", 64, "Missing expected argument '<file> ...'"),
    ("$virt_walkerd replay ''", 64, "an empty name is not a file"),
    ("$virt_walkerd replay - r.txt -", 64, "standard input can be read once: give - once"),
    ("$virt_walkerd replay --fast r.txt", 64, "Unknown option '--fast'"),
    ("$virt_walkerd replay r.txt >/dev/full", 71, "No space left on device"),
  ])
  func failure(line: String, status: Int32, words: String) async throws {
    let run = try await replay(
      line,
      [
        "bad.txt": "machine cpu=max\nhost knife\n", "empty.txt": "", "r.txt": Self.recording,
        "s.txt": Self.scenario,
      ])
    #expect(run.status == .exited(status))
    #expect(run.errors.contains(words), "\(run.errors)")
    // No file is played unless all files can be played.
    #expect(run.output.isEmpty)
  }

  /// Comments, observations, names and arguments may come from another user. Their control characters never reach the
  /// terminal.
  @Test(arguments: [
    "$virt_walkerd replay r.txt", "$virt_walkerd replay --check r.txt",
    "COLUMNS=200 $virt_walkerd replay --check r.txt",
    "cp r.txt \"$e\"; $virt_walkerd replay --check \"$e\"",
    "$virt_walkerd replay \"$e.none\"", "$virt_walkerd serve --path \"/none/$e\"",
    "$virt_walkerd serve --cpu \"$e\"", "$virt_walkerd serve \"--$e\"", "$virt_walkerd \"$e\"",
  ])
  func nothingSteersTheTerminal(line: String) async throws {
    let sequence = "\u{1b}]0;x\u{7}\u{9b}2J"
    let recording =
      "# \(sequence)\n" + Self.recording.replacing("result 0", with: "result \(sequence)")
    let run = try await replay(
      "e=$(printf '\\033]0;x\\007'); \(line)", ["r.txt": recording])
    let printed =
      run.output.split(separator: "\n").filter { !$0.hasSuffix(")") }.joined() + run.errors
    #expect(printed.contains("\\x1b]0;x\\x07"), "\(printed)")
    let controls = printed.unicodeScalars.filter {
      $0.properties.generalCategory == .control && $0 != "\n"
    }
    #expect(controls.isEmpty)
  }

  @Test func helpSaysWhatThereIs() async throws {
    let help = try await shell("$virt_walkerd replay --help")
    for words in ["--check", "<file>", "standard input", "Exit status: 0", " 65 ", " 66 ", " 69 "] {
      #expect(help.output.replacing("\n", with: " ").contains(words), "\(words)")
    }
    let all = try await shell("$virt_walkerd --help")
    #expect(all.output.contains("\n  replay "))
  }
}
