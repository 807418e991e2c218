import Glibc
import Testing

@testable import CharacterDeviceServer

@Suite struct ProgramCodeTests {
  private static func ranges(_ line: String, anonymous: String = "0") -> [Range<UInt>] {
    ProgramCode.unchangedRanges(
      "\(line)\nSize:        12 kB\nAnonymous:    \(anonymous) kB\nVmFlags: rd ex mr mw me\n")
  }

  @Test(arguments: ["r-xp", "r--p"]) func codeAndConstantsOfFilesAreFound(access: String) {
    let line =
      "55d0c000-55d0f000 \(access) 00001000 fe:00 1234                       /bin/a program"
    #expect(Self.ranges(line) == [0x55d0_c000..<0x55d0_f000])
    // Pages that were changed: relocated addresses, or a breakpoint.
    #expect(Self.ranges(line, anonymous: "4") == [])
    // A line that proc does not have.
    #expect(Self.ranges(line, anonymous: "") == [])
  }

  @Test func severalMappings() {
    let text = """
      55d0c000-55d0f000 r--p 00001000 fe:00 1234 /bin/true
      Anonymous:             4 kB
      55d0f000-55d11000 rw-p 00004000 fe:00 1234 /bin/true
      Anonymous:             0 kB
      55d11000-55d13000 r--p 00006000 fe:00 1234 /bin/true
      Anonymous:             0 kB
      55d13000-55d14000 r-xp 00008000 fe:00 1234 /bin/true
      """
    #expect(ProgramCode.unchangedRanges(text) == [0x55d1_1000..<0x55d1_3000])
  }

  @Test(arguments: [
    "55d0c000-55d0f000 rwxp 00001000 fe:00 1234 /bin/true",
    "55d0c000-55d0f000 rw-p 00001000 fe:00 1234 /bin/true",
    "55d0c000-55d0f000 r--s 00001000 fe:00 1234 /bin/true",
    "7ffd0000-7ffd2000 r-xp 00000000 00:00 0 [vdso]",
    "55d0f000-55d0c000 r-xp 00001000 fe:00 1234 /bin/true",
    "55d0c000 r-xp 00001000 fe:00 1234 /bin/true",
    "",
  ]) func otherMemoryStays(line: String) {
    #expect(Self.ranges(line) == [])
  }

  // In a process of its own, because the code of other tests would become resident meanwhile.
  @Test func releasedCodeIsNotResident() async {
    await #expect(processExitsWith: .success) {
      func residentFiles() throws -> Int {
        let line = ProcFile.text(of: "/proc/self/status").split(separator: "\n")
          .first { $0.hasPrefix("RssFile:") }
        return try #require(line?.split(separator: " ").dropFirst().first.flatMap { Int($0) })
      }
      let before = try residentFiles()
      ProgramCode().releasePages()
      guard try residentFiles() < before else { exit(1) }
    }
  }
}
