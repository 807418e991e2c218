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

  /// One mount, as the kernel numbers it: its own number, its parent's and its file system's.
  public struct Mount: Hashable, Sendable {
    fileprivate let numbers: [Substring]
  }

  public init() throws(Errno) {
    let descriptor = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw .current }
    self.descriptor = FileDescriptor(rawValue: descriptor)
  }

  deinit { try? descriptor.close() }

  /// What is mounted over `path`, last; nil where nothing is.
  public func mount(at path: FilePath) -> Mount? { mounts(at: [path])[path] }

  /// The same for many paths, without those that nothing is mounted over. The table is read once.
  public func mounts(at paths: some Sequence<FilePath>) -> [FilePath: Mount] {
    var last: [Substring: Mount] = [:]
    for fields in lines where fields.count > 4 { last[fields[4]] = Self.mount(fields) }
    var mounts: [FilePath: Mount] = [:]
    for path in paths {
      // As the table has what would end a field.
      let name = path.string.map { ["\\": "\\134", " ": "\\040"][$0] ?? String($0) }.joined()
      mounts[path] = last[name[...]]
    }
    return mounts
  }

  /// Those of `mounts` that are not there any more.
  public func missing(of mounts: some Sequence<Mount>) -> Set<Mount> {
    var missing = Set(mounts)
    // A line may be missed while others change.
    for _ in 1...3 where !missing.isEmpty { missing.subtract(lines.map(Self.mount)) }
    return missing
  }

  private static func mount(_ fields: [Substring]) -> Mount {
    Mount(numbers: Array(fields.prefix(3)))
  }

  /// The fields of each line, as the kernel has them now.
  private var lines: [[Substring]] {
    var text: [UInt8] = []
    var part = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = pread(descriptor.rawValue, &part, part.count, off_t(text.count))
      guard count > 0 else { break }
      text += part.prefix(count)
    }
    return String(decoding: text, as: UTF8.self).split(separator: "\n").map {
      $0.split(separator: " ")
    }
  }
}
