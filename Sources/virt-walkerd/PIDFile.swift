import CharacterDeviceServer
import Glibc
import SystemPackage

/// A file that holds the daemon's pid while it runs.
struct PIDFile {
  private let path: FilePath
  private let text = "\(getpid())\n"

  /// Writes the file. One that a killed daemon left is replaced; a file that holds anything but a pid is not ours.
  init(_ path: FilePath) throws {
    let absolute = path.isAbsolute ? path : try Self.workingDirectory().pushing(path)
    self.path = absolute
    if let old = Self.content(of: absolute), pid_t(old.dropLast()) == nil {
      throw Failure(
        "\(path) exists and is no pid file: choose another --pid-file", status: .cannotCreate)
    }
    do {
      let file = try FileDescriptor.open(
        absolute, .writeOnly, options: [.create, .truncate, .closeOnExec, .noFollow],
        permissions: [.ownerReadWrite, .groupRead, .otherRead])
      do {
        _ = try file.closeAfter { try file.writeAll(text.utf8) }
      } catch {
        unlink(absolute.string)
        throw error
      }
    } catch {
      throw Failure(
        error as? Errno ?? .ioError, doing: "write", at: path,
        advice: "choose another --pid-file")
    }
  }

  /// Removes the file, unless another daemon has it by now.
  func remove() {
    if Self.content(of: path) == text { unlink(path.string) }
  }

  private static func content(of path: FilePath) -> String? {
    guard let file = try? FileDescriptor.open(path, .readOnly, options: [.closeOnExec]) else {
      return nil
    }
    defer { try? file.close() }
    var bytes = [UInt8](repeating: 0, count: 32)
    let count = try? bytes.withUnsafeMutableBytes { try file.read(into: $0) }
    return count.map { String(decoding: bytes.prefix($0), as: UTF8.self) }
  }

  private static func workingDirectory() throws -> FilePath {
    guard let path = getcwd(nil, 0) else { throw Errno.current }
    defer { free(path) }
    return FilePath(platformString: path)
  }
}
