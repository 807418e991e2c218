import Glibc
import SystemPackage

/// Files of proc(5), which are read whole.
package enum ProcFile {
  /// The first bytes of a file, as many as `limit`; empty if it cannot be read.
  package static func text(of path: String, limit: Int = 4096) -> String {
    guard let file = try? FileDescriptor.open(path, .readOnly, options: [.closeOnExec]) else {
      return ""
    }
    defer { try? file.close() }
    var bytes = [UInt8](repeating: 0, count: limit)
    var count = 0
    // The kernel gives a page of a long file at a time.
    while count < limit,
      let part = try? bytes.withUnsafeMutableBytes({
        try file.read(into: UnsafeMutableRawBufferPointer(rebasing: $0[count...]))
      }), part > 0
    {
      count += part
    }
    return String(decoding: bytes.prefix(count), as: UTF8.self)
  }

  /// A field of proc_pid_stat(5), 3 (the state) or a later one; nil if there is no such process.
  package static func stat(of process: pid_t, field: Int) -> Substring? {
    // Bytes and not characters: the files of all processes were a third of the instructions of a start of exec.
    let text = text(of: "/proc/\(process)/stat").utf8
    // The name of the program, field 2, is in parentheses, and may contain any character.
    guard let name = text.lastIndex(of: UInt8(ascii: ")")) else { return nil }
    let fields = text[name...].split(separator: UInt8(ascii: " "), maxSplits: field - 1)
    return fields.indices.contains(field - 2) ? Substring(fields[field - 2]) : nil
  }
}
