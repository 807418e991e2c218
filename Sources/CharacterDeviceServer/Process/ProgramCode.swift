import CLinux
import Glibc

/// The code and the constants of this process: those of the program and of its libraries, as the kernel has mapped them from their files.
package struct ProgramCode {
  private let ranges: [Range<UInt>]

  /// Finds the code and the constants. A process in a ``Sandbox`` cannot do so.
  package init() {
    ranges = Self.unchangedRanges(ProcFile.text(of: "/proc/self/smaps", limit: 1 << 20))
  }

  /// Unmaps the pages of code and constants that were used until now, and gives freed memory back, so that the memory of the start of a
  /// program does not stay resident. The next use of a page maps it again from the page cache.
  package func releasePages() {
    for range in ranges {
      madvise(UnsafeMutableRawPointer(bitPattern: range.lowerBound), range.count, MADV_DONTNEED)
    }
    clinux_malloc_trim()
  }

  /// The addresses of mappings in proc_pid_smaps(5) that have the content of their files, and that the process cannot write. Others have
  /// pages of their own, which would be lost: relocated addresses, and the breakpoints of a debugger.
  static func unchangedRanges(_ smaps: String) -> [Range<UInt>] {
    var ranges: [Range<UInt>] = []
    var current: Range<UInt>?
    for line in smaps.split(separator: "\n") {
      if line.hasPrefix("Anonymous:") {
        let fields = line.split(separator: " ")
        if let current, fields.count == 3, fields[1] == "0" { ranges.append(current) }
        current = nil
      } else if let range = fileRange(line) {
        current = range
      }
    }
    return ranges
  }

  /// The addresses in the first line of a mapping, if it is a file that is only read: `55d0c000-55d0f000 r-xp 00001000 fe:00 1234 /bin/true`.
  private static func fileRange(_ line: Substring) -> Range<UInt>? {
    let fields = line.split(separator: " ", maxSplits: 5)
    guard fields.count == 6, fields[1] == "r-xp" || fields[1] == "r--p", fields[4] != "0",
      fields[5].drop(while: { $0 == " " }).hasPrefix("/")
    else {
      return nil
    }
    let ends = fields[0].split(separator: "-").map { UInt($0, radix: 16) }
    guard ends.count == 2, let start = ends[0], let end = ends[1], start < end else { return nil }
    return start..<end
  }
}
