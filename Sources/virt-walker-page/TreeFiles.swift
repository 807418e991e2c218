import NIOConcurrencyHelpers
import SystemPackage

/// The open files of an inspection tree.
struct TreeFiles: Sendable {
  let walk, trace, guestLog: FileDescriptor
  /// Open for reading and writing; nil if the caller of the program may not write it.
  let control: FileDescriptor?
  /// Open for writing; nil if the caller of the program may not write it.
  let reset: FileDescriptor?
  private let controlLock = NIOLock()

  /// The largest text of one file.
  private static let mostBytes = 1 << 20

  init(
    walk: FileDescriptor, trace: FileDescriptor, guestLog: FileDescriptor, control: FileDescriptor?,
    reset: FileDescriptor?
  ) {
    self.walk = walk
    self.trace = trace
    self.guestLog = guestLog
    self.control = control
    self.reset = reset
  }

  /// The new lines of the two pipes. The rest of many lines comes with the next call.
  func readNews() throws -> (trace: String, guestLog: String) {
    // A line of the guest's log is there before the events of its access.
    let trace = try Self.readPipe(trace)
    return (trace, try Self.readPipe(guestLog))
  }

  /// - Throws: `ENOTCONN` or another error if the daemon has ended.
  private static func readPipe(_ file: FileDescriptor) throws -> String {
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 14)
    while bytes.count < mostBytes {
      do {
        let count = try buffer.withUnsafeMutableBytes { try file.read(into: $0) }
        guard count > 0 else {
          if bytes.isEmpty { throw Errno.socketNotConnected }
          break
        }
        bytes += buffer[..<count]
      } catch Errno.wouldBlock {
        break
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  private static func readText(_ file: FileDescriptor) throws -> String {
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 14)
    while bytes.count < mostBytes {
      let count = try buffer.withUnsafeMutableBytes {
        try file.read(fromAbsoluteOffset: Int64(bytes.count), into: $0)
      }
      guard count > 0 else { break }
      bytes += buffer[..<count]
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  func readWalk() throws -> String { try Self.readText(walk) }

  /// Boots the machine anew.
  func performReset() throws {
    guard let reset else { throw Errno.permissionDenied }
    _ = try controlLock.withLock {
      try Array("1".utf8).withUnsafeBytes { try reset.write(toAbsoluteOffset: 0, $0) }
    }
  }

  /// Writes lines to `control`, and returns the text that `control` then has: the observations, or the place of an error.
  func perform(_ lines: String) throws -> String {
    guard let control else { throw Errno.permissionDenied }
    return try controlLock.withLock {
      do {
        let bytes = Array(lines.utf8)
        _ = try bytes.withUnsafeBytes { try control.write(toAbsoluteOffset: 0, $0) }
      } catch Errno.invalidArgument {
        // The text has the place of the error.
      }
      return try Self.readText(control)
    }
  }
}
