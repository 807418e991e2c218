import CharacterDeviceServer
import Glibc
import SystemPackage

/// A file that holds the daemon's pid while it runs.
struct PIDFile {
  private let entry: DirectoryEntry
  private let identity: FileIdentity
  private static let text = "\(getpid())\n"

  /// Writes the file, in place of a file that a killed daemon left. Any other existing file is an error.
  init(_ path: FilePath) throws {
    do throws(Errno) {
      entry = try DirectoryEntry(path)
      try Self.removeOld(entry)
      // The file is created, not overwritten, so that its identity belongs to this daemon alone.
      let file = try entry.open(O_WRONLY | O_CREAT | O_EXCL, mode: 0o644)
      do {
        _ = try file.descriptor.writeAll(Self.text.utf8)
      } catch {
        entry.remove()
        throw error as? Errno ?? .ioError
      }
      identity = try FileIdentity(file.descriptor)
    } catch .fileExists {
      throw Failure(
        "\(path) exists and is not a pid file: choose another --pid-file", status: .cannotCreate)
    } catch {
      throw Failure(error, doing: "write", at: path, advice: "choose another --pid-file")
    }
  }

  private static func removeOld(_ entry: DirectoryEntry) throws(Errno) {
    guard let content = content(of: entry) else { return }
    guard pid_t(content.text.dropLast()) != nil else { throw .fileExists }
    if (try? entry.identity) == content.identity { entry.remove() }
  }

  /// Removes the file, unless another file or another daemon's pid is at the path now.
  func remove() {
    guard let content = Self.content(of: entry), content.identity == identity,
      content.text == Self.text
    else { return }
    entry.remove()
  }

  /// The directory that ``remove()`` needs to be open.
  var directory: OwnedDescriptor { entry.directory }

  /// The beginning of the regular file at `entry`; nil if there is no such file.
  private static func content(of entry: DirectoryEntry) -> (text: String, identity: FileIdentity)? {
    guard let file = try? entry.openRegularFile(O_RDONLY),
      let identity = try? FileIdentity(file.descriptor)
    else { return nil }
    var bytes = [UInt8](repeating: 0, count: 32)
    let count = try? bytes.withUnsafeMutableBytes { try file.descriptor.read(into: $0) }
    return (String(decoding: bytes.prefix(count ?? 0), as: UTF8.self), identity)
  }
}
