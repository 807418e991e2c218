import CharacterDeviceServer
import Glibc
import SystemPackage

/// The right to serve one node, held by this process and its keeper until both have ended, whatever way they end.
///
/// It is a lock by flock(2) on a file that only its owner can open. Of such a lock nobody learns a process number, and nobody
/// needs it: ``RuntimeRecord`` names the process.
struct NodeLock {
  private let node: FilePath
  private let directory: RuntimeDirectory
  private let entry: DirectoryEntry
  private let file: OwnedDescriptor
  /// The file that becomes the record. It is made early, so that the inspection tree does not take the last inode from it.
  private let recordFile: OwnedDescriptor
  /// The record of a daemon that was killed with its keeper.
  let left: RuntimeRecord?

  /// - Throws: ``Failure`` if another daemon has it.
  init(_ node: FilePath, in directory: RuntimeDirectory) throws {
    self.node = node
    self.directory = directory
    let name = RuntimeRecord.name(of: node)
    // A keeper takes a moment to clean up.
    let pause: UInt32 = 10_000  // microseconds
    var pauses = 1000
    while true {
      let entry = DirectoryEntry(name, in: directory.locks)
      let file: OwnedDescriptor
      do throws(Errno) {
        file = try entry.openRegularFile(O_RDONLY | O_CREAT, mode: 0o600)
      } catch .noSuchFileOrDirectory {
        // The last daemon to end took the directory away.
        try directory.makeAgain()
        continue
      } catch {
        directory.removeIfEmpty()
        throw Failure(refused: error, doing: "create", at: Self.path(of: name, directory))
      }
      let isLocked = flock(file.descriptor.rawValue, LOCK_EX | LOCK_NB) == 0
      if isLocked, (try? FileIdentity(file.descriptor)) != (try? entry.identity) {
        // The file was removed between open and lock, by the daemon that held it.
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
          "\(node) was served by a daemon that has ended, and its keeper still holds \(Self.path(of: name, directory)): see what it waits for: fuser -v \(Self.path(of: name, directory))",
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
    // A daemon that was killed may have left one.
    entry.remove()
    do throws(Errno) {
      return try entry.open(O_WRONLY | O_CREAT | O_EXCL, mode: geteuid() == 0 ? 0o644 : 0o600)
    } catch {
      lock.remove()
      directory.removeIfEmpty()
      throw Failure(refused: error, doing: "create", at: directory.path.appending(name))
    }
  }

  /// The record before it is complete.
  private static func newRecord(_ name: String, _ directory: RuntimeDirectory) -> DirectoryEntry {
    DirectoryEntry(".\(name)", in: directory.records)
  }

  /// Says what is served. The record appears whole or not at all.
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

  /// Gives the node free. The lock's file goes last: the next daemon makes a new one.
  func release() {
    DirectoryEntry(entry.name, in: directory.records).remove()
    Self.newRecord(entry.name, directory).remove()
    entry.remove()
    directory.removeIfEmpty()
    file.close()
  }

  /// Held as long as it is open in any process.
  var descriptor: FileDescriptor { file.descriptor }
}

extension FilePath {
  /// The command that ends the daemon of this node.
  var stopCommand: String {
    let isInDev = removingLastComponent() == "/dev"
    let selector =
      isInDev ? "--name \(lastComponent?.string ?? "")" : "--path \(string.quotedForShell)"
    return "virt-walkerd stop \(selector)"
  }
}

extension String {
  /// As a shell takes it for one word.
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
