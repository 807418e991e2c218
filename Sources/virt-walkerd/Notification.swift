import Glibc

/// What systemd is told where it listens: sd_notify(3).
enum Notification {
  /// Sends `state` to the socket that NOTIFY_SOCKET names; does nothing where there is none.
  static func send(_ state: String) {
    guard let name = getenv("NOTIFY_SOCKET").map({ String(cString: $0) }),
      name.hasPrefix("/") || name.hasPrefix("@")
    else { return }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    var bytes = Array(name.utf8)
    let capacity = MemoryLayout.size(ofValue: address.sun_path)
    guard bytes.count < capacity else { return }
    // A name that begins with '@' is of Linux's abstract namespace.
    if bytes[0] == UInt8(ascii: "@") { bytes[0] = 0 }
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
    let length = MemoryLayout<sa_family_t>.size + bytes.count

    let socket = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard socket >= 0 else { return }
    defer { close(socket) }
    _ = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        sendto(socket, state, state.utf8.count, Int32(MSG_NOSIGNAL), $0, socklen_t(length))
      }
    }
  }
}
