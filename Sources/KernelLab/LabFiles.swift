import CLinux
import CharacterDeviceServer
import Glibc
import SystemPackage

/// Reading and writing of whole files.
enum LabFiles {
  /// The bytes of a regular file, without following a symbolic link at any place below `root`; nil if there is none.
  static func read(_ name: String, in root: FilePath, most: Int = 16 << 20) -> [UInt8]? {
    guard let entry = entry(name, in: root), let file = try? entry.openRegularFile(O_RDONLY)
    else { return nil }
    return read(file, most: most)
  }

  static func read(_ path: FilePath, most: Int = 1 << 30) -> [UInt8]? {
    guard let file = try? DirectoryEntry(path).openRegularFile(O_RDONLY) else { return nil }
    return read(file, most: most)
  }

  private static func read(_ file: OwnedDescriptor, most: Int) -> [UInt8]? {
    guard let size = try? file.descriptor.attributes().st_size, size <= most else { return nil }
    var bytes: [UInt8] = []
    bytes.reserveCapacity(Int(size))
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while bytes.count <= most {
      let count = Glibc.read(file.descriptor.rawValue, &buffer, buffer.count)
      guard count >= 0 else { return nil }
      guard count > 0 else { return bytes }
      bytes += buffer[..<count]
    }
    return nil
  }

  static func text(_ path: FilePath) -> String? {
    read(path, most: 16 << 20).map { String(decoding: $0, as: UTF8.self) }
  }

  /// An entry below `root`, if all directories on the way are there and none is a link.
  static func entry(_ name: String, in root: FilePath) -> DirectoryEntry? {
    var names = name.split(separator: "/").map(String.init)
    guard let last = names.popLast(), !names.contains(".."), last != "..",
      var directory = try? directory(root)
    else { return nil }
    for name in names {
      guard
        let inner = try? DirectoryEntry(name, in: directory).open(CLINUX_O_PATH | O_DIRECTORY)
      else { return nil }
      directory = inner
    }
    return DirectoryEntry(last, in: directory)
  }

  static func directory(_ path: FilePath) throws(Errno) -> OwnedDescriptor {
    let entry = try DirectoryEntry(path)
    return try entry.open(CLINUX_O_PATH | O_DIRECTORY)
  }

  /// Writes a file in the place of the one that is there, whose other names keep the old content.
  static func replace(
    _ path: FilePath, with bytes: [UInt8], mode: mode_t = 0o644
  ) throws(LabFailure) {
    let directory = path.removingLastComponent()
    makeDirectories(directory)
    try replace(path.lastComponent?.string ?? "", in: directory, with: bytes, mode: mode)
  }

  /// The same for a path below `root`, with the directories on the way. No symbolic link below `root` is followed: the tree of a stranger
  /// can have links to any place.
  static func replace(
    _ name: String, in root: FilePath, with bytes: [UInt8], mode: mode_t = 0o644
  ) throws(LabFailure) {
    do {
      var directory = try DirectoryEntry(root).open(O_RDONLY | O_DIRECTORY)
      var names = name.split(separator: "/").map(String.init)
      guard let last = names.popLast(), last != "..", !names.contains("..") else {
        throw Errno.invalidArgument
      }
      for name in names {
        let entry = DirectoryEntry(name, in: directory)
        try? entry.makeDirectory(mode: 0o755)
        directory = try entry.open(O_RDONLY | O_DIRECTORY)
      }
      let entry = DirectoryEntry(last, in: directory)
      entry.remove()
      let file = try entry.open(O_WRONLY | O_CREAT | O_EXCL, mode: mode)
      try file.descriptor.writeAll(bytes)
    } catch {
      throw LabFailure(
        "cannot write \(root.appending(name)): \(error): make room there: df shows the full file system"
      )
    }
  }

  /// Writes a file that is there as a whole or not at all.
  static func writeWhole(_ path: FilePath, _ bytes: [UInt8]) throws(LabFailure) {
    let part = FilePath("\(path).part")
    try replace(part, with: bytes)
    guard rename(part.string, path.string) == 0 else {
      throw LabFailure("cannot rename \(part): \(Errno.current): make room there")
    }
  }

  static func makeDirectories(_ path: FilePath) {
    guard !path.isEmpty, access(path.string, F_OK) != 0 else { return }
    makeDirectories(path.removingLastComponent())
    mkdir(path.string, 0o755)
  }

  static func exists(_ path: FilePath) -> Bool { access(path.string, F_OK) == 0 }

  /// The names in a directory; none if it is not one.
  static func names(in path: FilePath) -> [String] {
    guard let directory = try? DirectoryEntry(path).open(O_RDONLY | O_DIRECTORY) else { return [] }
    return names(in: directory)
  }

  static func names(in directory: OwnedDescriptor) -> [String] { directory.entryNames() }

  /// Removes a file, or a directory with all that it contains. A symbolic link is removed, and not followed.
  static func remove(_ path: FilePath) {
    guard let entry = try? DirectoryEntry(path) else { return }
    remove(entry)
  }

  private static func remove(_ entry: DirectoryEntry) {
    if let inner = try? entry.open(O_RDONLY | O_DIRECTORY) {
      // A directory that a program has closed for its owner is opened again by fchmod(2).
      fchmod(inner.descriptor.rawValue, 0o700)
      for name in names(in: inner) { remove(DirectoryEntry(name, in: inner)) }
      entry.removeDirectory()
    } else {
      entry.remove()
    }
  }
}

/// The space that files take on the disk.
enum DiskUse {
  /// The bytes of a directory with all that it contains. A file with several names there counts once.
  ///
  /// - Parameter links: Whether files with several names count at all: in a tree, they are those of the clean source.
  static func bytes(of path: String, links: Bool = true) -> Int {
    guard let entry = try? DirectoryEntry(FilePath(path)) else { return 0 }
    var seen: Set<ino_t> = []
    return bytes(of: entry, links, &seen)
  }

  /// The bytes of the directory of a kernel in the cache. The sizes of what does not change are kept in files `size`.
  static func bytes(ofKernel root: FilePath) -> Int {
    var sum = kept(root) ?? bytes(of: root.appending("source").string)
    for configuration in LabFiles.names(in: root) where configuration.hasPrefix("config-") {
      for name in LabFiles.names(in: root.appending(configuration)) {
        let tree = root.appending(configuration).appending(name)
        sum += kept(tree) ?? bytes(of: tree.appending("tree").string, links: false)
        for part in LabFiles.names(in: tree)
        where part.hasPrefix("host-") || part.hasPrefix("guest-") {
          sum += bytes(of: tree.appending(part).string)
        }
      }
    }
    return sum
  }

  private static func kept(_ directory: FilePath) -> Int? {
    LabFiles.text(directory.appending("size")).flatMap { Int($0) }
  }

  private static func bytes(
    of entry: DirectoryEntry, _ links: Bool, _ seen: inout Set<ino_t>
  ) -> Int {
    guard let attributes = try? entry.attributes else { return 0 }
    if attributes.st_mode & S_IFMT != S_IFDIR, attributes.st_nlink > 1 {
      guard links, seen.insert(attributes.st_ino).inserted else { return 0 }
    }
    var sum = Int(attributes.st_blocks) * 512
    if attributes.st_mode & S_IFMT == S_IFDIR, let inner = try? entry.open(O_RDONLY | O_DIRECTORY) {
      for name in LabFiles.names(in: inner) {
        sum += bytes(of: DirectoryEntry(name, in: inner), links, &seen)
      }
    }
    return sum
  }
}
