import CLinux
import Glibc
import SystemPackage

/// A client of a ``FileTreeSocketServer``.
public final class FileTreeClient {
  private let socket: OwnedDescriptor

  /// The longest time to wait for an answer, in seconds. A write takes as long as its commands.
  private static let longestAnswer: Int32 = 60

  /// Connects to a server.
  ///
  /// - Throws: `EACCES` if the server belongs to another user, `ECONNREFUSED` if there is no server.
  public init(name: String) throws(Errno) {
    let socket = clinux_abstract_socket(name, 0)
    guard socket >= 0 else { throw .current }
    self.socket = OwnedDescriptor(FileDescriptor(rawValue: socket))
    // Any user can listen at any name.
    guard clinux_peer_user(socket) == Int64(geteuid()) else { throw .permissionDenied }
  }

  /// The names of the servers of this user and of others in this network namespace.
  ///
  /// - Parameter prefix: The beginning of the names.
  public static func names(prefix: String) -> [String] {
    ProcFile.text(of: "/proc/net/unix", limit: 1 << 22).split(separator: "\n").compactMap { line in
      // The last field is the name, and an @ stands for the null at its start.
      guard let name = line.split(separator: " ").last, name.hasPrefix("@\(prefix)") else {
        return nil
      }
      return String(name.dropFirst())
    }
  }

  /// The texts with which the server describes itself.
  public func description() throws(Errno) -> [String] { try texts(of: "describe") }

  /// The paths of the files.
  public func list() throws(Errno) -> [String] { try texts(of: "list") }

  private func texts(of request: String) throws(Errno) -> [String] {
    let answer = try ask([request])
    for descriptor in answer.descriptors { try? descriptor.close() }
    return Array(answer.fields.dropFirst())
  }

  /// The text of a file; of a pipe, the text since the last call.
  public func read(_ file: String) throws(Errno) -> String {
    let answer = try ask(["read", file])
    defer { for descriptor in answer.descriptors { try? descriptor.close() } }
    guard let memory = answer.descriptors.first, let size = try? memory.attributes().st_size,
      size >= 0
    else { throw .ioError }
    var bytes = [UInt8](repeating: 0, count: Int(size))
    let count = try? bytes.withUnsafeMutableBytes {
      try memory.read(fromAbsoluteOffset: 0, into: $0)
    }
    guard count == bytes.count else { throw .ioError }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// Writes to a file of commands, and waits until they are performed.
  public func write(_ text: String, to file: String) throws(Errno) {
    let request = ["write", file, text]
    guard text.utf8.count + file.utf8.count + 16 <= SocketMessage.maximumSize else {
      throw .messageTooLong
    }
    for descriptor in try ask(request).descriptors { try? descriptor.close() }
  }

  private func ask(_ request: [String]) throws(Errno) -> SocketMessage {
    try SocketMessage(request).send(to: socket.descriptor)
    guard let answer = try SocketMessage(from: socket.descriptor, within: Self.longestAnswer)
    else { throw .connectionReset }
    guard answer.kind != "error" else {
      for descriptor in answer.descriptors { try? descriptor.close() }
      throw Errno(rawValue: answer.fields.dropFirst().first.flatMap { Int32($0) } ?? EIO)
    }
    return answer
  }
}
