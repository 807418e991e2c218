import DaemonSupport
import Foundation
import Subprocess
import Testing

/// Tests of `virt-walkerd replay` with page-table cases.
@Suite(.timeLimit(.minutes(15))) struct CaseReplayTests {
  private static let scenario = "machine cpu=cortex-a76 backing=anonymous memory=64M\nhost ksm\n"
  private static let operations = """
    # A page.
    machine granule=4K ipa=40 fwb=yes

    map 0x40000000 0x1000 0x80000000 rw
    # A lookup.
    leaf 0x40000000

    """
  private static let played = """
    # A page.
    machine granule=4K ipa=40 fwb=yes
      pages 2
      count 0x100000000 1
      count 0x100001000 1

    map 0x40000000 0x1000 0x80000000 rw
      result 0
      dcache 0x80000000 0x1000
      pages 4
      count 0x100000000 2
      count 0x100002000 2
      count 0x100003000 2
      entry 0x100000008 0000000100002003
      entry 0x100002000 0000000100003003
      entry 0x100003000 00400000800007db
    # A lookup.
    leaf 0x40000000
      result level 3 entry 00400000800007db rw

    """

  /// Runs `line` in a directory with the files.
  private func replay(_ line: String, _ files: [String: String] = [:]) async throws -> Outcome {
    let directory = FileManager.default.temporaryDirectory
      .appending(path: "virt-walkerd-cases-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    for (name, text) in files {
      try text.write(to: directory.appending(path: name), atomically: false, encoding: .utf8)
    }
    return try await shell("cd \(directory.path()) && \(line)", environment: ["COLUMNS": ""])
  }

  @Test func committedCasesMatch() async throws {
    let run = try await shell(
      """
      cd \(repository)/Tests/PageTableCases
      $virt_walkerd replay --check */*.txt
      for file in */*.txt; do $virt_walkerd replay $file | cmp - $file; done
      """)
    #expect(run.output.contains(/^[0-9]+ cases, [0-9]+ operations: all match\n$/), "\(run.output)")
    #expect(run.succeeded, "\(run.errors)")
  }

  @Test func caseGetsItsResults() async throws {
    let run = try await replay(
      "$virt_walkerd replay c.txt | tee p.txt && $virt_walkerd replay - <p.txt | cmp p.txt && $virt_walkerd replay --check - p.txt <p.txt",
      ["c.txt": Self.operations])
    #expect(run.output == Self.played + "2 cases, 4 operations: all match\n")
    #expect(run.succeeded, "\(run.errors)")
  }

  /// The place is the line of the first result that differs.
  @Test func firstDifferenceIsShown() async throws {
    let wrong = Self.played.replacing("count 0x100003000 2", with: "count 0x100003000 3")
    let missing = Self.played.replacing("  result level 3 entry 00400000800007db rw\n", with: "")
    let run = try await replay(
      "$virt_walkerd replay --check a.txt b.txt c.txt d.txt",
      [
        "a.txt": wrong, "b.txt": Self.played, "c.txt": missing,
        "d.txt": Self.scenario
          + "  result ETIMEDOUT\n  leaf 0x40000000 level 1 0000000000000000 counts 1\n",
      ])
    #expect(
      run.output == """
        a.txt:13: operation 1: map 0x40000000 0x1000 0x80000000 rw
          kernel                               model
          ...                                  ...
          pages 4                              pages 4
          count 0x100000000 2                  count 0x100000000 2
          count 0x100002000 2                  count 0x100002000 2
          count 0x100003000 3                ! count 0x100003000 2
          entry 0x100000008 0000000100002003   entry 0x100000008 0000000100002003
          entry 0x100002000 0000000100003003   entry 0x100002000 0000000100003003
          entry 0x100003000 00400000800007db   entry 0x100003000 00400000800007db
        c.txt:18: operation 2: leaf 0x40000000
          kernel   model
                 ! result level 3 entry 00400000800007db rw
        2 of 4 recordings and cases match, 2 differ

        """)
    #expect(run.status == .exited(1))
  }

  /// A case and a scenario are told apart by their first line, and can be given together.
  @Test func casesAndScenariosAreMixed() async throws {
    let run = try await replay(
      "$virt_walkerd replay --check c.txt - <s.txt",
      [
        "c.txt": Self.played,
        "s.txt": Self.scenario
          + "  result ETIMEDOUT\n  leaf 0x40000000 level 1 0000000000000000 counts 1\n",
      ])
    #expect(run.output == "1 recording, 1 step, 1 case, 2 operations: all match\n")
    #expect(run.succeeded, "\(run.errors)")
  }

  @Test func versionsPart() async throws {
    let run = try await replay(
      """
      $virt_walkerd replay --kernel 7.3 c.txt | head -3
      $virt_walkerd replay --kernel 7.3 c.txt | $virt_walkerd replay --kernel 6.1 - | cmp - p.txt
      $virt_walkerd replay --against 6.12 c.txt; echo $?
      cd \(repository)/Tests/PageTableCases
      $virt_walkerd replay --against 6.1 --kernel 5.10 6.1/collapse.txt >/dev/null; echo $?
      $virt_walkerd replay --against 7.3 6.12/collapse.txt; echo $?
      """, ["c.txt": Self.operations, "p.txt": Self.played])
    #expect(run.errors.isEmpty)
    #expect(
      run.output.hasPrefix(
        """
        # A page.
        kernel 7.3
        machine granule=4K ipa=40 fwb=yes
        1 case, 2 operations: all same
        0
        1
        6.12/collapse.txt:
        """), "\(run.output)")
    #expect(
      run.output.contains(
        "\n                      ! entry 0x100000008 0000000000000000\n"), "\(run.output)")
    #expect(run.output.hasSuffix("\n1 case, 4 operations: 1 differs\n1\n"))
  }

  @Test(arguments: [
    (
      "replay --hook hook.c c.txt", 64,
      "c.txt is a page-table case, which has no guest and no hook: leave out --hook"
    ),
    ("replay --kernel 6.6 c.txt", 64, "Please provide one of '5.10', '6.1', '6.12' or '7.3'"),
    ("replay --check c.txt", 65, "c.txt has no results to compare: run it without --check"),
    (
      "replay c.txt cpu.txt", 65,
      "cpu.txt:1: 'cpu=max' is for the machine of a scenario; a case has a page table only: write a line such as"
    ),
    (
      "replay split.txt", 65,
      "split.txt:2: Linux 6.1 has no function for 'split 0x0 0x1000 0x1': versions with it are 6.12, 7.3"
    ),
    ("replay --kernel 7.3 owner.txt", 65, "owner.txt:2: Linux 7.3 has no function"),
    ("replay --against 7.3 owner.txt", 65, "owner.txt:2: Linux 7.3 has no function"),
    ("replay --kernel 6.1 wide.txt", 65, "wide.txt:2: Linux 6.1 has no 52 bits: remove pa=52"),
    (
      "replay version.txt", 65,
      "version.txt:1: 'kernel 6.2' names no version of the model: write one of 5.10, 6.1, 6.12, 7.3"
    ),
    (
      "replay bad.txt", 65,
      "bad.txt:3: 'map 0x0 0x1000 0x0' lacks an argument of map: write 'map ADDRESS SIZE PHYSICAL PROTECTION [FLAG]... [no-memory]': oracle/README.md"
    ),
    (
      "replay - <explode.txt", 65,
      "standard input:2: 'explode' is not an operation: write map, set-owner"
    ),
    (
      "replay huge.txt", 65,
      "huge.txt:2: 'map 0x0 0x10000000000 0x1000 rw' can write more than 4194304 entries"
    ),
    ("replay long.txt", 65, "long.txt:2: the line is too long: a line has at most 254 bytes"),
    (
      "{ printf 'kernel 7.3\\n\\377\\n' >bytes.txt; }; $virt_walkerd replay bytes.txt", 65,
      "bytes.txt:2: the line is not UTF-8 text"
    ),
    (
      "replay c.txt no.txt", 66,
      "cannot read no.txt: No such file or directory: give the path of a scenario, a recording or a page-table case"
    ),
  ])
  func failure(line: String, status: Int32, words: String) async throws {
    let machine = "machine granule=4K ipa=40 fwb=no\n"
    let run = try await replay(
      line.hasPrefix("replay") ? "$virt_walkerd " + line : line,
      [
        "c.txt": Self.operations, "s.txt": Self.scenario, "hook.c": "",
        "cpu.txt": "machine granule=4K ipa=40 fwb=no cpu=max\n",
        "split.txt": machine + "split 0x0 0x1000 0x1\n",
        "owner.txt": machine + "set-owner 0x0 0x1000 0x1\n",
        "wide.txt": "kernel 6.12\nmachine granule=4K ipa=52 fwb=no pa=52\nleaf 0x0\n",
        "version.txt": "kernel 6.2\n" + machine,
        "bad.txt": "# Bad.\n" + machine + "map 0x0 0x1000 0x0\n",
        "explode.txt": machine + "explode\n",
        "huge.txt": machine + "map 0x0 0x10000000000 0x1000 rw\n",
        "long.txt": machine + "leaf 0x" + String(repeating: "0", count: 1 << 20) + "\n",
      ])
    #expect(run.status == .exited(status), "\(run.output)")
    #expect(run.errors.contains(words), "\(run.errors)")
    #expect(run.output.isEmpty)
  }

  /// --tables gives each case a table that it begins with.
  @Test func tableBeginsWithADump() async throws {
    let dump = """
      ---[ Guest IPA ]---
      0x0000000000000000-0x0000000040000000           1G 1
      0x0000000040000000-0x0000000040001000           4K 3   R W PXNUXN AF    
      0x0000000040001000-0x0000000040200000        2044K 3
      0x0000000040200000-0x0000000080000000        1022M 2

      """
    let run = try await replay(
      """
      $virt_walkerd replay --tables dump.txt c.txt | tee p.txt
      $virt_walkerd replay --check --tables - p.txt <dump.txt
      $virt_walkerd replay --check p.txt | head -1
      $virt_walkerd replay --against 7.3 --tables dump.txt p.txt | tail -1
      $virt_walkerd replay --tables dump.txt s.txt; echo $?
      $virt_walkerd replay --tables dump.txt c.txt wide.txt; echo $?
      $virt_walkerd replay --tables no.txt c.txt; echo $?
      $virt_walkerd replay --tables '' c.txt; echo $?
      """,
      [
        "c.txt": "machine granule=4K ipa=40 fwb=no\nleaf 0x40000000\nunmap 0x40000000 0x1000\n",
        "wide.txt": "machine granule=4K ipa=32 fwb=no\nleaf 0x0\n", "dump.txt": dump,
        "s.txt": Self.scenario,
      ])
    #expect(
      run.output == """
        machine granule=4K ipa=40 fwb=no
          pages 4
          count 0x100000000 2
          count 0x100001000 1
          count 0x100002000 2
          count 0x100003000 2
          entry 0x100000008 0000000100002003
          entry 0x100002000 0000000100003003
          entry 0x100003000 00400000400007ff
        leaf 0x40000000
          result level 3 entry 00400000400007ff rw
        unmap 0x40000000 0x1000
          result 0
          tlbi 0x40000000 level 3
          dcache 0x40000000 0x1000
          tlbi 0x40000000 level 0
          tlbi 0x40000000 level 0
          pages 2
          count 0x100000000 1
          count 0x100002000 0
          count 0x100003000 0
          entry 0x100000008 0000000000000000
          entry 0x100002000 0000000000000000
          entry 0x100003000 0000000000000000
        1 case, 2 operations: all match
        p.txt:2: at first: machine granule=4K ipa=40 fwb=no
        1 case, 2 operations: all same
        64
        65
        66
        64

        """)
    for words in [
      "--tables: s.txt is a scenario, and the entries of its machine belong to pages of the host",
      "dump.txt:2: there is no level 1: a table with ipa=32 granule=4K has levels 2 to 3",
      "cannot read no.txt: No such file or directory: give the path of a file stage2_page_tables",
      "an empty name is not a file",
    ] { #expect(run.errors.contains(words), "\(run.errors)") }
  }

  /// A case needs no memory for its lines, and a regular file can have any size.
  @Test func memoryIsThatOfTheTable() async throws {
    let lines = "map 0x40000000 0x1000 0x80000000 rw\nunmap 0x40000000 0x1000\n"
    let comment = "# " + String(repeating: "-", count: 200) + "\n"
    let text =
      "machine granule=4K ipa=40 fwb=no\n" + String(repeating: lines, count: 500)
      + String(repeating: comment, count: 90_000)
    let run = try await replay(
      """
      ulimit -v 110000
      $virt_walkerd replay big.txt >played.txt && $virt_walkerd replay --check played.txt
      """, ["big.txt": text])
    #expect(run.output == "1 case, 1000 operations: all match\n")
    #expect(run.succeeded, "\(run.errors)")
  }
}
