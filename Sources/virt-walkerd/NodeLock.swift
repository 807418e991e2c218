import CharacterDeviceServer
import Glibc
import SystemPackage

/// The right to serve one node. The daemon and its keeper hold it, and the kernel releases it when both have ended.
///
/// The right is a lock by flock(2) on a file that only its owner can open. Such a lock does not tell the pid of its
/// holder; ``RuntimeRecord`` names the process.
struct NodeLock {
  private let node: FilePath
  private let directory: RuntimeDirectory
  private let entry: DirectoryEntry
  private let file: OwnedDescriptor
  /// The file that becomes the record. The daemon makes it before the inspection tree, so that the tree cannot take the
  /// last inode.
  private let recordFile: OwnedDescriptor
  /// The record of an earlier daemon that was killed together with its keeper.
  let left: RuntimeRecord?

  /// - Throws: ``Failure`` if another daemon has the lock.
  init(_ node: FilePath, in directory: RuntimeDirectory) throws {
    self.node = node
    self.directory = directory
    let name = RuntimeRecord.name(of: node)
    // A keeper needs some time to clean up.
    let pause: UInt32 = 10_000  // microseconds
    var pauses = 1000
    while true {
      let entry = DirectoryEntry(name, in: directory.locks)
      let file: OwnedDescriptor
      do throws(Errno) {
        file = try entry.openRegularFile(O_RDONLY | O_CREAT, mode: 0o600)
      } catch .noSuchFileOrDirectory {
        // The daemon that ended last has removed the directory.
        try directory.makeAgain()
        continue
      } catch {
        directory.removeIfEmpty()
        throw Failure(refused: error, doing: "create", at: Self.path(of: name, directory))
      }
      let isLocked = flock(file.descriptor.rawValue, LOCK_EX | LOCK_NB) == 0
      if isLocked, (try? FileIdentity(file.descriptor)) != (try? entry.identity) {
        // The daemon that held the lock has removed the file between open and lock.
        continue
      }
      let record = RuntimeRecord(
        DirectoryEntry(name, in: directory.records), owner: geteuid())
      if let record { try Self.checkIsNotServed(node, record) }
      if isLocked {
        self.entry = entry
        self.file = file
        left = record
        recordFile = try Self.makeRecordFile(name, directory, lock: entry)
        return
      }
      guard pauses > 0 else {
        throw Failure(
          "\(node) was served by a daemon that has ended, and its keeper still holds \(Self.path(of: name, directory)): list the processes that hold it: fuser -v \(Self.path(of: name, directory))",
          status: .cannotCreate)
      }
      pauses -= 1
      usleep(pause)
    }
  }

  private static func path(of name: String, _ directory: RuntimeDirectory) -> FilePath {
    directory.path.appending("lock").appending(name)
  }

  private static func checkIsNotServed(_ node: FilePath, _ record: RuntimeRecord) throws {
    let pid = record.process.pid
    let problem: String
    switch record.process.find() {
    case .ended: return
    case .running, .hidden: problem = "pid \(pid): \(node.stopCommand)"
    case .elsewhere: problem = "pid \(pid) of another pid namespace: stop it there"
    }
    throw Failure(
      "\(node) is already served by \(problem), or choose another --name or --path",
      status: .cannotCreate)
  }

  private static func makeRecordFile(
    _ name: String, _ directory: RuntimeDirectory, lock: DirectoryEntry
  ) throws -> OwnedDescriptor {
    let entry = newRecord(name, directory)
    // A daemon that was killed may have left such a file.
    entry.remove()
    do throws(Errno) {
      let mode: mode_t = geteuid() == 0 ? 0o644 : 0o600
      let file = try entry.open(O_WRONLY | O_CREAT | O_EXCL, mode: mode)
      // All users may read the record of root's daemon, also if the daemon was started with a stricter umask.
      fchmod(file.descriptor.rawValue, mode)
      return file
    } catch {
      lock.remove()
      directory.removeIfEmpty()
      throw Failure(refused: error, doing: "create", at: directory.path.appending(name))
    }
  }

  /// The file of the record before it is complete.
  private static func newRecord(_ name: String, _ directory: RuntimeDirectory) -> DirectoryEntry {
    DirectoryEntry(".\(name)", in: directory.records)
  }

  /// Writes the record. Other processes see either the whole record or none.
  func write(_ record: RuntimeRecord) throws {
    do {
      _ = try recordFile.descriptor.writeAll(record.text.utf8)
      try Self.newRecord(entry.name, directory)
        .rename(to: DirectoryEntry(entry.name, in: directory.records))
    } catch {
      throw Failure(
        refused: error as? Errno ?? .ioError, doing: "write",
        at: directory.path.appending(entry.name))
    }
    recordFile.close()
  }

  /// Releases the lock. The file of the lock is removed last, because the next daemon then makes a new one.
  func release() {
    DirectoryEntry(entry.name, in: directory.records).remove()
    Self.newRecord(entry.name, directory).remove()
    entry.remove()
    directory.removeIfEmpty()
    file.close()
  }

  /// The descriptor of the lock, which is held while any process has it open.
  var descriptor: FileDescriptor { file.descriptor }
}

extension FilePath {
  /// The command that stops the daemon of this node.
  var stopCommand: String {
    let isInDev = removingLastComponent() == "/dev"
    let selector =
      isInDev ? "--name \(lastComponent?.string ?? "")" : "--path \(string.quotedForShell)"
    return "virt-walkerd stop \(selector)"
  }
}

extension String {
  /// The text as one word of a shell.
  fileprivate var quotedForShell: String {
    let isPlain = utf8.allSatisfy {
      switch $0 {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"),
        UInt8(ascii: "."), UInt8(ascii: "/"):
        true
      default: false
      }
    }
    let quote = #"'\''"#
    return isPlain ? self : "'\(replacing("'", with: quote))'"
  }
}
