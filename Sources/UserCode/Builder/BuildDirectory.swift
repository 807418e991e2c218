import CLinux
import CharacterDeviceServer
import Glibc
import SystemPackage

/// The private directory of a code builder: the copies of the user's sources, and all that the compiler makes.
///
/// Its processes hold a lock of it, so that a later builder can remove the directory if all of them were killed.
final class BuildDirectory {
  let path: String
  private let parent: OwnedDescriptor
  private let name: String
  private let descriptor: OwnedDescriptor
  /// The process that removes the directory after the end of this process, and the pipe whose end it waits for.
  private var remover: (process: pid_t, pipe: Int32)?

  private static let prefix = "virt-walker-build-"

  /// Makes the directory in the first of `parents` in which this user may make one.
  ///
  /// - Parameter endsWithProcess: Whether another process removes the directory when this process has ended in any way, also by SIGKILL.
  init(in parents: [String], endsWithProcess: Bool = false) throws(CodeFailure) {
    for parent in parents {
      guard let entry = try? DirectoryEntry(FilePath(parent).appending("x")) else { continue }
      Self.removeOld(in: entry.directory)
      let name = Self.prefix + String(UInt64.random(in: .min ... .max), radix: 36)
      // The remover runs before there is a directory, so that SIGKILL in between leaves nothing.
      let remover =
        endsWithProcess ? try Self.startRemover(of: name, in: entry.directory) : nil
      guard let descriptor = Self.make(name, in: entry.directory) else {
        remover.map(Self.end)
        continue
      }
      path = "\(parent)/\(name)"
      self.name = name
      self.parent = entry.directory
      self.descriptor = descriptor
      self.remover = remover
      return
    }
    throw CodeFailure(
      "cannot make a directory for the compiler in \(parents.joined(separator: " or ")): make one of them writable, or set TMPDIR to a directory that all users can write to"
    )
  }

  /// Makes a locked directory.
  private static func make(_ name: String, in parent: OwnedDescriptor) -> OwnedDescriptor? {
    let entry = DirectoryEntry(name, in: parent)
    while mkdirat(parent.descriptor.rawValue, name, 0o700) == 0 {
      guard let directory = try? entry.open(O_RDONLY | O_DIRECTORY) else {
        entry.removeDirectory()
        return nil
      }
      flock(directory.descriptor.rawValue, LOCK_EX)
      // Another builder can have removed the directory as an old one before it was locked here.
      if let identity = try? FileIdentity(directory.descriptor),
        (try? entry.identity) == identity
      {
        return directory
      }
    }
    return nil
  }

  /// Starts a process that removes a directory of this process after its end.
  private static func startRemover(
    of name: String, in parent: OwnedDescriptor
  ) throws(CodeFailure) -> (process: pid_t, pipe: Int32) {
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else {
      throw CodeFailure("cannot make a pipe: \(Errno.current): close other programs")
    }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    let process = clinux_fork()
    if process == 0 {
      var signals = sigset_t()
      sigfillset(&signals)
      sigprocmask(SIG_SETMASK, &signals, nil)
      closeDescriptors(but: [ends[0], parent.descriptor.rawValue])
      var byte: UInt8 = 0
      while read(ends[0], &byte, 1) != 0 {}
      // The kernel closes the files of the ended process one after the other, so that the lock can still be held.
      removeOld(name, in: parent, lock: LOCK_EX)
      _exit(0)
    }
    close(ends[0])
    guard process > 0 else {
      close(ends[1])
      throw CodeFailure("cannot start a process: \(Errno.current): end other processes")
    }
    return (process, ends[1])
  }

  private static func end(_ remover: (process: pid_t, pipe: Int32)) {
    close(remover.pipe)
    _ = waitForEnd(of: remover.process)
  }

  /// Removes the directory with all that it contains.
  func remove() {
    removeFiles()
    guard let remover else { return }
    Self.end(remover)
    self.remover = nil
  }

  private func removeFiles() {
    Self.empty(descriptor)
    let entry = DirectoryEntry(name, in: parent)
    // The directory can be gone, and another one can have its name.
    guard let attributes = try? descriptor.descriptor.attributes(),
      (try? entry.identity) == FileIdentity(attributes)
    else { return }
    entry.removeDirectory()
  }

  /// Removes a directory in another one.
  static func remove(_ name: String, in directory: FilePath) {
    guard let entry = try? DirectoryEntry(directory.appending(name)),
      let inner = try? entry.open(O_RDONLY | O_DIRECTORY)
    else { return }
    empty(inner)
    entry.removeDirectory()
  }

  /// Writes files into a directory within this one, and makes the directories on the way.
  func write(_ files: [SourceSnapshot.File], to directory: String) throws(CodeFailure) {
    var made: Set<String> = []
    func make(_ path: String) {
      guard !path.isEmpty, made.insert(path).inserted else { return }
      make(FilePath(path).removingLastComponent().string)
      mkdir("\(self.path)/\(path)", 0o700)
    }
    make(directory)
    for file in files {
      let path = "\(directory)/\(file.name)"
      make(FilePath(path).removingLastComponent().string)
      do {
        let opened = try FileDescriptor.open(
          "\(self.path)/\(path)", .writeOnly, options: [.create, .truncate, .closeOnExec],
          permissions: [.ownerReadWrite])
        _ = try opened.closeAfter { try opened.writeAll(file.bytes) }
      } catch {
        throw CodeFailure(
          "cannot write \(self.path)/\(path): \(error): make room there: df shows the full file system"
        )
      }
    }
  }

  // MARK: - Removal

  /// Removes the directories of builders of this user that were killed.
  private static func removeOld(in parent: OwnedDescriptor) {
    guard let list = try? DirectoryEntry(".", in: parent).open(O_RDONLY | O_DIRECTORY) else {
      return
    }
    for name in names(in: list) where name.hasPrefix(prefix) {
      removeOld(name, in: parent, lock: LOCK_EX | LOCK_NB)
    }
  }

  /// Removes a directory of this user, unless a builder holds its lock.
  private static func removeOld(_ name: String, in parent: OwnedDescriptor, lock: Int32) {
    let entry = DirectoryEntry(name, in: parent)
    guard let old = try? entry.open(O_RDONLY | O_DIRECTORY),
      let attributes = try? old.descriptor.attributes(), attributes.st_uid == geteuid(),
      flock(old.descriptor.rawValue, lock) == 0
    else { return }
    empty(old)
    entry.removeDirectory()
  }

  private static func empty(_ directory: OwnedDescriptor) {
    for name in names(in: directory) {
      let entry = DirectoryEntry(name, in: directory)
      if let inner = try? entry.open(O_RDONLY | O_DIRECTORY) {
        empty(inner)
        entry.removeDirectory()
      } else {
        entry.remove()
      }
    }
  }

  static func names(in directory: OwnedDescriptor) -> [String] {
    guard let again = try? DirectoryEntry(".", in: directory).open(O_RDONLY | O_DIRECTORY),
      let stream = fdopendir(dup(again.descriptor.rawValue))
    else { return [] }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) {
        String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names
  }
}
