import CLinux
import Glibc
import SystemPackage

/// A message between two processes: some texts, and some descriptors.
///
/// The messages go by sockets that keep the bounds of messages (`SOCK_SEQPACKET`).
package struct SocketMessage {
  package var fields: [String]
  package var descriptors: [FileDescriptor] = []

  /// The most bytes of a message. The buffers of a socket take such a message at once.
  package static let maximumSize = 96 << 10

  /// A message with fields. A null, which separates fields, is left out of them. The last field is cut if all together are too long.
  package init(_ fields: [String], _ descriptors: [FileDescriptor] = []) {
    self.fields = fields
    self.descriptors = descriptors
  }

  /// The first field: the kind of the message.
  package var kind: String { fields[0] }

  /// Sends the message. Waits if the buffer of the socket is full, unless the socket is non-blocking.
  package func send(to socket: FileDescriptor) throws(Errno) {
    var bytes: [UInt8] = []
    for (index, field) in fields.enumerated() {
      if index > 0 { bytes.append(0) }
      bytes += field.utf8.filter { $0 != 0 }
    }
    bytes = Array(bytes.prefix(Self.maximumSize))
    let numbers = descriptors.map(\.rawValue)
    while clinux_send(socket.rawValue, bytes, bytes.count, numbers, numbers.count) < 0 {
      guard errno == EINTR else { throw .current }
    }
  }

  /// Receives a message.
  ///
  /// - Parameter seconds: The longest time to wait.
  /// - Returns: The message; nil at the end of the connection.
  package init?(from socket: FileDescriptor, within seconds: Int32) throws(Errno) {
    var entry = pollfd(fd: socket.rawValue, events: Int16(POLLIN), revents: 0)
    var ready: Int32
    repeat { ready = poll(&entry, 1, seconds * 1000) } while ready < 0 && errno == EINTR
    guard ready > 0 else { throw ready == 0 ? .timedOut : .current }
    try self.init(from: socket)
  }

  /// Receives a message that is there, or waits for one.
  package init?(from socket: FileDescriptor) throws(Errno) {
    var bytes = [UInt8](repeating: 0, count: Self.maximumSize)
    var numbers = [Int32](repeating: -1, count: Int(CLINUX_DESCRIPTORS))
    var count = 0
    var length: Int
    repeat {
      length = clinux_receive(socket.rawValue, &bytes, bytes.count, &numbers, &count)
    } while length < 0 && errno == EINTR
    guard length >= 0 else { throw .current }
    guard length > 0 else { return nil }
    fields = bytes[..<length].split(separator: 0, omittingEmptySubsequences: false)
      .map { String(decoding: $0, as: UTF8.self) }
    descriptors = numbers[..<count].map(FileDescriptor.init(rawValue:))
  }

  /// Two connected sockets for messages.
  package static func makeSockets(
    _ kind: __socket_type = SOCK_SEQPACKET
  ) throws(Errno) -> (FileDescriptor, FileDescriptor) {
    var ends: [Int32] = [-1, -1]
    guard socketpair(AF_UNIX, Int32(kind.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
      throw .current
    }
    return (FileDescriptor(rawValue: ends[0]), FileDescriptor(rawValue: ends[1]))
  }
}
