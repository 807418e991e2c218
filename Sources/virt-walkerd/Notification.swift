import Glibc

/// Messages to systemd: sd_notify(3). Without systemd, nothing is sent.
struct Notification {
  private let socket: Int32?

  /// Connects to the socket in the environment variable NOTIFY_SOCKET, if it is set.
  init() { socket = getenv("NOTIFY_SOCKET").flatMap { Self.connect(to: String(cString: $0)) } }

  /// Sends `state` if there is a socket.
  func send(_ state: String) {
    if let socket { _ = write(socket, state, state.utf8.count) }
  }

  /// Sends a last state, and closes the socket, if there is one.
  func end(_ state: String) {
    send(state)
    if let socket { close(socket) }
  }

  private static func connect(to name: String) -> Int32? {
    guard name.hasPrefix("/") || name.hasPrefix("@") else { return nil }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    var bytes = Array(name.utf8)
    let capacity = MemoryLayout.size(ofValue: address.sun_path)
    guard bytes.count < capacity else { return nil }
    // A name that begins with '@' is in Linux's abstract namespace.
    if bytes[0] == UInt8(ascii: "@") { bytes[0] = 0 }
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    let length = MemoryLayout<sa_family_t>.size + bytes.count

    let socket = Glibc.socket(
      AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard socket >= 0 else { return nil }
    let isConnected = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        Glibc.connect(socket, $0, socklen_t(length)) == 0
      }
    }
    guard isConnected else {
      close(socket)
      return nil
    }
    return socket
  }
}
