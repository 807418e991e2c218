import CLinux
import Glibc
import SystemPackage

/// A file of the node that processes have open: one open(2) with all its duplicates, in all processes.
///
/// The processes have a pipe in its place. No byte of a client goes through the pipe. It serves three ends:
/// - Its inode number tells which descriptors of a process are this file, however the process got them.
/// - The kernel tells the server when the last descriptor was closed.
/// - poll(2), select(2) and epoll_wait(2) wait for the events of the pipe, which follow those of the device.
final class NodeFile {
  /// The inode number of the pipe.
  let pipe: UInt64
  /// The handle of the device's open file.
  let handle: UInt64
  /// The present flags of the file.
  var flags: Int32
  /// The flags of open(2).
  let openFlags: Int32
  /// The device has no positions: `FOPEN_STREAM` of linux/fuse.h.
  let isStream: Bool
  /// The process that has opened the file.
  let caller: Caller
  var position = 0
  /// Whether lseek(2) works; nil if the device was not asked yet.
  var hasPositions: Bool?
  /// The server's end of the pipe. With it, poll(2) tells that the processes have no end any more.
  let ownEnd: OwnedDescriptor
  /// The end that the process gets; nil when it has it.
  private(set) var clientEnd: OwnedDescriptor?
  private var readiness = Readiness.toWrite

  private enum Readiness {
    /// The pipe is empty.
    case toWrite
    /// The pipe has a byte, and room for one.
    case both
    /// The pipe is full.
    case toRead
  }

  /// - Parameters:
  ///   - flags: The flags of open(2).
  ///   - handle: The handle of the device's open file.
  init(
    flags: Int32, handle: UInt64, isStream: Bool, caller: Caller
  ) throws(Errno) {
    var ends: (Int32, Int32) = (-1, -1)
    guard clinux_pipe(&ends.0, &ends.1) == 0 else { throw .current }
    let reading = OwnedDescriptor(FileDescriptor(rawValue: ends.0))
    let writing = OwnedDescriptor(FileDescriptor(rawValue: ends.1))
    // Room for two packets.
    _ = fcntl(ends.1, SupervisedCall.setPipeSize, 8192)
    Self.writePackets(by: ends.1)
    // The file of the process has the access mode and the flags of its open(2).
    let kept = O_ACCMODE | O_NONBLOCK | O_APPEND
    let client = Glibc.open("/proc/self/fd/\(ends.0)", flags & kept | O_CLOEXEC)
    guard client >= 0 else { throw .current }
    clientEnd = OwnedDescriptor(FileDescriptor(rawValue: client))
    pipe = UInt64((try reading.descriptor.attributes()).st_ino)
    ownEnd = flags & O_ACCMODE == O_WRONLY ? reading : writing
    self.flags = flags
    openFlags = flags
    self.handle = handle
    self.isStream = isStream
    self.caller = caller
    setReadiness(toRead: true, toWrite: true)
  }

  /// Lets each write to the pipe take a whole page of it. open(2) refuses the flag for a pipe.
  private static func writePackets(by end: Int32) {
    _ = fcntl(end, F_SETFL, O_NONBLOCK | CLINUX_O_DIRECT)
  }

  var isReadable: Bool { openFlags & O_ACCMODE != O_WRONLY }

  var isWritable: Bool { openFlags & O_ACCMODE != O_RDONLY }

  /// Notes that the process has its end.
  func clientHasEnd() {
    clientEnd?.close()
    clientEnd = nil
  }

  /// Makes the pipe readable and writable as the device is. A pipe that is neither does not exist: a file that is open for both is writable
  /// then.
  func setReadiness(toRead: Bool, toWrite: Bool) {
    let wanted: Readiness
    if isReadable {
      wanted = toRead ? (toWrite ? .both : .toRead) : .toWrite
    } else {
      wanted = toWrite ? .toWrite : .toRead
    }
    guard wanted != readiness else { return }
    if readiness != .toWrite { drain() }
    if wanted != .toWrite { fill(completely: wanted == .toRead) }
    readiness = wanted
  }

  private func drain() {
    withEnd(forReading: true) {
      var bytes: (UInt64, UInt64) = (0, 0)
      while read($0, &bytes, MemoryLayout.size(ofValue: bytes)) > 0 {}
    }
  }

  private func fill(completely: Bool) {
    withEnd(forReading: false) {
      var byte: UInt8 = 0
      repeat { guard Glibc.write($0, &byte, 1) == 1 else { return } } while completely
    }
  }

  /// Calls `body` with an end of the pipe, which is opened for this time if the server does not have it.
  private func withEnd(forReading: Bool, _ body: (Int32) -> Void) {
    let own = ownEnd.descriptor.rawValue
    // The server's end is the one that the process does not need.
    guard forReading == isReadable else { return body(own) }
    let flags = (forReading ? O_RDONLY : O_WRONLY) | O_NONBLOCK | O_CLOEXEC
    let end = Glibc.open("/proc/self/fd/\(own)", flags)
    guard end >= 0 else { return }
    if !forReading { Self.writePackets(by: end) }
    body(end)
    close(end)
  }
}
