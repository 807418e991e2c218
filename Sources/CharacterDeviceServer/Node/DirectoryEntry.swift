import CLinux
import Glibc
import SystemPackage

/// A descriptor that is closed with the last reference to this object, or earlier by ``close()``.
package final class OwnedDescriptor {
  package let descriptor: FileDescriptor
  private var isOpen = true

  package init(_ descriptor: FileDescriptor) { self.descriptor = descriptor }

  /// Takes over the descriptor that a system call has returned.
  ///
  /// - Throws: `errno` if the system call has failed.
  fileprivate convenience init(_ result: Int32) throws(Errno) {
    guard result >= 0 else { throw .current }
    self.init(FileDescriptor(rawValue: result))
  }

  /// The names in this directory in their order, without `.` and `..`; none if it is not a directory.
  ///
  /// - Parameter limit: The most names to take.
  package func entryNames(atMost limit: Int = .max) -> [String] {
    guard let stream = fdopendir(dup(descriptor.rawValue)) else { return [] }
    defer { closedir(stream) }
    rewinddir(stream)
    var names: [String] = []
    while let entry = readdir(stream) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) {
        String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
      }
      if name != ".", name != "..", names.count < limit { names.append(name) }
    }
    return names.sorted()
  }

  package func close() {
    if isOpen { try? descriptor.close() }
    isOpen = false
  }

  deinit { close() }
}

/// A name in a directory that is held open.
///
/// Each system call looks up a path anew, and the owner of any directory on the way can replace an entry between two calls. A directory
/// entry is looked up once, and each later call acts in the same directory.
package struct DirectoryEntry {
  package let directory: OwnedDescriptor
  package let name: String

  /// Opens the directory of `path`.
  ///
  /// A symbolic link on the way is followed only if root or the caller owns it. Any other user could have made the link so
  /// that root writes to a file of root's.
  ///
  /// - Parameters:
  ///   - path: The entry, which need not exist.
  ///   - followsLink: Whether a symbolic link at the entry itself is followed, too.
  /// - Throws: `ELOOP` for a link of another user; otherwise the error of openat(2).
  package init(_ path: FilePath, followsLink: Bool = false) throws(Errno) {
    var directory = try Self.open(path.isAbsolute ? "/" : ".")
    var names = Self.names(path.string)
    var links = 0
    while let name = names.popFirst() {
      var file: OwnedDescriptor?
      if !names.isEmpty || followsLink {
        do throws(Errno) {
          file = try Self.open(String(name), in: directory)
        } catch {
          // The entry itself may be missing.
          guard names.isEmpty, error == .noSuchFileOrDirectory else { throw error }
        }
      }
      if let file, let target = try Self.target(ofLink: file) {
        links += 1
        // The kernel follows 40 links, too: path_resolution(7).
        guard links <= 40 else { throw .tooManySymbolicLinkLevels }
        if target.hasPrefix("/") { directory = try Self.open("/") }
        names = Self.names(target) + names
      } else if names.isEmpty {
        guard name != ".." else { throw .isDirectory }
        self.directory = directory
        self.name = String(name)
        return
      } else if let file {
        directory = file
      }
    }
    // The path is "/", or a link to it.
    throw .isDirectory
  }

  private static func names(_ path: String) -> ArraySlice<Substring> {
    path.split(separator: "/").filter { $0 != "." }[...]
  }

  private static func open(
    _ name: String, in directory: OwnedDescriptor? = nil
  ) throws(Errno) -> OwnedDescriptor {
    try OwnedDescriptor(
      openat(
        directory?.descriptor.rawValue ?? AT_FDCWD, name, CLINUX_O_PATH | O_NOFOLLOW | O_CLOEXEC))
  }

  /// The path in a symbolic link; nil if `file` is not a link.
  private static func target(ofLink file: OwnedDescriptor) throws(Errno) -> String? {
    let attributes = try file.descriptor.attributes()
    guard attributes.st_mode & S_IFMT == S_IFLNK else { return nil }
    guard attributes.st_uid == 0 || attributes.st_uid == geteuid() else {
      throw .tooManySymbolicLinkLevels
    }
    var text = [CChar](repeating: 0, count: Int(PATH_MAX))
    let count = readlinkat(file.descriptor.rawValue, "", &text, text.count)
    guard count >= 0 else { throw .current }
    return String(decoding: text.prefix(count).map(UInt8.init(bitPattern:)), as: UTF8.self)
  }
}

// MARK: - System calls

extension DirectoryEntry {
  /// openat(2). A symbolic link at the entry is not followed, and a FIFO does not block.
  package func open(_ flags: Int32, mode: mode_t = 0) throws(Errno) -> OwnedDescriptor {
    try OwnedDescriptor(
      openat(
        directory.descriptor.rawValue, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, mode))
  }

  /// openat(2) of a regular file.
  ///
  /// - Throws: `EPERM` if it is another kind of file.
  package func openRegularFile(_ flags: Int32, mode: mode_t = 0) throws(Errno) -> OwnedDescriptor {
    let file = try open(flags, mode: mode)
    let attributes = try file.descriptor.attributes()
    guard attributes.st_mode & S_IFMT == S_IFREG else { throw .notPermitted }
    return file
  }

  /// fstatat(2) of the entry itself.
  package var attributes: Glibc.stat {
    get throws(Errno) {
      var attributes = Glibc.stat()
      guard
        fstatat(directory.descriptor.rawValue, name, &attributes, AT_SYMLINK_NOFOLLOW) == 0
      else { throw .current }
      return attributes
    }
  }

  /// The identity of the file that is there now.
  package var identity: FileIdentity { get throws(Errno) { FileIdentity(try attributes) } }

  package func makeDirectory(mode: mode_t) throws(Errno) {
    guard mkdirat(directory.descriptor.rawValue, name, mode) == 0 else { throw .current }
  }

  /// rename(2): the entry takes the place of `other` in one step.
  package func rename(to other: DirectoryEntry) throws(Errno) {
    guard
      renameat(
        directory.descriptor.rawValue, name, other.directory.descriptor.rawValue, other.name) == 0
    else { throw .current }
  }

  package func remove() { unlinkat(directory.descriptor.rawValue, name, 0) }

  /// Removes an empty directory.
  package func removeDirectory() { unlinkat(directory.descriptor.rawValue, name, AT_REMOVEDIR) }

  /// An entry of a directory.
  package init(_ name: String, in directory: OwnedDescriptor) {
    self.directory = directory
    self.name = name
  }
}

/// The identity of a file: its device and its inode.
package struct FileIdentity: Equatable {
  let device: dev_t
  let inode: ino_t

  package init(_ attributes: Glibc.stat) {
    device = attributes.st_dev
    inode = attributes.st_ino
  }

  package init(_ file: FileDescriptor) throws(Errno) { self.init(try file.attributes()) }
}

extension FileDescriptor {
  /// fstat(2)
  package func attributes() throws(Errno) -> Glibc.stat {
    var attributes = Glibc.stat()
    guard fstat(rawValue, &attributes) == 0 else { throw .current }
    return attributes
  }
}
