import DaemonSupport
import Foundation
import Subprocess
import SystemPackage
import Testing

/// Tests of `virt-walkerd explain` as users and scripts run it.
@Suite(.endingDaemons, .timeLimit(.minutes(15))) struct ExplainTests {
  private func explain(_ arguments: String) async throws -> Outcome {
    try await shell("$virt_walkerd explain \(arguments)")
  }

  @Test func hangIsExplained() async throws {
    let run = try await explain("0x04 --cpu cortex-a76")
    #expect(run.succeeded && run.errors.isEmpty, "\(run.errors)")
    for line in [
      "byte 0x04 hidden into the entry of 0x40000000",
      "machine cpu=cortex-a76 backing=huge memory=256M",
      "entry, level 2, a block of 2 MiB",
      "guest loads                        kept                   bytes-a76-huge",
      "guest executes                     kept, guest hangs      bytes-a76-huge",
      "  tlb: stale TLB entries possible (the hide)",
      "  hang: the guest hangs (guest executes)",
      "  hang: the guest hangs (guest executes in the next page)",
      "    page_count 2 after the next load, where 3 would be right",
      "harmless: no",
    ] {
      #expect(run.output.split(separator: "\n").contains { $0 == line }, "\(line)")
    }
    let old = try await explain("0x04 --cpu cortex-a72")
    #expect(old.output.contains("RES0: this CPU has no FEAT_XNX"))
    #expect(!old.output.contains("hang"))
    #expect(old.output.hasSuffix("\nharmless: yes\n"))
  }

  /// The versions stand side by side. Rows that differ have a mark, and the causes stand below the table.
  @Test func versionsAreSideBySide() async throws {
    let run = try await explain("0xb1 --kernel all")
    #expect(run.succeeded && run.errors.isEmpty, "\(run.errors)")
    let lines = run.output.split(separator: "\n", omittingEmptySubsequences: false)
    for line in [
      "machine cpu=cortex-a76 backing=huge memory=256M",
      "  event                              5.10                   6.1                6.12               7.3",
      "  guest loads                        kept                   kept               kept               kept",
      "! madvise populate-write, 2 MiB      refused: EINVAL, kept  kept               kept               kept",
      "! madvise dontneed                   lost: b1, then 08      lost: 00, then 08  lost: 00, then 08  lost: 00, then 08",
      "the causes", "  6.1: madvise(2) knows MADV_COLLAPSE",
    ] {
      #expect(lines.contains { $0 == line }, "\(line)")
    }
    #expect(run.output.contains("kvm_set_invalid_pte"))
    // One version is explained as before.
    let small = try await explain("0xb1 --kernel all --backing anonymous")
    for line in [
      "! KSM merges the page                lost: 08, then 08      lost: 08, then 08  lost: 00, then 08  lost: 00, then 08",
      "  6.10: the MMU notifier change_pte() is gone, so KVM maps a page that KSM or a copy has replaced at the guest's next access",
    ] {
      #expect(small.output.split(separator: "\n").contains { $0 == line }, "\(small.output)")
    }
    let one = try await explain("0xb1 --kernel 5.10")
    #expect(one.output.contains("\nmachine kernel=5.10 cpu=cortex-a76 backing=huge memory=256M\n"))
  }

  @Test(arguments: [
    ("--kernel 4.19", "'4.19' is not a version of the model: give 5.10, 6.1, 6.12, 7.3 or all"),
    ("--kernel 6.6", "'6.6' is not a version of the model"),
    ("--kernel all --all", "--kernel all one of a byte"),
  ])
  func badVersion(options: String, words: String) async throws {
    let byte = options.contains("--all") ? "" : "0x41"
    let run = try await explain("\(byte) \(options)")
    #expect(run.status == .exited(64))
    #expect(run.errors.contains(words), "\(run.errors)")
  }

  /// With another granule, the neighbouring pages and the huge pages differ. No recording of such a machine has the
  /// events.
  @Test func otherGranule() async throws {
    let run = try await explain("0x04 --granule 16K --backing huge")
    for line in [
      "machine cpu=cortex-a76 granule=16K backing=huge memory=256M",
      "entry, level 2, a block of 32 MiB",
      "guest executes                     kept, guest hangs      -",
      "madvise dontneed, 32 MiB           lost: 00, then 08      -",
      "madvise dontneed, next page        lost: 00, then 08      -",
      "    ESR_EL2 0x8200000e for 0x40004000 again and again: KVM finds nothing more to allow",
    ] {
      #expect(run.output.split(separator: "\n").contains { $0 == line }, "\(line)")
    }
    #expect(!run.output.contains("recorded in explain"))
    #expect(!run.output.contains("EFAULT"))
    let page = try await explain("0x04 --granule 64K")
    #expect(page.output.contains("\nentry, level 3, a page of 64 KiB\n"))
    #expect(page.output.contains("\nmadvise dontneed, 256 MiB          lost"))
    let hugetlb = try await explain("0x04 --granule 64K --backing hugetlb")
    #expect(hugetlb.output.contains("\nentry, level 2, a block of 512 MiB\n"))
    #expect(try await explain("0x04 --ipa 32").output.contains(" ipa=32 backing=huge"))
  }

  @Test func eachWayToWriteAByte() async throws {
    let run = try await explain("65")
    #expect(run.output.hasPrefix("byte 0x41 hidden "))
    for other in ["0x41", "0b1000001", "0x0041"] {
      #expect(try await explain(other).output == run.output, "\(other)")
    }
  }

  @Test(arguments: [
    ("cortex-a72", "anonymous", 64, "0xf5 (DBM XN[0] sw55 sw56 sw57 sw58)"),
    ("cortex-a76", "huge", 32, "0xf1 (DBM sw55 sw56 sw57 sw58)"),
    ("max", "hugetlb", 32, "0xf1 (DBM sw55 sw56 sw57 sw58)"),
  ])
  func tableOfAll(cpu: String, backing: String, harmless: Int, bits: String) async throws {
    let run = try await explain("--all --cpu \(cpu) --backing \(backing)")
    let lines = run.output.split(separator: "\n").map(String.init)
    let rows = lines.filter { $0.wholeMatch(of: /[0-9a-f]{2} .*(yes|no)/) != nil }
    #expect(rows.count == 256)
    #expect(rows.count { $0.hasSuffix(" yes") } == harmless)
    #expect(
      lines.contains("harmless: \(harmless) of 256: those with no other bits than \(bits)"))
    #expect(lines.contains("hang: \(cpu == "cortex-a72" ? 0 : 64)"))
    #expect(lines.contains("bbm: 128"))
    #expect(lines.contains("ref, where the entry maps nothing: 255"))
  }

  @Test func linesAreReadable() async throws {
    let run = try await shell(
      """
      for cpu in cortex-a72 cortex-a76 max; do
        for backing in anonymous huge hugetlb memfd file; do
          $virt_walkerd explain 0xff --cpu $cpu --backing $backing
          $virt_walkerd explain 0x06 --cpu $cpu --backing $backing
        done
        $virt_walkerd explain 0x06 --cpu $cpu --granule 64K --ipa 36
      done
      $virt_walkerd explain --all
      """)
    let lines = run.output.split(separator: "\n", omittingEmptySubsequences: false)
    #expect(lines.count > 1000)
    #expect(lines.filter { $0.utf8.count > 100 || $0.last == " " } == [])
    #expect(run.output.utf8.allSatisfy { $0 == 10 || 0x20...0x7e ~= $0 })
  }

  /// The example in the document is the output of the command, except for the lines that are left out.
  @Test func documentShowsWhatIsPrinted() async throws {
    let document = try String(
      contentsOfFile: repository.appending("docs/what-the-kernel-does.md").string, encoding: .utf8)
    let example = try #require(
      document.firstMatch(of: /\n\$ virt-walkerd explain (.+)\n((?:.*\n)+?)```/))
    let run = try await explain(String(example.output.1))
    var rest = run.output.split(separator: "\n")[...]
    for line in example.output.2.split(separator: "\n") where line != "..." {
      let index = rest.firstIndex(of: line)
      #expect(index != nil, "\(line)")
      if let index { rest = rest[(index + 1)...] }
    }
  }

  @Test(arguments: [
    ("", 64, "give a byte to explain, such as 0x41, or --all, and not both"),
    ("1 --all", 64, "give a byte to explain, such as 0x41, or --all, and not both"),
    ("256", 64, "'256' is not a byte: write 0 to 255, 0x00 to 0xff or 0b00000000 to 0b11111111"),
    ("0x100", 64, "'0x100' is not a byte: write"),
    ("0x", 64, "'0x' is not a byte: write"),
    ("0b102", 64, "'0b102' is not a byte: write"),
    ("010", 64, "'010' is not a byte: write"),
    ("+1", 64, "'+1' is not a byte: write"),
    ("''", 64, "'' is not a byte: write"),
    ("A", 64, "'A' is not a number: its byte is 0x41"),
    ("1 2", 64, "Unexpected argument '2'"),
    ("1 --cpu z80", 64, "Please provide one of 'cortex-a72', 'cortex-a76' or 'max'"),
    ("1 --memory 1G", 64, "Unknown option '--memory'"),
    ("1 --granule 8K", 64, "'8K' is not a page size: give 4K, 16K or 64K"),
    ("1 --ipa 44", 64, "--ipa 44: cortex-a76 has 32 to 40 bits"),
    ("--all --ipa 31 --cpu max", 64, "--ipa 31: max has 32 to 48 bits"),
    ("1 >/dev/full", 71, "No space left on device"),
  ])
  func failure(arguments: String, status: Int32, words: String) async throws {
    let run = try await explain(arguments)
    #expect(run.status == .exited(status))
    #expect(run.errors.contains(words), "\(run.errors)")
    #expect(run.output.isEmpty)
  }

  @Test func helpSaysWhatTheWordsMean() async throws {
    let help = try await explain("--help").output.replacing("\n", with: " ")
    for words in ["bbm: ", "tlb: ", "hang: ", "ref: ", "harmless", "--all", "Exit status: 0"] {
      #expect(help.contains(words), "\(words)")
    }
  }
}
