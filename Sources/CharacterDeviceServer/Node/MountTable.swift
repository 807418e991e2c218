import Glibc
import SystemPackage

/// The mounts that this process sees: proc_pid_mountinfo(5).
///
/// A file system that is unmounted lazily (umount -l) goes on for those who have files of it open, and its server hears
/// nothing; all others find what is below. A server that looks into the table when its ``Keeper`` says that it has changed can
/// end then.
public final class MountTable {
  /// Has urgent data when mounts have come or gone, once for each poll(2): not for a descriptor that is in two sets.
  let descriptor: FileDescriptor

  /// One mount.
  public struct Mount: Hashable, Sendable {
    /// As the kernel numbers it: its own number, its parent's and its file system's.
    private let numbers: [ArraySlice<UInt8>]
    /// The file system's type, as "tmpfs" or "fuse.mirror".
    let type: String

    fileprivate init(_ fields: [ArraySlice<UInt8>]) {
      numbers = Array(fields.prefix(3))
      // A dash ends the optional fields.
      let end = fields.drop { $0 != [UInt8(ascii: "-")] }
      type = String(decoding: end.dropFirst().first ?? [], as: UTF8.self)
    }
  }

  /// Opens the table. It takes a descriptor.
  public init() throws(Errno) {
    let descriptor = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw .current }
    self.descriptor = FileDescriptor(rawValue: descriptor)
  }

  deinit { try? descriptor.close() }

  /// The mount that is over each path, the last one if there are several. A path that nothing is mounted over is not in the result.
  /// The table is read once.
  public func mounts(at paths: some Sequence<FilePath>) -> [FilePath: Mount] {
    var last: [ArraySlice<UInt8>: Mount] = [:]
    for fields in lines where fields.count > 4 { last[fields[4]] = Mount(fields) }
    var mounts: [FilePath: Mount] = [:]
    for path in paths { mounts[path] = last[Self.escaped(path)[...]] }
    return mounts
  }

  /// Those of `mounts` that are not there any more.
  public func missing(of mounts: some Sequence<Mount>) -> Set<Mount> {
    var missing = Set(mounts)
    // A line may be missed while others change.
    for _ in 1...3 where !missing.isEmpty { missing.subtract(lines.map(Mount.init)) }
    return missing
  }

  /// As the table has it: in octal what would end a field, and the backslash.
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

  /// The fields of each line, as the kernel has them now.
  private var lines: [[ArraySlice<UInt8>]] {
    var text: [UInt8] = []
    var part = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = pread(descriptor.rawValue, &part, part.count, off_t(text.count))
      guard count > 0 else { break }
      text += part.prefix(count)
    }
    // Not as characters: a name may begin with what combines with the space before it.
    return text.split(separator: UInt8(ascii: "\n")).map { $0.split(separator: UInt8(ascii: " ")) }
  }
}
