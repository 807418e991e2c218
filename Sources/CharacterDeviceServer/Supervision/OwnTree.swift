import CLinux
import Glibc
import SystemPackage

/// The file system of a tree that this process serves.
///
/// A look at a name in it would wait for this process itself. The functions here do without: they look at one name after the other, and
/// not further than the root of the tree.
struct OwnTree {
  private let path: ArraySlice<ArraySlice<UInt8>>
  private let device: UInt64
  /// The file system of /proc, whose links lead to files, and not to paths.
  private let proc: UInt64?

  private static let slash = UInt8(ascii: "/")
  /// The most symbolic links on the way, as the kernel has it.
  private static let mostLinks = 40

  /// - Parameter path: The directory at which the tree is mounted: an absolute path without symbolic links.
  init(_ path: FilePath) throws(Errno) {
    let bytes = Array(path.string.utf8)
    guard let file = Self.file(bytes, follows: false) else { throw .current }
    self.path = Self.names(bytes)
    device = file.device
    proc = Self.file(Array("/proc".utf8), follows: true)?.device
  }

  /// Finds a path to the same directory that does not lead through the tree.
  ///
  /// - Parameter path: An absolute path with a slash at its end.
  /// - Returns: Nil if the directory is in the tree, or is not there.
  func pathOutside(_ path: [UInt8]) -> [UInt8]? {
    let known = withCString(path, clinux_open_known_path)
    if known >= 0 {
      defer { close(known) }
      return Self.file([], of: known, follows: false)?.device == device ? nil : path
    }
    var names = Self.names(path)
    var links = 0
    var place: [UInt8] = []
    /// The number of names below the root of the tree; nil outside of it. Names in the tree are no links.
    var depth: Int?
    while let name = names.popFirst() {
      if let inside = depth {
        switch name {
        case [UInt8(ascii: ".")]: break
        case [UInt8(ascii: "."), UInt8(ascii: ".")]:
          depth = inside > 0 ? inside - 1 : nil
          if inside == 0 { place = Self.join(self.path.dropLast()) }
        default: depth = inside + 1
        }
        continue
      }
      let next = place + [Self.slash] + name
      guard let file = Self.file(next, follows: false) else { return nil }
      if file.device == device {
        depth = 0
      } else if file.type == S_IFLNK, file.device == proc {
        guard let target = Self.file(next, follows: true) else { return nil }
        if target.device == device {
          guard let link = CallerProcess.link(next).map(Self.names), link.starts(with: self.path)
          else { return nil }
          depth = link.count - self.path.count
        }
      } else if file.type == S_IFLNK {
        links += 1
        guard links <= Self.mostLinks, let link = CallerProcess.link(next) else { return nil }
        if link.first == Self.slash { place = [] }
        names = (Self.names(link) + names)[...]
        continue
      }
      place = next
    }
    return depth == nil ? place + [Self.slash] : nil
  }

  private static func join(_ names: some Sequence<ArraySlice<UInt8>>) -> [UInt8] {
    names.flatMap { [slash] + $0 }
  }

  private static func names(_ path: [UInt8]) -> ArraySlice<ArraySlice<UInt8>> {
    path.split(separator: slash)[...]
  }

  private static func file(
    _ path: [UInt8], of descriptor: Int32 = AT_FDCWD, follows: Bool
  ) -> (device: UInt64, type: mode_t)? {
    var device: UInt64 = 0
    var type: UInt32 = 0
    let result = withCString(path) {
      clinux_known_file(descriptor, $0, follows ? 1 : 0, &device, &type)
    }
    return result == 0 ? (device, mode_t(type)) : nil
  }
}
