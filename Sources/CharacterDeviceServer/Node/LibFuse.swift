import CFuse
import Glibc
import Synchronization

/// The libfuse that this process runs with.
public enum LibFuse {
  /// For example `3.14.0`.
  public static var version: String { String(cString: fuse_pkgversion()) }

  /// Libfuse's own number for the release, major × 100 + minor.
  static let oldest: Int32 = 314

  /// - Throws: Where the library is older than what this program was written for.
  static func checkVersion() throws(NodeError) {
    guard fuse_version() >= oldest else {
      throw NodeError(
        .unsupported, "libfuse \(version) is too old: 3.14 or later is needed",
        advice: "install a newer libfuse3 (Debian 12, Ubuntu 24.04 and later have one)")
    }
  }

  private static let receiver = Mutex<(@Sendable (String) -> Void)?>(nil)

  /// Gives each message that libfuse would write to standard error to `receive` instead.
  ///
  /// The library's messages belong to the process, not to one server.
  public static func setLog(_ receive: @escaping @Sendable (String) -> Void) {
    receiver.withLock { $0 = receive }
    cfuse_set_log { message in
      guard let message else { return }
      LibFuse.receiver.withLock { $0 }?(
        String(String(cString: message).reversed().drop { $0.isWhitespace }.reversed()))
    }
  }
}
