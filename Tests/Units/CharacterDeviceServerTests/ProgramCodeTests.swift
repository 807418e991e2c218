import Glibc
import Testing

@testable import CharacterDeviceServer

@Suite struct ProgramCodeTests {
  @Test func codeOfFilesIsFound() {
    func range(_ line: String) -> Range<UInt>? { ProgramCode.executableFileRange(line[...]) }
    #expect(
      range("55d0c000-55d0f000 r-xp 00001000 fe:00 1234                       /bin/a program")
        == 0x55d0_c000..<0x55d0_f000)
    // Memory that can be written, constants, memory of no file, and lines that proc does not have.
    #expect(range("55d0c000-55d0f000 rwxp 00001000 fe:00 1234 /bin/true") == nil)
    #expect(range("55d0c000-55d0f000 r--p 00001000 fe:00 1234 /bin/true") == nil)
    #expect(range("7ffd0000-7ffd2000 r-xp 00000000 00:00 0 [vdso]") == nil)
    #expect(range("55d0f000-55d0c000 r-xp 00001000 fe:00 1234 /bin/true") == nil)
    #expect(range("55d0c000 r-xp 00001000 fe:00 1234 /bin/true") == nil)
    #expect(range("") == nil)
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
