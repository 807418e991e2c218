import Glibc
import SystemPackage

/// The table of the mounts that this process sees: proc_pid_mountinfo(5).
///
/// If a file system is unmounted lazily (umount -l), its server gets no notice: programs that have a file of it open go on, and all
/// other programs find the directory below. A ``Keeper`` tells its server that the table has changed. The server can look into the table
/// then, and end if its mount is missing.
public final class MountTable {
  /// The descriptor of the table. It has urgent data when mounts were added or removed. Only one poll(2) gets this event, so the
  /// descriptor can be in one set only.
  let descriptor: FileDescriptor

  /// One mount.
  public struct Mount: Hashable, Sendable {
    /// The kernel's numbers: of the mount, of its parent and of its file system.
    private let numbers: [ArraySlice<UInt8>]
    /// The file system's type, for example "tmpfs" or "fuse.mirror".
    let type: String

    fileprivate init(_ fields: [ArraySlice<UInt8>]) {
      numbers = Array(fields.prefix(3))
      // A dash ends the optional fields.
      let end = fields.drop { $0 != [UInt8(ascii: "-")] }
      type = String(decoding: end.dropFirst().first ?? [], as: UTF8.self)
    }
  }

  /// Opens the table, which takes a descriptor.
  public init() throws(Errno) {
    let descriptor = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw .current }
    self.descriptor = FileDescriptor(rawValue: descriptor)
  }

  deinit { try? descriptor.close() }

  /// The mount over each path; the last one if there are several. A path without a mount is not in the result. The table is read
  /// once.
  public func mounts(at paths: some Sequence<FilePath>) -> [FilePath: Mount] {
    var last: [ArraySlice<UInt8>: Mount] = [:]
    for fields in lines where fields.count > 4 { last[fields[4]] = Mount(fields) }
    var mounts: [FilePath: Mount] = [:]
    for path in paths { mounts[path] = last[Self.escaped(path)[...]] }
    return mounts
  }

  /// The elements of `mounts` that are not there any more.
  public func missing(of mounts: some Sequence<Mount>) -> Set<Mount> {
    var missing = Set(mounts)
    // A read of the table may miss a line while other lines change.
    for _ in 1...3 where !missing.isEmpty { missing.subtract(lines.map(Mount.init)) }
    return missing
  }

  /// A path in the form of the table, which has octal numbers for characters that end a field, and for the backslash.
  private static func escaped(_ path: FilePath) -> [UInt8] {
    path.string.utf8.flatMap { byte in
      switch byte {
      case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\n"), UInt8(ascii: "\\"):
        Array("\\\("00\(String(byte, radix: 8))".suffix(3))".utf8)
      default: [byte]
      }
    }
  }

  /// The file system's type of the mount with the kernel's number `id`; nil if there is none.
  func type(ofMount id: Int) -> String? {
    let number = Array("\(id)".utf8)[...]
    return lines.first { $0.first == number }.map { Mount($0).type }
  }

  /// The fields of each line of the table now.
  private var lines: [[ArraySlice<UInt8>]] {
    var text: [UInt8] = []
    var part = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = pread(descriptor.rawValue, &part, part.count, off_t(text.count))
      guard count > 0 else { break }
      text += part.prefix(count)
    }
    // The text is split as bytes. Among characters, a name could begin with one that combines with the space before it.
    return text.split(separator: UInt8(ascii: "\n")).map { $0.split(separator: UInt8(ascii: " ")) }
  }
}
