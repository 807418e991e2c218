import Glibc

/// The code of this process: that of the program and of its libraries, as the kernel has mapped it from their files.
package struct ProgramCode {
  private let ranges: [Range<UInt>]

  /// Finds the code. A process in a ``Sandbox`` cannot do so.
  package init() {
    ranges = ProcFile.text(of: "/proc/self/maps", limit: 1 << 16).split(separator: "\n")
      .compactMap(Self.executableFileRange)
  }

  /// Unmaps the pages of code that were used until now, so that code for the start of a program does not stay in its resident memory. The
  /// next use of a page maps it again from the page cache.
  package func releasePages() {
    for range in ranges {
      // Code is never written, so a page has the content of its file.
      madvise(UnsafeMutableRawPointer(bitPattern: range.lowerBound), range.count, MADV_DONTNEED)
    }
  }

  /// The addresses of a mapping in proc_pid_maps(5), if it is code from a file: `55d0c000-55d0f000 r-xp 00001000 fe:00 1234 /bin/true`.
  static func executableFileRange(_ line: Substring) -> Range<UInt>? {
    let fields = line.split(separator: " ", maxSplits: 5)
    guard fields.count == 6, fields[1] == "r-xp", fields[4] != "0",
      fields[5].drop(while: { $0 == " " }).hasPrefix("/")
    else {
      return nil
    }
    let ends = fields[0].split(separator: "-").map { UInt($0, radix: 16) }
    guard ends.count == 2, let start = ends[0], let end = ends[1], start < end else { return nil }
    return start..<end
  }
}
