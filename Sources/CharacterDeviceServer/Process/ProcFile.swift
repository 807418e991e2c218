import Glibc
import SystemPackage

/// Files of proc(5), which are read whole at once.
package enum ProcFile {
  /// The first 4096 bytes of a file; empty if it cannot be read.
  package static func text(of path: String) -> String {
    guard let file = try? FileDescriptor.open(path, .readOnly, options: [.closeOnExec]) else {
      return ""
    }
    defer { try? file.close() }
    var bytes = [UInt8](repeating: 0, count: 4096)
    let count = try? bytes.withUnsafeMutableBytes { try file.read(into: $0) }
    return String(decoding: bytes.prefix(count ?? 0), as: UTF8.self)
  }

  /// A field of proc_pid_stat(5), 3 (the state) or a later one; nil if there is no such process.
  package static func stat(of process: pid_t, field: Int) -> Substring? {
    let text = text(of: "/proc/\(process)/stat")
    // The name of the program, field 2, is in parentheses, and may contain any character.
    guard let name = text.lastIndex(of: ")") else { return nil }
    let fields = text[name...].split(separator: " ")
    return fields.indices.contains(field - 2) ? fields[field - 2] : nil
  }
}
