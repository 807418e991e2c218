import CFuse
import Glibc
import Synchronization

/// The libfuse with which this process runs.
public enum LibFuse {
  /// The version, for example `3.14.0`.
  public static var version: String { String(cString: fuse_pkgversion()) }

  /// The oldest release that works, as libfuse numbers releases: major × 100 + minor.
  static let oldest: Int32 = 314

  /// Checks that the library is not too old.
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
